"""Meaningful perturbation: the smallest smooth mask that takes the score away, found by gradients."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from whence.methods.mask_search import Search, searched_notes
from whence.methods.masked import base_picture, by_probability, grid_side
from whence.methods.numbers import at_least
from whence.models.session import Session
from whence.models.targets import TargetSpec
from whence.pictures.baselines import blurred
from whence.registry import method
from whence.results import Answer, Passes


def _stretched(
    cells: Float[Tensor, "n 1 s s"], size: tuple[int, int], sigma: int | float
) -> Float[Tensor, "n 1 h w"]:
    """Return grids on a picture's pixels, bilinear, then blurred by a Gaussian of ``sigma`` cells."""
    up = F.interpolate(cells, size=size, mode="bilinear", align_corners=False)
    return blurred(up, torch.Generator(), sigma * min(size) / cells.shape[2])


@method(
    "meaningful-perturbation",
    title="Meaningful perturbation",
    family="perturbation",
    paper="arXiv:1704.03296",
    needs="gradients",
    reduce="sum",
    show="positive",
    cost=lambda options, model: Passes(forward=1 + options["iterations"], backward=options["iterations"]),
)
def meaningful_perturbation(
    model: Session,
    x: Float[Tensor, "b c h w"],
    target: Sequence[TargetSpec],
    *,
    iterations: int = 100,
    mask: int | None = None,
    area: int | float = 0.1,
    smooth: int | float = 0.2,
    beta: int | float = 3,
    sigma: int | float = 1,
    rate: int | float = 0.1,
    jitter: int = 2,
    baseline: str = "blurred",
    batch: int | None = None,
    seed: int = 0,
) -> Answer:
    """The smallest smooth mask that takes the score away, found by gradients.

    Fong & Vedaldi 2017: min_m lambda_1 mean |1 - m| + lambda_2 mean |grad m|^beta + E_tau[f_c(Phi(x(. - tau), m))],
    with means where the authors' code has sums, so that the weights hold for every grid: lambda_1 = ``area``,
    lambda_2 = ``smooth``. m is a grid of ``mask`` x ``mask`` cells (28, or the picture's side where that is less),
    stretched bilinear and blurred by a Gaussian of ``sigma`` cells; Phi puts ``baseline`` where it is 0, and tau
    moves the picture by up to ``jitter`` pixels. ``iterations`` steps of Adam at ``rate`` start from 0.5 everywhere.
    A class is measured by its probability; any other target by its own number. The values are 1 - m, on the input's
    pixels. A score without a slope under the masks gives a zero map.
    """
    at_least(iterations=(iterations, 1), mask=(mask, 1), area=(area, 0), smooth=(smooth, 0), beta=(beta, 1))
    at_least(sigma=(sigma, 0), rate=(rate, 0), jitter=(jitter, 0), batch=(batch, 1))
    size = (x.shape[2], x.shape[3])
    side = grid_side(mask, size)
    output = model.run(x)
    score, settled = model.score(output, target), model.fixed(output, target)
    measured = by_probability(settled)

    def keep(m: Float[Tensor, "n 1 s s"]) -> Float[Tensor, "n 1 h w"]:
        return _stretched(m, size, sigma)

    def penalty(m: Float[Tensor, "n 1 s s"], done: float) -> Float[Tensor, " n"]:
        steps = sum((m.diff(dim=axis).abs() ** beta).sum((1, 2, 3)) for axis in (2, 3))
        return area * (1 - m).mean((1, 2, 3)) + smooth * steps / side**2

    base, rows = base_picture(model, x, baseline, seed), torch.arange(len(x))
    search = Search(model, x, base, rows, measured, 1, batch, jitter, seed)
    m, held = search.found(side, iterations, rate, keep, penalty)
    values = keep((1 - m) * held[:, None, None, None])
    return Answer(values, score, notes=searched_notes(baseline, settled, measured, held))
