"""Occlusion: how much the score drops where a window covers the picture."""

from collections.abc import Mapping, Sequence
from math import ceil
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from whence.errors import OptionError
from whence.methods.masked import base_picture, notes
from whence.methods.numbers import at_least
from whence.methods.reference import Reference, copies
from whence.models.classifier import Classifier
from whence.models.session import Session, chunk_size
from whence.models.targets import TargetSpec
from whence.registry import method
from whence.results import Answer, Passes


def _sizes(size: tuple[int, int], window: int | None, stride: int | None) -> tuple[int, int]:
    """Return the window's side and stride: a seventh of the picture's shorter side, and half of the window."""
    window = window or max(1, round(min(size) / 7))
    return window, stride or max(1, window // 2)


def _windows(side: int, window: int, stride: int) -> Bool[Tensor, "n side"]:
    """Return which places of a side each window covers; the last one may stand out over the border."""
    start = torch.arange(ceil((side - window) / stride) + 1)[:, None] * stride
    at = torch.arange(side)
    return (start <= at) & (at < start + window)


def _cost(options: Mapping[str, Any], model: Classifier) -> Passes:
    _, height, width = model.input or (3, 224, 224)
    sizes = _sizes((height, width), options["window"], options["stride"])
    return Passes(forward=1 + len(_windows(height, *sizes)) * len(_windows(width, *sizes)))


@method(
    "occlusion",
    title="Occlusion",
    family="perturbation",
    paper="arXiv:1311.2901",
    needs="scores",
    reduce="sum",
    show="positive",
    cost=_cost,
)
def occlusion(
    model: Session,
    x: Float[Tensor, "b c h w"],
    target: Sequence[TargetSpec],
    *,
    window: int | None = None,
    stride: int | None = None,
    baseline: str = "zeros",
    batch: int | None = None,
) -> Answer:
    """Drop of the score where a window covers the picture, the mean over all windows that cover a place.

    Zeiler & Fergus 2014, section 4.2. A square ``window`` of pixels moves in steps of ``stride``, until the last row
    and column are covered; by default a seventh of the picture's shorter side, in steps of half of that. ``baseline``
    stands where it covers. The paper measures the class's probability: the target ``probability:LABEL``.
    """
    size = (x.shape[2], x.shape[3])
    at_least(window=(window, 1), stride=(stride, 1), batch=(batch, 1))
    window, stride = _sizes(size, window, stride)
    if not stride <= window <= min(size):
        raise OptionError(
            f"window={window}, stride={stride} on inputs of {size[0]} x {size[1]}: the window must fit into the "
            "input, and the stride into the window, or places are left out"
        )
    down, across = (_windows(side, window, stride).to(x.device) for side in size)
    count = len(down) * len(across)
    model.expect(len(x) * count)
    output = model.run(x, folded=model.many)
    settled = model.fixed(output, target)
    score = model.score(output, settled)
    base = base_picture(model, x, baseline)
    rows = torch.arange(len(x)).repeat_interleave(count)

    def covered(places: Bool[Tensor, "n 1 h w"], rows: Int[Tensor, " n"]) -> Float[Tensor, "n c h w"]:
        return torch.where(places, base[rows], x[rows])

    def occluded(numbers: Int[Tensor, " n"]) -> Float[Tensor, "n c h w"]:
        first, second = numbers % count // len(across), numbers % len(across)
        return covered(down[first][:, None, :, None] & across[second][:, None, None, :], rows[numbers])

    nothing = torch.zeros(1, 1, *size, dtype=torch.bool, device=x.device)
    at_once = batch or chunk_size(x)
    whole = copies(model, settled, lambda rows: covered(nothing.expand(len(rows), -1, -1, -1), rows))
    reference = Reference.of(model, output, score.value, at_once, whole)
    drops = reference.drops(rows, model.scores(occluded, rows, settled, at_once))
    drops = drops.reshape(len(x), len(down), len(across))
    down, across = down.to(drops), across.to(drops)
    values = down.T @ drops @ across / torch.outer(down.sum(0), across.sum(0))
    return Answer(values[:, None], score, notes=notes(baseline, settled, settled))
