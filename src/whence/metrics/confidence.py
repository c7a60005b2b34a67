"""The picture under its map: what is left of a probability where the map is low, for ``drop`` and ``increase``."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from whence.methods import numbers
from whence.metrics.claim import Claim
from whence.metrics.noting import notes
from whence.metrics.substrates import filling
from whence.models.session import chunk_size
from whence.results import Passes

NOTHING_LEFT = "nothing in the map is positive: the whole picture is taken away"


@dataclass(frozen=True, eq=False)
class Confidence:
    """``whole`` [B], the probability of the whole picture, and by how much it is ``lower`` [B] under the map."""

    whole: Float[Tensor, " b"]
    lower: Float[Tensor, " b"]
    passes: Passes
    notes: tuple[tuple[str, ...], ...]


def under_map(claim: Claim, *, substrate: str | Tensor, batch: int | None, seed: int) -> Confidence:
    """Measure the pictures, and the pictures multiplied with their maps.

    The mask is the positive part of the signed map on the input's grid, divided by its maximum.
    """
    numbers.at_least(batch=(batch, 1))
    positive = claim.heat.clamp(min=0)
    highest = positive.amax((1, 2), keepdim=True)
    mask = torch.where(highest > 0, positive / highest, 0).to(claim.x)[:, None]
    keep = torch.cat((torch.ones_like(mask), mask))
    rows = torch.arange(len(claim.x)).repeat(2)
    with claim.opened() as session:
        fill = filling(session, claim.x, substrate, seed)
        found = session.scores(lambda n: fill(rows[n], keep[n]), rows, claim.measured, batch or chunk_size(claim.x))
        passes = session.passes
    whole, masked = found.chunk(2)
    return Confidence(whole, numbers.drop(whole, masked), passes, notes({NOTHING_LEFT: highest.flatten() == 0}))
