"""Patches of a grid: sets of them as bits, and the masks that show a set to the model."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

Style = Literal["tents", "centred", "boxes"]
# How a grid's values are stretched over the input in each style.
_STRETCHED: dict[Style, tuple[str, bool | None]] = {
    "tents": ("linear", True),
    "centred": ("linear", False),
    "boxes": ("nearest-exact", None),
}
Patches = tuple[int, ...]
"""The numbers of some patches, ascending: patch ``side * row + column``."""


def bits(patches: Iterable[int]) -> int:
    """Return a set of patches as a whole number: bit i stands for patch i."""
    return sum(1 << patch for patch in patches)


def patches_of(bits: int) -> Patches:
    """Return the numbers of the patches in a set, ascending."""
    return tuple(members(bits))


def members(bits: int) -> Iterator[int]:
    """Yield the numbers of the patches in a set, ascending."""
    while bits:
        low = bits & -bits
        yield low.bit_length() - 1
        bits ^= low


@dataclass(frozen=True)
class PatchGrid:
    """A grid of ``side`` x ``side`` patches over an input of ``size`` (H, W).

    In the style ``tents`` the outer patches' centres lie on the input's edges, so that they show half of what the
    others show, and a patch fades to nothing at its neighbours' centres (bilinear, corners aligned, as in the
    reference of structured attention graphs); ``centred`` fades too, with each centre in the middle of its cell;
    ``boxes`` cuts hard cells.
    """

    side: int
    size: tuple[int, int]
    style: Style = "tents"

    @property
    def count(self) -> int:
        """How many patches there are."""
        return self.side**2

    @property
    def whole(self) -> int:
        """The set of all patches."""
        return (1 << self.count) - 1

    @cached_property
    def _weights(self) -> tuple[Float[Tensor, "H g"], Float[Tensor, "W g"]]:
        """A row's share of each row of patches, and the same for columns."""
        mode, corners = _STRETCHED[self.style]
        eye = torch.eye(self.side, dtype=torch.float64)[None]
        down, across = (F.interpolate(eye, size=n, mode=mode, align_corners=corners)[0].T for n in self.size)
        return down, across

    def masks(self, sets: Sequence[int], like: Float[Tensor, "..."]) -> Float[Tensor, "n 1 H W"]:
        """Return what of the input each set shows, U = A M A^T: 1 where it is kept, 0 where it is taken away."""
        kept = self.indicators(sets).to(like)
        return self.spread(kept.reshape(-1, self.side, self.side))[:, None]

    def indicators(self, sets: Sequence[int]) -> Float[Tensor, "n p"]:
        """Return for each set a row that is 1 where it holds a patch, in double precision."""
        held = torch.zeros(len(sets), self.count, dtype=torch.float64)
        for row, one in enumerate(sets):
            held[row, list(members(one))] = 1
        return held

    def spread(self, values: Float[Tensor, "n g g"]) -> Float[Tensor, "n H W"]:
        """Return a value per patch on the input's places, as the masks lie there."""
        down, across = (side.to(values) for side in self._weights)
        return down @ values @ across.T

    def edges(self, axis: int) -> tuple[float, ...]:
        """Return where patches begin and end along an axis (0 down, 1 across), as ``side`` + 1 shares of its length.

        A patch that fades ends where its neighbour shows as much as it does.
        """
        if self.style != "tents" or self.side == 1:
            return tuple(i / self.side for i in range(self.side + 1))
        length = self.size[axis]
        # Peaks lie on pixels' centres, the first and the last pixel's among them.
        peaks = [(i * (length - 1) / (self.side - 1) + 0.5) / length for i in range(self.side)]
        between = [(a + b) / 2 for a, b in pairwise(peaks)]
        return (0.0, *between, 1.0)
