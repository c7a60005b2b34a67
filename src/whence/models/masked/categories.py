"""Which class each filter stands for: the one whose pictures activate it most, by a moving average."""

from typing import Literal, get_args

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from whence.errors import OptionError, nearest
from whence.models.masked.ranks import summed
from whence.models.masked.templates import exact

Statistic = Literal["max", "sum"]


class Categories(nn.Module):
    """The moving average [C, K] over batches of each filter's mean activation on the pictures of each class.

    Its buffers belong to the state: a training that is taken up again goes on with the same categories. Where a
    batch is spread over processes, all of them find the same.

    Parameters
    ----------
    classes, filters
        C and K.
    statistic
        What a map counts: its ``max``, as in the authors' code, or its ``sum``, as in the paper.
    momentum
        How much of the average stays at each batch that shows the class; the first such batch is taken whole.

    Raises
    ------
    OptionError
        There are fewer filters than classes, so that some class could have none, or an option is out of range.
    """

    activation: Tensor
    seen: Tensor
    frozen: Tensor

    def __init__(self, classes: int, filters: int, *, statistic: Statistic = "max", momentum: float = 0.9) -> None:
        super().__init__()
        if filters < classes:
            raise OptionError(
                f"{filters} filters cannot stand for {classes} classes: choose a layer of at least {classes} "
                "channels, label groups of classes, or train without categories by the loss 'all-positive'"
            )
        if statistic not in get_args(Statistic):
            raise OptionError(f"statistic={statistic!r} does not exist: {nearest(statistic, get_args(Statistic))}")
        if not 0 <= momentum < 1:
            raise OptionError(f"momentum={momentum}: give a number from 0 to below 1")
        self.statistic, self.momentum = statistic, momentum
        self.register_buffer("activation", torch.zeros(classes, filters))
        self.register_buffer("seen", torch.zeros(classes, dtype=torch.bool))
        self.register_buffer("frozen", torch.tensor(False))

    @torch.no_grad()
    def update(self, x: Float[Tensor, "b k h w"], labels: Int[Tensor, " b"]) -> None:
        """Take a batch of raw rectified maps into the average; nothing changes in eval mode or once frozen.

        Raises
        ------
        OptionError
            A label is no class.
        """
        if not self.training or bool(self.frozen):
            return
        self._check(labels)
        value = exact(x).amax((2, 3)) if self.statistic == "max" else exact(x).sum((2, 3))
        total = value.new_zeros(self.activation.shape).index_add_(0, labels, value)
        count = summed(value.new_zeros(len(self.seen)).index_add_(0, labels, torch.ones_like(value[:, 0])))
        mean = summed(total) / count.clamp(min=1)[:, None]
        kept = self.momentum * self.seen.to(mean)[:, None]
        average = kept * self.activation.to(mean) + (1 - kept) * mean
        shown = count > 0
        self.activation.copy_(torch.where(shown[:, None], average, self.activation.to(mean)))
        self.seen |= shown

    def freeze(self) -> None:
        """Keep the categories as they are: filters that change sides are what upsets a training."""
        self.frozen.fill_(True)

    def assigned(self) -> Int[Tensor, " k"]:
        """Return each filter's category c(f), the class of the highest average; the first one on a tie.

        Raises
        ------
        OptionError
            No batch was seen yet.
        """
        if not bool(self.seen.any()):
            raise OptionError("the filters have no categories yet: call update(maps, labels) in train mode first")
        return self.activation.masked_fill(~self.seen[:, None], -torch.inf).argmax(0)

    def positive(self, labels: Int[Tensor, " b"]) -> Bool[Tensor, "b k"]:
        """Return whether each picture is of each filter's category.

        Raises
        ------
        OptionError
            A label is no class, or no batch was seen yet.
        """
        self._check(labels)
        return labels[:, None] == self.assigned()

    def _check(self, labels: Int[Tensor, " b"]) -> None:
        classes = len(self.seen)
        if bool(((labels < 0) | (labels >= classes)).any()):
            raise OptionError(
                f"labels run from {int(labels.min())} to {int(labels.max())}: with {classes} classes give 0 to "
                f"{classes - 1}"
            )

    def extra_repr(self) -> str:
        """Return the numbers of classes and filters, and what a map counts."""
        classes, filters = self.activation.shape
        return f"classes={classes}, filters={filters}, statistic={self.statistic}"
