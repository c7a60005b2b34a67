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


def depends(
    model: Session,
    score: Float[Tensor, " b"],
    scores: Float[Tensor, "b n"],
    target: Sequence[TargetSpec],
    pair: Callable[[int, int], Float[Tensor, "2 c h w"]],
    batch: int,
) -> Bool[Tensor, " b"]:
    """Return whether each picture's score depends on what was changed in it.

    ``scores`` are those of changed pictures, to be held against ``score``. Where even the farthest is so near that
    rounding may have moved it, both pictures, which ``pair(row, number)`` returns, are run side by side, at most
    ``batch`` at once.
    """
    difference = (scores - score[:, None]).abs()
    far, number = difference.max(1)
    found = far > rounding(score)
    doubted = found & (far <= _DOUBTED * torch.finfo(score.dtype).eps * score.abs())
    for row in doubted.nonzero()[:, 0].tolist():
        found[row] = _differ(model, target, row, pair(row, int(number[row])), batch)
    return found


def _differ(
    model: Session, target: Sequence[TargetSpec], row: int, pair: Float[Tensor, "2 c h w"], batch: int
) -> bool:
    """Return whether two pictures' scores differ by more than each one's from place to place of one batch."""
    beside = torch.tensor([0, 1, 1, 0])
    scores = model.scores(lambda at: pair[beside[at]], torch.full((4,), row), target, min(batch, 4))
    one, other = scores[beside == 0], scores[beside == 1]
    apart, spread = one.mean() - other.mean(), one.diff().abs() + other.diff().abs()
    return bool(apart.abs() > rounding(one[0]) + spread)
