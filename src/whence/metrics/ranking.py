"""The one ranking of places: by the signed, reduced map, ties averaged."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from whence.errors import OptionError


@dataclass(frozen=True, eq=False)
class Ranking:
    """For each place of a map, how many lie higher, and how many are as high as it (itself included)."""

    higher: Float[Tensor, "b *places"]
    tied: Float[Tensor, "b *places"]

    @classmethod
    def of(cls, heat: Float[Tensor, "b *places"]) -> "Ranking":
        """Rank the places of each map."""
        # In half precision the areas could not be counted.
        flat = heat.flatten(1).to(torch.promote_types(heat.dtype, torch.float32))
        rising = flat.sort(dim=1).values
        lower = torch.searchsorted(rising, flat)
        upto = torch.searchsorted(rising, flat, right=True)
        higher, tied = (flat.shape[1] - upto).to(flat), (upto - lower).to(flat)
        return cls(higher.reshape(heat.shape), tied.reshape(heat.shape))

    def top(self, share: Float[Tensor, " n"], rows: Int[Tensor, " n"] | None = None) -> Float[Tensor, "n *places"]:
        """Return for each place how much of it belongs to a ``share`` of the area where the map is highest.

        1 where the map is higher than at the share's edge, 0 where it is lower; the places tied there take equal
        parts of what is left, so that every mask has the same area, also where the map is constant. ``rows`` says
        whose map each share is of, if not each its own.
        """
        higher, tied = (t if rows is None else t[rows] for t in (self.higher, self.tied))
        area = (share.to(higher) * higher[0].numel()).reshape(-1, *(1,) * (higher.ndim - 1))
        return ((area - higher) / tied).clamp(0, 1)


def top_share(heat: Float[Tensor, "b h w"], share: float) -> Float[Tensor, "b h w"]:
    """Return for each place how much of it belongs to the ``share`` of the area where the map is highest.

    Raises
    ------
    OptionError
        ``share`` is not between 0 and 1.
    """
    if not 0 < share < 1:
        raise OptionError(f"share={share}: give a part of the area between 0 and 1, such as 0.064")
    return Ranking.of(heat).top(torch.full((len(heat),), share, dtype=torch.float64))
