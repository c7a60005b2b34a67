"""Extremal perturbation: smooth masks of given areas that keep the score highest, or take most of it away."""

from collections.abc import Mapping, Sequence
from math import ceil
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from whence.errors import OptionError
from whence.methods.mask_search import Search, searched_notes
from whence.methods.masked import base_picture, by_probability, grid_side, searched_type
from whence.methods.numbers import at_least
from whence.models.classifier import Classifier
from whence.models.session import Session
from whence.models.targets import TargetSpec
from whence.registry import method
from whence.results import Answer, Passes

# How sharply the smooth maximum takes the largest, as in TorchRay.
_COLDNESS = 20
# The weight of the area after the last step; it grows from 0 as the square of the steps done.
_TIGHT = 100.0


def _kernel(sigma: int | float) -> Float[Tensor, "k k"]:
    """Return how near each cell around a place is: 1 up to half of ``sigma``, then falling as a Gaussian."""
    radius = ceil(2 * sigma)
    at = torch.arange(-radius, radius + 1, dtype=torch.float64)
    return torch.exp(-2 * (torch.hypot(at[:, None], at) / sigma - 0.5).clamp(min=0) ** 2)


def _smooth_maximum(p: Float[Tensor, "n 1 s s"], kernel: Float[Tensor, "k k"]) -> Float[Tensor, "n 1 s s"]:
    """Return m(u) = smax_v k(u - v) p(v): the weighed mean of k p, by weights that favour the largest."""
    near = kernel.reshape(1, -1, 1) * F.unfold(p, kernel.shape, padding=len(kernel) // 2)
    return ((_COLDNESS * near).softmax(1) * near).sum(1).reshape(p.shape)


def _template(area: int | float, cells: int) -> Float[Tensor, " cells"]:
    """Return r_a, the sorted values of a mask of that area: zeros, then ones, and what is left over between them."""
    return (torch.arange(1, cells + 1, dtype=torch.float64) - (1 - area) * cells).clamp(0, 1)


def _cost(options: Mapping[str, Any], model: Classifier) -> Passes:
    pictures = options["iterations"] * len(options["areas"])
    return Passes(forward=1 + pictures, backward=pictures)


@method(
    "extremal-perturbation",
    title="Extremal perturbation",
    family="perturbation",
    paper="arXiv:1910.08485",
    needs="gradients",
    reduce="sum",
    show="positive",
    cost=_cost,
)
def extremal_perturbation(
    model: Session,
    x: Float[Tensor, "b c h w"],
    target: Sequence[TargetSpec],
    *,
    areas: float | Sequence[float] = (0.05, 0.1, 0.2, 0.4),
    variant: Literal["preserve", "delete"] = "preserve",
    iterations: int = 50,
    mask: int | None = None,
    sigma: int | float = 2,
    rate: int | float = 0.1,
    jitter: int = 2,
    baseline: str = "blurred",
    batch: int | None = None,
    seed: int = 0,
) -> Answer:
    """Smooth masks of given areas that keep the score highest, or take most of it away.

    Fong, Patrick & Vedaldi 2019: for each area a of ``areas`` the mask that maximises f_c(m o x) among the smooth
    masks whose sorted values are (1 - a) of zeros and then ones; the ``variant`` delete minimises f_c((1 - m) o x).
    m is the smooth maximum, as wide as ``sigma`` cells, over a grid of ``mask`` x ``mask`` parameters (28, or the
    picture's side where that is less). The sorted values are held to the template by a penalty on the mean square,
    whose weight grows from 0. ``iterations`` steps of Adam at ``rate`` start from 0.5 everywhere, where the authors'
    code takes 800 of gradient descent with momentum. ``baseline`` stands where a mask takes the picture away, and the
    picture is moved by up to ``jitter`` pixels in each step. A class is measured by its probability; any other target
    by its own number. ``parts`` holds the masks by area, ``area-0.1``; the values are their mean.
    """
    areas = tuple(areas) if isinstance(areas, Sequence) else (areas,)
    names = [f"area-{area:g}" for area in areas]
    if not all(0 < area < 1 for area in areas) or len(set(names)) < len(names):
        raise OptionError(f"areas={areas}: give different shares of the picture, each more than 0 and less than 1")
    at_least(iterations=(iterations, 1), mask=(mask, 1), rate=(rate, 0), jitter=(jitter, 0), batch=(batch, 1))
    if not sigma > 0:
        raise OptionError(f"sigma={sigma}: give a width of more than 0 cells")
    size = (x.shape[2], x.shape[3])
    side = grid_side(mask, size)
    output = model.run(x)
    score, settled = model.score(output, target), model.fixed(output, target)
    measured = by_probability(settled)
    kernel = _kernel(sigma).to(x.device, searched_type(x))
    templates = torch.stack([_template(area, side**2) for area in areas]).to(kernel).repeat(len(x), 1)

    def stretched(p: Float[Tensor, "n 1 s s"]) -> Float[Tensor, "n 1 h w"]:
        return F.interpolate(_smooth_maximum(p, kernel), size=size, mode="bilinear", align_corners=False)

    def keep(p: Float[Tensor, "n 1 s s"]) -> Float[Tensor, "n 1 h w"]:
        return stretched(p) if variant == "preserve" else 1 - stretched(p)

    def penalty(p: Float[Tensor, "n 1 s s"], done: float) -> Float[Tensor, " n"]:
        ranked = _smooth_maximum(p, kernel).flatten(1).sort(1).values
        return _TIGHT * done**2 * ((ranked - templates) ** 2).mean(1)

    base, rows = base_picture(model, x, baseline, seed), torch.arange(len(x)).repeat_interleave(len(areas))
    search = Search(model, x, base, rows, measured, -1 if variant == "preserve" else 1, batch, jitter, seed)
    p, held = search.found(side, iterations, rate, keep, penalty)
    masks = (stretched(p) * held[:, None, None, None]).reshape(len(x), len(areas), 1, *size)
    parts = dict(zip(names, masks.unbind(1), strict=True))
    said = searched_notes(baseline, settled, measured, held.reshape(len(x), -1).any(1))
    return Answer(masks.mean(1), score, parts=parts, notes=said)
