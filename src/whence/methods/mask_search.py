"""The search for masks by gradients that the perturbation methods share: small grids, stepped downhill by Adam."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from whence.methods.masked import blended, notes, searched_type, weighted_slope
from whence.methods.numbers import rounding
from whence.models.session import Session, chunk_size
from whence.models.targets import TargetSpec

NOTHING_TO_HOLD = "the score has no slope under the masks, so that the search had nothing to hold on to"
_START = 0.5


@dataclass(frozen=True, eq=False)
class Search:
    """A search for grids p [n, 1, s, s] in [0, 1] downhill on: weight * score of the picture + penalty.

    Grid i changes picture ``rows[i]``; ``batch`` changed pictures are held at a time. In every step picture and base
    picture are moved by up to ``jitter`` pixels, drawn on the CPU from ``seed``, the same for all.
    """

    model: Session
    x: Float[Tensor, "b c h w"]
    base: Float[Tensor, "b c h w"]
    rows: Int[Tensor, " n"]
    target: Sequence[TargetSpec]
    weight: int
    batch: int | None
    jitter: int
    seed: int

    def found(
        self,
        side: int,
        iterations: int,
        rate: int | float,
        keep: Callable[[Tensor], Tensor],
        penalty: Callable[[Tensor, float], Tensor],
    ) -> tuple[Float[Tensor, "n 1 s s"], Bool[Tensor, " n"]]:
        """Return the grids after ``iterations`` steps of Adam from 0.5 everywhere, and which met a slope at all.

        ``keep`` returns how much of the picture grids keep, [m, 1, h, w]; ``penalty`` what is added to the score of
        each, [n], and is told the share of the steps that are done.
        """
        shape, device = (len(self.rows), 1, side, side), self.x.device
        p = torch.full(shape, _START, dtype=searched_type(self.x), device=device, requires_grad=True)
        weights = p.new_full((len(p),), self.weight)
        held, adam = torch.zeros_like(weights, dtype=torch.bool), torch.optim.Adam([p], lr=rate)
        generator = torch.Generator().manual_seed(self.seed)
        offsets = torch.randint(-self.jitter, self.jitter + 1, (iterations, 2), generator=generator)
        for done, offset in enumerate(offsets.tolist()):
            x, base = moved(self.x, offset), moved(self.base, offset)

            def masked(at: Int[Tensor, " m"], x: Tensor = x, base: Tensor = base) -> Float[Tensor, "m c h w"]:
                return blended(x[self.rows[at]], base[self.rows[at]], keep(p[at]).to(x))

            size = self.batch or chunk_size(x)
            scores, (slope,) = weighted_slope(self.model, [p], masked, self.rows, self.target, weights, size)
            held |= slope.abs().sum((1, 2, 3)) > rounding(scores)
            with torch.enable_grad():
                (simpler,) = torch.autograd.grad(penalty(p, done / iterations).sum(), p)
            p.grad = slope + simpler
            adam.step()
            with torch.no_grad():
                p.clamp_(0, 1)
        return p.detach(), held


def moved(x: Float[Tensor, "b c h w"], offset: Sequence[int]) -> Float[Tensor, "b c h w"]:
    """Return pictures moved down and to the right by an offset; their border is repeated."""
    down, across = (
        (torch.arange(side, device=x.device) - by).clamp(0, side - 1)
        for side, by in zip(x.shape[2:], offset, strict=True)
    )
    return x[:, :, down][:, :, :, across]


def searched_notes(
    baseline: str, settled: Sequence[TargetSpec], measured: Sequence[TargetSpec], held: Bool[Tensor, " b"]
) -> tuple[tuple[str, ...], ...]:
    """Say for each picture what stands in its place, what is measured, and where no slope was met."""
    said = zip(notes(baseline, settled, measured), held.tolist(), strict=True)
    return tuple(own if any_slope else (*own, NOTHING_TO_HOLD) for own, any_slope in said)
