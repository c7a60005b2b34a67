"""The scores that changed pictures' scores are held against, and what of the difference is only rounding."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from whence.errors import ModelError
from whence.methods.numbers import drop
from whence.models.session import Session
from whence.models.targets import TargetSpec

# Batches of 1 and of 6 round a deep net's outputs 0 to 200 eps apart, 3,000 seen once; the scores of random
# EfficientNets really change by 130 to 580. At one place in batches of one size the same picture gives the same bits.
_DOUBTED = 8192


@dataclass(frozen=True, eq=False)
class Reference:
    """Each picture's own ``score``, as it was run once, and ``run(row, size)``: a batch of so many of it, run again.

    Changed pictures are run at most ``batch`` at once. A difference of at most ``doubted`` may be rounding.
    """

    score: Float[Tensor, " b"]
    doubted: Float[Tensor, " b"]
    batch: int
    run: Callable[[int, int], Float[Tensor, " n"]]
    _again: dict[tuple[int, int], Tensor] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        model: Session,
        output: Any,  # noqa: ANN401
        score: Tensor,
        batch: int,
        run: Callable[[int, int], Tensor],
    ) -> "Reference":
        """Return what scores of changed pictures are held against, given what the model returned for these."""
        scale = score.abs()
        # A score may be a small difference of large numbers, and rounded as they are.
        with suppress(ModelError):
            logits = model.logits(output).detach()
            scale = torch.maximum(scale, logits.abs().amax(1).to(scale)) if len(logits) == len(scale) else scale
        # What rounds is at least as coarse as float32: a model may compute in less than it takes and returns.
        types = (torch.float32, model.classifier.like.dtype, getattr(torch, model.runner.precision))
        return cls(score, _DOUBTED * max(torch.finfo(dtype).eps for dtype in types) * scale, batch, run)

    def drops(self, rows: Int[Tensor, " n"], scores: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
        """Return by how much the scores of one call of ``Session.scores`` fall below the pictures' own.

        Where all of a picture's may be rounding, each is held against the picture itself at the same place of a
        batch of the same size, which takes a batch or two more than planned. What is left of rounding is 0.
        """
        own = self.score[rows]
        full = len(rows) // self.batch * self.batch
        for row in set(rows.tolist()):
            (mine,) = (rows == row).nonzero(as_tuple=True)
            if 0 < (own[mine] - scores[mine]).abs().max() <= self.doubted[row]:
                sizes = torch.where(mine < full, self.batch, len(rows) - full)
                for size in set(sizes.tolist()):
                    here = mine[sizes == size]
                    own[here] = self._placed(row, size)[here % self.batch]
        return drop(own, scores)

    def _placed(self, row: int, size: int) -> Float[Tensor, " n"]:
        if (row, size) not in self._again:
            self._again[row, size] = self.run(row, size)
        return self._again[row, size]


def copies(
    model: Session, target: Sequence[TargetSpec], make: Callable[[Int[Tensor, " n"]], Float[Tensor, "n c h w"]]
) -> Callable[[int, int], Float[Tensor, " n"]]:
    """Return how one picture is run as changed ones are; ``make`` returns pictures that nothing changes."""

    def run(row: int, size: int) -> Float[Tensor, " n"]:
        rows = torch.full((size,), row)
        return model.score(model.run(make(rows), folded=model.many), [target[row]] * size, rows).value

    return run
