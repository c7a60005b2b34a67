"""Which pictures each step takes, and what is done to them: the same for any number of processes."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from whence.errors import OptionError
from whence.interpretable.training.plan import Plan


def generator(seed: int, *at: int, device: torch.device | str = "cpu") -> torch.Generator:
    """Return the generator of one place in a training: another for each seed and place, always the same one."""
    mixed = seed
    for number in at:
        mixed = (mixed * 0x9E3779B97F4A7C15 + number + 1) % 2**63
    return torch.Generator(device).manual_seed(mixed)


@dataclass(frozen=True)
class Share:
    """Which part of every batch is this process's: that of ``rank`` among ``processes``."""

    rank: int = 0
    processes: int = 1

    def rows(self, count: int) -> slice:
        """Return the rows of a batch of ``count``.

        Raises
        ------
        OptionError
            They cannot be shared equally.
        """
        if count % self.processes:
            raise OptionError(
                f"a batch of {count} pictures cannot be shared by {self.processes} processes: give another batch"
            )
        own = count // self.processes
        return slice(self.rank * own, (self.rank + 1) * own)


@dataclass(frozen=True)
class Batches:
    """The indices of this process's pictures in each step from ``start`` on; each epoch has an order of its own."""

    plan: Plan
    pictures: int
    share: Share
    start: int = 0

    def __len__(self) -> int:
        """Return how many steps are left."""
        return self.plan.epochs * self.plan.steps(self.pictures) - self.start

    def __iter__(self) -> Iterator[list[int]]:
        """Yield the indices of each step."""
        steps, count = self.plan.steps(self.pictures), self.plan.pictures(self.pictures)
        for epoch in range(self.start // steps, self.plan.epochs):
            order = torch.randperm(self.pictures, generator=generator(self.plan.seed, 0, epoch))
            for step in range(self.start - epoch * steps if epoch == self.start // steps else 0, steps):
                yield order[step * count :][:count][self.share.rows(count)].tolist()


def augmented(x: Float[Tensor, "b c h w"], plan: Plan, step: int, share: Share) -> Float[Tensor, "b c h w"]:
    """Return this process's part of a batch mirrored, shifted, and with other contrasts and colours, at random.

    Shifts are by up to a sixteenth of the shorter side, and around the picture.
    """
    channels, count = x.shape[1], len(x) * share.processes
    rows, own, reach = share.rows(count), generator(plan.seed, 1, step), min(x.shape[2:]) // 16
    mirrored = (torch.rand(count, generator=own) < 0.5)[rows].to(x.device)
    shifts = torch.randint(-reach, reach + 1, (count, 2), generator=own)[rows].tolist()
    contrast = 0.8 + 0.4 * torch.rand(count, 1, 1, 1, generator=own)[rows].to(x)
    colour = 0.4 * torch.rand(count, channels, 1, 1, generator=own)[rows].to(x) - 0.2
    x = torch.where(mirrored[:, None, None, None], x.flip(-1), x)
    x = torch.stack([picture.roll(shift, (-2, -1)) for picture, shift in zip(x, shifts, strict=True)])
    return x * contrast + colour
