"""Relevance mass: how much of what speaks for the class lies on the true evidence."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from whence.metrics.claim import Claim
from whence.metrics.noting import notes
from whence.metrics.pointing import EMPTY
from whence.registry import metric
from whence.results import Measured

NOTHING = "there is no number: nothing in the map is positive"


@metric(
    "relevance-mass",
    title="Relevance mass accuracy",
    family="localisation",
    paper="arXiv:2003.07258",
    needs="region",
    better="higher",
)
def relevance_mass(claim: Claim) -> Measured:
    """Which share of the map's positive relevance lies in the true region.

    Arras et al. 2022, "relevance mass accuracy": R_within / R_total, of the positive part of the signed map on the
    input's grid. NaN where nothing is positive, and where the region is empty.
    """
    region = claim.true_region("relevance-mass")
    empty = ~region.flatten(1).any(1)
    mass = mass_inside(claim.heat, region)
    return Measured(torch.where(empty, torch.nan, mass), notes=notes({NOTHING: mass.isnan(), EMPTY: empty}))


def mass_inside(heat: Float[Tensor, "b h w"], region: Bool[Tensor, "b h w"]) -> Float[Tensor, " b"]:
    """Return which share of each map's positive part lies in the region, NaN where nothing is positive."""
    positive = heat.clamp(min=0)
    return (positive * region).sum((1, 2)) / positive.sum((1, 2))
