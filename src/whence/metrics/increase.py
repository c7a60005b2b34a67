"""Increase: whether the probability rises where only what the map shows is left."""

from torch import Tensor

from whence.metrics.claim import Claim
from whence.metrics.confidence import under_map
from whence.registry import metric
from whence.results import Measured


@metric(
    "increase",
    title="Increase in confidence",
    family="faithfulness",
    paper="arXiv:1710.11063",
    needs="scores",
    better="higher",
)
def increase(claim: Claim, *, substrate: str | Tensor = "zeros", batch: int | None = None, seed: int = 0) -> Measured:
    """Whether the probability is higher where the picture is multiplied with its map: 1 or 0.

    Chattopadhay et al. 2018, "increase in confidence", whose mean over pictures is the paper's number (there in
    percent). Mask and ``substrate`` are those of ``drop``; a rise no larger than rounding is none.
    """
    found = under_map(claim, substrate=substrate, batch=batch, seed=seed)
    return Measured((found.lower < 0).to(found.whole), passes=found.passes, notes=found.notes)
