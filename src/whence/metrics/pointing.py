"""Pointing: does the highest place of the map lie on the true evidence?"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from whence.methods.numbers import at_least
from whence.metrics.claim import Claim
from whence.metrics.noting import notes
from whence.registry import metric
from whence.results import Measured

EMPTY = "there is no number: the region is empty"


@metric(
    "pointing",
    title="Pointing game",
    family="localisation",
    paper="arXiv:1608.00507",
    needs="region",
    better="higher",
)
def pointing(claim: Claim, *, tolerance: int = 0) -> Measured:
    """Whether the map's highest place lies in the true region: 1 or 0, and where several are highest, their share.

    Zhang et al. 2018. A place less than ``tolerance`` pixels of the input away from the region counts as inside: 0
    asks for the region itself, 15 is the pointing game as TorchRay plays it. NaN where the region is empty.
    """
    at_least(tolerance=(tolerance, 0))
    region = claim.true_region("pointing")
    empty = ~region.flatten(1).any(1)
    hits = pointing_hits(claim.heat, near(region, tolerance))
    return Measured(torch.where(empty, torch.nan, hits), notes=notes({EMPTY: empty}))


def pointing_hits(heat: Float[Tensor, "b h w"], region: Bool[Tensor, "b h w"]) -> Float[Tensor, " b"]:
    """Return which share of each map's highest places lies in the region; mostly there is one such place."""
    highest = heat == heat.amax((1, 2), keepdim=True)
    return (highest & region).sum((1, 2)).to(heat) / highest.sum((1, 2))


def near(region: Bool[Tensor, "b h w"], distance: int) -> Bool[Tensor, "b h w"]:
    """Return the places that are less than ``distance`` pixels away from the region, and the region itself."""
    if distance < 2:
        return region
    away = torch.arange(1 - distance, distance, device=region.device)
    disc = (away[:, None] ** 2 + away**2 < distance**2).float()[None, None]
    return F.conv2d(region[:, None].float(), disc, padding=distance - 1)[:, 0] > 0.5
