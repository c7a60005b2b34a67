"""Drop: how much of the probability is lost where only what the map shows is left."""

import torch
from torch import Tensor

from whence.metrics.claim import Claim
from whence.metrics.confidence import under_map
from whence.metrics.noting import notes
from whence.registry import metric
from whence.results import Measured

NO_SHARE = "there is no number: the whole picture's own is not above 0, and has no share to lose"


@metric("drop", title="Average drop", family="faithfulness", paper="arXiv:1710.11063", needs="scores", better="lower")
def drop(claim: Claim, *, substrate: str | Tensor = "zeros", batch: int | None = None, seed: int = 0) -> Measured:
    """Which share of the probability is lost where the picture is multiplied with its map.

    Chattopadhay et al. 2018, "average drop": max(0, p - p_masked) / p, whose mean over pictures is the paper's number
    (there in percent). The mask is the positive part of the map on the input's grid, divided by its maximum. What
    comes in the picture's place is the ``substrate``: ``zeros`` multiplies the normalised input, as the peers do, and
    ``black`` the pixels.
    """
    found = under_map(claim, substrate=substrate, batch=batch, seed=seed)
    share = torch.where(found.whole > 0, found.lower.clamp(min=0) / found.whole, torch.nan)
    undefined = notes({NO_SHARE: share.isnan()})
    said = tuple(more + own for more, own in zip(undefined, found.notes, strict=True))
    return Measured(share, passes=found.passes, notes=said)
