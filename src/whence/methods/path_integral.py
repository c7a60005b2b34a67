"""Gradients times steps, summed along a path from baselines to pictures."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor

from whence.errors import OptionError
from whence.methods import paths
from whence.methods.paths import Path
from whence.methods.quadrature import Quadrature, Rule, nested, new_nodes, quadrature
from whence.models.order import order_of
from whence.models.session import Session, chunk_size
from whence.models.targets import TargetSpec


@dataclass(frozen=True, eq=False)
class PathIntegral:
    """What is integrated, over what.

    ``baselines`` holds n for every picture, the first one of every picture first; ``shares`` are their weights in
    the average, which add up to 1. ``target`` is settled: it stays the same along the path.
    """

    model: Session
    x: Float[Tensor, "b c h w"]
    baselines: Float[Tensor, "nb c h w"]
    shares: tuple[float, ...]
    path: Path
    target: Sequence[TargetSpec]

    @classmethod
    def over(
        cls,
        model: Session,
        x: Float[Tensor, "b c h w"],
        made: Sequence[Float[Tensor, "_ b c h w"]],
        path: Path,
        target: Sequence[TargetSpec],
    ) -> "PathIntegral":
        """Return the integral over baselines that may have several draws each; each baseline weighs the same.

        Raises
        ------
        OptionError
            The path does not lead to the picture.
        """
        baselines = _ordered(torch.cat([drawn.flatten(0, 1) for drawn in made]), x)
        shares = tuple(1 / len(made) / len(drawn) for drawn in made for _ in drawn)
        end = path(x, baselines[: len(x)], torch.ones_like(x[:, :1, :1, :1]))
        if end.shape != x.shape or not torch.allclose(end, x, rtol=1e-3, atol=1e-3):
            raise OptionError("path(x, baseline, alpha) must return a point for each picture, at alpha 1 itself")
        return cls(model, x, baselines, shares, path, target)

    def refined(
        self, rule: Rule, sizes: Sequence[int], tol: float | int | None
    ) -> tuple[Float[Tensor, "b c h w"], Float[Tensor, " b"] | None]:
        """Return the maps, and by how much each changed at its last refinement, relative (None where none was).

        Every point is used again by the finer rule; a picture whose map stands still takes no part any more.
        """
        grid, active = quadrature(rule, sizes[-1]), torch.arange(len(self.x))
        total, values = self._zero(), self._zero()
        change = torch.full((len(self.x),), torch.inf, dtype=torch.float64)
        for number, size in enumerate(sizes):
            self._add(total, grid, new_nodes(size, sizes[-1], first=number == 0), active)
            # The pieces of the finest grid around the points taken so far stand for the whole path.
            finer = total[active] / float(grid.weights[nested(size, sizes[-1])].sum())
            if number > 0:
                change[active] = _change(values[active], finer)
            values[active] = finer
            active = active[change[active] > (tol or 0)]
            if not len(active):
                break
        return values, change if len(sizes) > 1 else None

    def guided(self, steps: int, fraction: float | int, distance: float | int) -> Float[Tensor, "b c h w"]:
        """Return the maps along the guided paths, which only their gradients make known.

        Each step takes the mean of the gradients at both its ends: single values go far in one step, and the gradient
        at its start alone misses completeness by more.
        """
        total = self._zero()
        for baseline, share in zip(torch.split(self.baselines, len(self.x)), self.shares, strict=True):
            at = baseline.double()
            gradient = self._slope(at)
            for number in range(steps):
                rows = zip(at, gradient, self.x.double(), baseline.double(), strict=True)
                after = torch.stack([paths.guided(*row, (number + 1) / steps, fraction, distance) for row in rows])
                ahead = self._slope(after)
                total += (share * (gradient + ahead) / 2 * (after - at)).to(total)
                at, gradient = after, ahead
        return total

    def residual(self, values: Float[Tensor, "b c h w"], score: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
        """Return |sum - (F(x) - F(x'))| / |F(x) - F(x')|, or the numerator where the scores are equal to rounding."""
        begins = torch.arange(len(self.baselines))
        count = len(self.x)

        def start(numbers: Int[Tensor, " k"]) -> Float[Tensor, "k c h w"]:
            x, baselines = self.x[numbers % count], self.baselines[numbers]
            return _ordered(self.path(x, baselines, torch.zeros_like(x[:, :1, :1, :1])), self.x)

        scores = self.model.scores(start, begins % count, self.target, chunk_size(self.x)).double().cpu()
        mean = (scores.reshape(-1, count) * torch.tensor(self.shares, dtype=torch.float64)[:, None]).sum(0)
        difference = score.double().cpu() - mean
        error = (values.double().sum((1, 2, 3)).cpu() - difference).abs()
        rounding = 8 * torch.finfo(score.dtype).eps * torch.maximum(score.double().cpu().abs(), mean.abs())
        return torch.where(difference.abs() > rounding, error / difference.abs(), error).to(values)

    def _slope(self, at: Float64[Tensor, "b c h w"]) -> Float64[Tensor, "b c h w"]:
        """Return the gradient at one point for each picture."""
        return self.model.slope(_ordered(at.to(self.x), self.x), self.target)[1].double()

    def _zero(self) -> Float[Tensor, "b c h w"]:
        return torch.zeros_like(self.x, dtype=torch.promote_types(self.x.dtype, torch.float32))

    def _add(
        self,
        total: Float[Tensor, "b c h w"],
        grid: Quadrature,
        nodes: Int[Tensor, " k"],
        rows: Int[Tensor, " r"],
    ) -> None:
        """Add gradient times step at some of the grid's nodes, for some pictures, to ``total``."""
        every = torch.cartesian_prod(rows, torch.arange(len(self.shares)), nodes)
        # Parts as near to the best size as they can be: 13 points in 7 and 6 take less time than in 5, 4 and 4.
        parts = torch.tensor_split(every, max(1, round(len(every) / chunk_size(self.x))))
        for row, which, node in (numbers.unbind(1) for numbers in parts):
            x, baseline = self.x[row], self.baselines[which * len(self.x) + row]
            alpha, low, high = (
                at[node].to(x)[:, None, None, None] for at in (grid.nodes, grid.edges[:-1], grid.edges[1:])
            )
            target = [self.target[number] for number in row.tolist()]
            _, gradient = self.model.slope(_ordered(self.path(x, baseline, alpha), x), target, row)
            share = torch.tensor(self.shares, dtype=torch.float64)[which].to(total)[:, None, None, None]
            part = share * gradient.to(total) * paths.step(self.path, x, baseline, low, high).to(total)
            for picture, own in enumerate(torch.split(part, row.bincount(minlength=len(total)).tolist())):
                total[picture] += own.sum(0)


def _ordered(points: Float[Tensor, "n c h w"], x: Float[Tensor, "b c h w"]) -> Float[Tensor, "n c h w"]:
    """Return points in the memory order of the pictures, in which the model is fast."""
    return points.contiguous(memory_format=order_of(x))


def _change(before: Float[Tensor, "n c h w"], after: Float[Tensor, "n c h w"]) -> Float[Tensor, " n"]:
    """Return how far maps went, relative to where they are (L2); 0 for one that stays zero."""
    far, size = ((t.double().flatten(1).norm(dim=1)).cpu() for t in (after - before, after))
    return torch.where(far == 0, 0.0, far / size)
