"""Curves of deletion and insertion: a class's probability while ever more of the picture is taken away or put in."""

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from whence.errors import OptionError, SizeError
from whence.graphs.patches import PatchGrid, Style
from whence.methods.numbers import at_least
from whence.metrics.claim import Claim
from whence.metrics.noting import notes
from whence.metrics.ranking import Ranking
from whence.metrics.substrates import filling
from whence.models.session import chunk_size
from whence.results import Curve, Measured, reduced

Kind = Literal["deletion", "insertion"]
Scale = Literal["probability", "ratio", "range"]
Edges = Literal["soft", "sharp"]


def area(curve: Curve) -> Float[Tensor, " b"]:
    """Return the area under a curve by the trapezoid rule, its first point included."""
    return torch.trapezoid(curve.value, curve.share.to(curve.value), dim=1)


def cells(claim: Claim, grid: int | str) -> Float[Tensor, "b h w"]:
    """Return the values that are ranked: the ``map``'s own cells, the input's ``pixels``, or ``grid`` x ``grid``.

    Raises
    ------
    OptionError
        There is no such grid.
    SizeError
        It is finer than the input.
    """
    if grid == "map":
        return reduced(
            claim.answer.values if claim.answer.values.ndim == 4 else claim.heat[:, None], claim.answer.reduce
        )
    if grid == "pixels":
        return claim.heat
    if isinstance(grid, str) or not 1 <= grid <= min(claim.x.shape[2:]):
        size = " x ".join(map(str, claim.x.shape[2:]))
        wrong = OptionError if isinstance(grid, str) or grid < 1 else SizeError
        raise wrong(f"grid={grid} on inputs of {size}: give map, pixels, or a side of cells from 1 to the input's")
    return F.adaptive_avg_pool2d(claim.heat[:, None], grid)[:, 0]


def measured(
    claim: Claim,
    kind: Kind,
    *,
    grid: int | str,
    substrate: str | Tensor,
    steps: int,
    scale: Scale,
    edges: Edges,
    batch: int | None,
    seed: int,
) -> Measured:
    """Return the area of the curve and the curve, of ``steps`` + 1 points from the whole picture, or from none."""
    at_least(steps=(steps, 1), batch=(batch, 1))
    share = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
    ranking = Ranking.of(cells(claim, grid))
    rows = torch.arange(len(claim.x)).repeat_interleave(steps + 1)
    size, targets = tuple(claim.x.shape[2:]), claim.measured
    with claim.opened() as session:
        fill = filling(session, claim.x, substrate, seed)

        def changed(numbers: Int[Tensor, " n"]) -> Float[Tensor, "n c h w"]:
            top = ranking.top(share[numbers % (steps + 1)], rows[numbers]).to(claim.x)
            top = enlarged(top[:, None], size, edges, claim.answer.style if grid == "map" else "centred")
            return fill(rows[numbers], top if kind == "insertion" else 1 - top)

        found = session.scores(changed, rows, targets, batch or chunk_size(claim.x))
        passes = session.passes
    whole, gone = (-1, 0) if kind == "insertion" else (0, -1)
    curve = _scaled(Curve(share, found.reshape(-1, steps + 1)), scale, whole, gone)
    value = area(curve)
    said = "the curve is not scaled: the picture and what stands in its place give the same probability"
    return Measured(value, curve, passes, notes({said: value.isnan()}))


def enlarged(
    mask: Float[Tensor, "n 1 s t"], size: tuple[int, ...], edges: Edges, style: Style = "centred"
) -> Float[Tensor, "n 1 h w"]:
    """Return masks of cells on the input's grid: stretched in the style of their map, or each cell sharp."""
    if tuple(mask.shape[2:]) == size:
        return mask
    if edges == "sharp":
        return F.interpolate(mask, size=size, mode="nearest-exact")
    if style != "centred":
        return PatchGrid(mask.shape[-1], (size[0], size[1]), style).spread(mask[:, 0])[:, None]
    return F.interpolate(mask, size=size, mode="bilinear", align_corners=False)


def _scaled(curve: Curve, scale: Scale, whole: int, gone: int) -> Curve:
    """Return the curve as shares of the whole picture's value, or of its range; NaN where that is 0."""
    if scale == "probability":
        return curve
    low = curve.value[:, [gone]] if scale == "range" else torch.zeros_like(curve.value[:, :1])
    span = curve.value[:, [whole]] - low
    return Curve(curve.share, torch.where(span == 0, torch.nan, (curve.value - low) / span))


def igos_pp(claim: Claim, kind: Kind, *, substrate: str | Tensor, batch: int | None, seed: int) -> Measured:
    """Return the score of the I-GOS++ repository's metric, to compare with papers; its slips are in it.

    Cells of the map in order of value, ties by position; max(1, N // 50) of N cells a step; the mask enlarged with
    corners aligned; a right Riemann sum without the first point, whose last step adds the number of the cells left
    in place of that number times the probability.
    """
    at_least(batch=(batch, 1))
    heat = cells(claim, "map")
    height, width = heat.shape[1:]
    count = height * width
    stride = max(1, count // 50)
    # The repository's mask is low where the map is high.
    place = (-heat.flatten(1)).argsort(dim=1, stable=True).argsort(dim=1)
    done = torch.tensor([*range(stride, count, stride), count])
    rows = torch.arange(len(heat)).repeat_interleave(len(done))
    size, targets = tuple(claim.x.shape[2:]), claim.measured
    with claim.opened() as session:
        fill = filling(session, claim.x, substrate, seed)

        def changed(numbers: Int[Tensor, " n"]) -> Float[Tensor, "n c h w"]:
            upto = done[numbers % len(done)].to(place.device)
            top = (place[rows[numbers]] < upto[:, None]).to(claim.x).reshape(-1, 1, height, width)
            top = F.interpolate(top, size=size, mode="bilinear", align_corners=True)
            return fill(rows[numbers], top if kind == "insertion" else 1 - top)

        found = session.scores(changed, rows, targets, batch or chunk_size(claim.x)).reshape(len(heat), -1)
        passes = session.passes
    left = count - stride * (len(done) - 1)
    total = (found[:, :-1] * stride).sum(1) + left
    return Measured(total / count, Curve(done.double() / count, found), passes)
