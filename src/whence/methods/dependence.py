"""Whether a score depends on what is changed in a picture, or differs only as batches of other sizes round."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from whence.methods.numbers import rounding
from whence.models.session import Session
from whence.models.targets import TargetSpec

# Rounding between batches of 1 and of 6 is 0 to 200 eps of a score in deep nets, 3,000 seen once; scores of random
# EfficientNets really change by 130 to 580. Within one batch the same picture differs by 0 to 2, 15 seen once.
_DOUBTED = 8192
_CHANGED = torch.tensor([False, True, True, False])

Beside = Callable[[int, int, Bool[Tensor, " n"]], Float[Tensor, " n"]]
"""Returns the scores of one batch, given a picture's number, a change's, and for each place whether it is made."""


def depends(score: Float[Tensor, " b"], scores: Float[Tensor, "b n"], beside: Beside) -> Bool[Tensor, " b"]:
    """Return whether each picture's score depends on what was changed in it.

    ``scores`` are those of changed pictures, to be held against ``score``. Where even the farthest is so near that
    rounding may have moved it, the picture with and without that change is run again in one batch: there, the scores
    must differ by more than each of them from place to place.
    """
    far, number = (scores - score[:, None]).abs().max(1)
    found = far > rounding(score)
    doubted = found & (far <= _DOUBTED * torch.finfo(score.dtype).eps * score.abs())
    for row in doubted.nonzero()[:, 0].tolist():
        again = beside(row, int(number[row]), _CHANGED)
        one, other = again[~_CHANGED], again[_CHANGED]
        spread = one.diff().abs() + other.diff().abs()
        found[row] = (one.mean() - other.mean()).abs() > rounding(one[0]) + spread[0]
    return found


def pictures_beside(
    model: Session,
    target: Sequence[TargetSpec],
    batch: int,
    pair: Callable[[int, int], Float[Tensor, "2 c h w"]],
) -> Beside:
    """Return how pictures are run side by side; ``pair(row, number)`` is one without and with a change."""

    def beside(row: int, number: int, changed: Bool[Tensor, " n"]) -> Float[Tensor, " n"]:
        both, which = pair(row, number), changed.long()
        return model.scores(lambda at: both[which[at]], torch.full_like(which, row), target, min(batch, len(which)))

    return beside
