"""How a session runs the module: memory order, half precision, folded norms, and errors that name the model."""

from contextlib import nullcontext
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from whence.errors import ModelError
from whence.models.classifier import Classifier
from whence.models.folding import Folding, folding_of
from whence.models.order import takes_channels_last


class Runner:
    """Runs one module; what it finds out of the model is kept in the classifier, once an input size.

    Attributes
    ----------
    precision
        In which type the module runs. May be set, by what does not stand half precision.
    """

    def __init__(self, classifier: Classifier, module: nn.Module) -> None:
        self.classifier, self.module = classifier, module
        self.precision = classifier.precision
        # A copy made for one session has its own.
        self._foldings = classifier.foldings if module is classifier.module else {}
        self._compared = False

    def arranged(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Return a batch in the memory order in which the model runs fastest."""
        shape, known = tuple(x.shape[1:]), self.classifier.channels_last
        if shape not in known:
            with torch.random.fork_rng([x.device] if x.is_cuda else []):
                known[shape] = takes_channels_last(self.module, x, self.run)
        return x.contiguous(memory_format=torch.channels_last) if known[shape] else x

    def run(self, x: Float[Tensor, "b *shape"]) -> Any:  # noqa: ANN401  (modules return anything)
        """Return what the module returns."""
        # A copy, because the model may work in place on its input.
        return self.through(x.clone())

    def folding(self, x: Float[Tensor, "b *shape"]) -> Folding:
        """Return what runs the module without its batch norms."""
        if self.precision != "float32":
            return Folding({}, x)
        shape, known = tuple(x.shape[1:]), self._foldings
        if not self._compared and not all(folding.stands() for folding in known.values()):
            known.clear()
        self._compared = True
        if shape not in known:
            with torch.random.fork_rng([x.device] if x.is_cuda else []):
                known[shape] = folding_of(self.module, x, self.run, known.values())
        return known[shape]

    def through(self, x: Float[Tensor, "b *shape"]) -> Any:  # noqa: ANN401
        """Return what the module returns for a tensor that it may change.

        Raises
        ------
        ModelError
            It cannot take the input, or runs out of memory.
        """
        halved = self.precision != "float32"
        try:
            # The model alone runs in half precision.
            with torch.autocast(x.device.type, getattr(torch, self.precision)) if halved else nullcontext():
                return self.module(x)
        except torch.OutOfMemoryError as error:
            raise ModelError(
                f"{self.classifier.name} runs out of memory on an input of shape {list(x.shape)}: "
                "give fewer or smaller pictures at once"
            ) from error
        except (RuntimeError, ValueError, TypeError, AssertionError, IndexError) as error:
            shape, expected = list(x.shape), self.classifier.input
            size = f" (its preprocessing states {list(expected)})" if expected else ""
            first = str(error).partition("\n")[0]
            raise ModelError(
                f"{self.classifier.name} cannot take an input of shape {shape}{size}: {first}"
            ) from error
