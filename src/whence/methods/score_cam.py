"""Score-CAM: the channels of a layer, each weighed by the score of the picture seen through it."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from whence.methods.dependence import depends, pictures_beside
from whence.methods.masked import Masks, base_picture, blended, by_probability, notes
from whence.methods.numbers import at_least
from whence.methods.weighed import channels, summed
from whence.models.session import Session, chunk_size
from whence.models.targets import TargetSpec
from whence.registry import method
from whence.results import Answer, Passes


def _mask(maps: Float[Tensor, "n h w"], size: tuple[int, int], *, corners: bool) -> Float[Tensor, "n 1 H W"]:
    """Return maps brought to the picture's size, and each to [0, 1]."""
    up = F.interpolate(maps[:, None], size=size, mode="bilinear", align_corners=corners)
    least, most = up.amin((2, 3), keepdim=True), up.amax((2, 3), keepdim=True)
    return (up - least) / (most - least).clamp(min=torch.finfo(up.dtype).tiny)


def _seen_through(
    a: Float[Tensor, "b k h w"],
    mask: Callable[[Float[Tensor, "n h w"]], Float[Tensor, "n 1 H W"]],
    confidence: Callable[[Int[Tensor, " n"], Masks], Float[Tensor, " n"]],
) -> tuple[Bool[Tensor, "b k"], Float[Tensor, "b k"]]:
    """Return which channels are not constant, and the scores of the pictures seen through those.

    A constant channel shows nothing of the picture: no pass is needed to know what it gains.
    """
    live = a.amax((2, 3)) > a.amin((2, 3))
    rows, channels = live.cpu().nonzero(as_tuple=True)
    found = confidence(rows, lambda numbers: mask(a[rows[numbers], channels[numbers]]))
    scores = found.new_zeros(a.shape[:2])
    scores[rows, channels] = found
    return live, scores


@method(
    "score-cam",
    title="Score-CAM",
    family="activation",
    paper="arXiv:1910.01279",
    needs="layer",
    reduce="sum",
    show="positive",
    # The picture, each channel, and what they are compared with.
    cost=lambda options, model: Passes(forward=2 + sum(channels(options["layer"], model))),
)
def score_cam(
    model: Session,
    x: Float[Tensor, "b c h w"],
    target: Sequence[TargetSpec],
    *,
    variant: Literal["paper", "official", "logit"] = "paper",
    layer: str | tuple[str, ...] | None = None,
    baseline: str = "zeros",
    relu: bool = False,
    batch: int | None = None,
) -> Answer:
    """Channels of a layer, each weighed by the score of the picture seen through it.

    Wang et al. 2020, section 3 and algorithm 1. A channel's map, brought to the picture's size and to [0, 1], is
    multiplied onto the picture. What the class's probability gains over a base picture, under a softmax over the
    channels, is the channel's weight. ``official`` is the authors' code: the probability itself is the weight, and a
    constant channel has none. ``logit`` is what grad-cam computes: the gain of the logit, and maps brought to the
    picture's size with their corners aligned.

    The two variants with probabilities measure a class by its probability and any other target by its own number.
    ``baseline`` is the base picture, and stands where a mask takes the picture away. The map keeps its sign unless
    ``relu`` cuts it to its positive part as the paper does. With several layers, ``values`` is the map of the one
    that runs last.
    """
    at_least(batch=(batch, 1))
    recording = model.record(x, model.layers(layer, x))
    score, settled = model.score(recording.output, target), model.fixed(recording.output, target)
    measured = settled if variant == "logit" else by_probability(settled)
    base, size = base_picture(model, x, baseline), (x.shape[2], x.shape[3])

    at_once = batch or chunk_size(x)

    def mask(maps: Float[Tensor, "n h w"]) -> Float[Tensor, "n 1 H W"]:
        return _mask(maps, size, corners=variant == "logit")

    def confidence(rows: Int[Tensor, " n"], masks: Masks) -> Float[Tensor, " n"]:
        def masked(numbers: Int[Tensor, " m"]) -> Float[Tensor, "m c h w"]:
            return blended(x[rows[numbers]], base[rows[numbers]], masks(numbers))  # X o H

        return model.scores(masked, rows, measured, at_once) if len(rows) else base.new_zeros(0)

    maps = {name: model.layout(name, a, x).to_maps(a.detach()) for name, a in recording.activations.items()}
    model.expect(sum(len(a) * a.shape[1] for a in maps.values()))
    # The base picture, or the whole one, run as those seen through channels are: rounding is no change.
    beside = x if variant == "official" else base
    compared = model.scores(lambda numbers: beside[numbers], torch.arange(len(x)), measured, at_once)
    terms: dict[str, tuple[Tensor, Tensor]] = {}
    for name, a in maps.items():
        live, scores = _seen_through(a, mask, confidence)
        weights = scores * live if variant == "official" else ((scores - compared[:, None]) * live).softmax(1)

        def pair(row: int, channel: int, a: Tensor = a) -> Float[Tensor, "2 c h w"]:
            through = blended(x[row, None], base[row, None], mask(a[row, channel, None]))
            return torch.cat((beside[row, None], through))

        # A score that is the same whatever is seen speaks for no channel.
        seen = torch.where(live, scores, compared[:, None])
        told = depends(compared, seen, pictures_beside(model, measured, at_once, pair))
        terms[name] = weights * told[:, None], a
    return replace(summed(score, terms, relu=relu), notes=notes(baseline, settled, measured))
