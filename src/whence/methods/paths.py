"""Paths from a baseline to a picture, along which gradients are summed."""

from math import isclose
from typing import Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

PathName = Literal["straight", "guided", "blur"]
# Of the widest blur, in pixels of a picture of 224.
_SIGMA = 50
_CLOSE = 1e-9


@runtime_checkable
class Path(Protocol):
    """A way from the baselines to the pictures.

    ``x`` and ``baseline`` are [n, C, H, W] and ``alpha`` is [n, 1, 1, 1] in [0, 1]; returned are the n points, [n, C,
    H, W], each picture's own: the path begins at alpha 0, and at alpha 1 it must have arrived at ``x``.
    """

    def __call__(
        self, x: Float[Tensor, "n c h w"], baseline: Float[Tensor, "n c h w"], alpha: Float[Tensor, "n 1 1 1"], /
    ) -> Float[Tensor, "n c h w"]:
        """Return the points."""


def straight(
    x: Float[Tensor, "n c h w"], baseline: Float[Tensor, "n c h w"], alpha: Float[Tensor, "n 1 1 1"]
) -> Float[Tensor, "n c h w"]:
    """Return points on the straight line."""
    return torch.lerp(baseline, x, alpha)


def blur(sigma: float | int | None) -> Path:
    """Return the path of Xu et al. 2020 through scale space: the picture, blurred less and less.

    It begins at a Gaussian of ``sigma`` pixels (50 at 224, scaled with the side). The integral does not depend on
    how fast the path is run through; the width falls as (1 - sqrt(alpha))^2, so that the fine scales get more points.
    """

    def path(
        x: Float[Tensor, "n c h w"], baseline: Float[Tensor, "n c h w"], alpha: Float[Tensor, "n 1 1 1"]
    ) -> Float[Tensor, "n c h w"]:
        height, width = x.shape[2:]
        widest = _SIGMA * min(height, width) / 224 if sigma is None else sigma
        widths = widest * (1 - alpha.flatten().sqrt()) ** 2
        rows = _gaussian(height, widths)
        columns = rows if width == height else _gaussian(width, widths)
        return rows @ x @ columns.transpose(2, 3)

    return path


def _gaussian(side: int, sigma: Float[Tensor, " n"]) -> Float[Tensor, "n 1 side side"]:
    """Return the blurs of a line as matrices: Gaussians over each pixel and its mirror images beyond both ends."""
    i = torch.arange(side, device=sigma.device)
    inner, last = (i > 0, i < side - 1)
    weights = torch.zeros(len(sigma), side, side, dtype=sigma.dtype, device=sigma.device)
    for distance, there in (
        (i[:, None] - i, torch.ones_like(inner)),
        (i[:, None] + i, inner),
        (2 * (side - 1) - i[:, None] - i, last),
    ):
        weights += torch.exp(-((distance / sigma[:, None, None].clamp(min=1e-3)) ** 2) / 2) * there
    return (weights / weights.sum(2, keepdim=True))[:, None]


def step(
    path: Path,
    x: Float[Tensor, "n c h w"],
    baseline: Float[Tensor, "n c h w"],
    low: Float[Tensor, "n 1 1 1"],
    high: Float[Tensor, "n 1 1 1"],
) -> Float[Tensor, "n c h w"]:
    """Return how far the path goes between two alphas."""
    if path is straight:  # the difference of two near points would lose digits
        return (high - low) * (x - baseline)
    return path(x, baseline, high) - path(x, baseline, low)


def guided(
    point: Float[Tensor, "c h w"],
    gradient: Float[Tensor, "c h w"],
    x: Float[Tensor, "c h w"],
    baseline: Float[Tensor, "c h w"],
    alpha: float,
    fraction: float | int,
    distance: float | int,
) -> Float[Tensor, "c h w"]:
    """Return one picture's next point on the path of Kapishnikov et al. 2021, up to ``alpha``.

    After the step the distance to the picture (L1) is 1 - alpha of the whole. The values that move are the
    ``fraction`` with the smallest gradients, then the next; none comes farther than ``distance``, in alpha, from the
    straight line.
    """
    way = x - baseline
    lowest, highest = max(alpha - distance, 0.0), min(alpha + distance, 1.0)
    least, most = baseline + lowest * way, baseline + highest * way
    wanted = float(way.abs().sum()) * (1 - alpha)
    # Those that have fallen behind are taken along first.
    behind = (way != 0) & ((point - baseline) / way < lowest)
    point = torch.where(behind, least, point)
    slope = gradient.abs()
    rank = int((slope.numel() - 1) * fraction) + 1
    while True:
        left = float((x - point).abs().sum())
        if left <= wanted or isclose(left, wanted, rel_tol=_CLOSE, abs_tol=_CLOSE):
            return point
        slope = slope.masked_fill(point == most, torch.inf)
        chosen = (slope <= slope.flatten().kthvalue(rank).values) & slope.isfinite()
        possible = float((most - point)[chosen].abs().sum())
        if possible == 0:
            return point
        share = min((left - wanted) / possible, 1.0)
        moved = most if share == 1.0 else point + share * (most - point)
        point = torch.where(chosen, moved, point)
