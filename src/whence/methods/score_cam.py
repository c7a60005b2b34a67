"""Score-CAM: the channels of a layer, each weighed by the score of the picture seen through it."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from whence.methods.masked import Masks, base_picture, blended, by_probability, notes
from whence.methods.numbers import at_least
from whence.methods.reference import Reference, copies
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
    reference: Reference,
) -> tuple[Bool[Tensor, "b k"], Float[Tensor, "b k"], Bool[Tensor, " b"]]:
    """Return which channels are not constant, the scores of the pictures seen through those, and whose change.

    A constant channel shows nothing of the picture: no pass is needed to know what it gains.
    """
    live = a.amax((2, 3)) > a.amin((2, 3))
    rows, channels = live.cpu().nonzero(as_tuple=True)
    found = confidence(rows, lambda numbers: mask(a[rows[numbers], channels[numbers]]))
    scores, drops = found.new_zeros(a.shape[:2]), found.new_zeros(a.shape[:2])
    scores[rows, channels], drops[rows, channels] = found, reference.drops(rows, found)
    return live, scores, drops.any(1)


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

    def seen(rows: Int[Tensor, " n"], masks: Float[Tensor, "n 1 h w"]) -> Float[Tensor, "n c h w"]:
        return blended(x[rows], base[rows], masks)  # X o H

    def confidence(rows: Int[Tensor, " n"], masks: Masks) -> Float[Tensor, " n"]:
        def masked(numbers: Int[Tensor, " m"]) -> Float[Tensor, "m c h w"]:
            return seen(rows[numbers], masks(numbers))

        return model.scores(masked, rows, measured, at_once) if len(rows) else base.new_zeros(0)

    def compared_with(rows: Int[Tensor, " n"]) -> Float[Tensor, "n c h w"]:
        return seen(rows, x.new_full((len(rows), 1, *size), 1.0 if variant == "official" else 0.0))

    maps = {name: model.layout(name, a, x).to_maps(a.detach()) for name, a in recording.activations.items()}
    model.expect(sum(len(a) * a.shape[1] for a in maps.values()))
    compared = model.scores(compared_with, torch.arange(len(x)), measured, at_once)
    reference = Reference.of(model, recording.output, compared, at_once, copies(model, measured, compared_with))
    mask = partial(_mask, size=size, corners=variant == "logit")
    terms: dict[str, tuple[Tensor, Tensor]] = {}
    for name, a in maps.items():
        live, scores, changes = _seen_through(a, mask, confidence, reference)
        weights = scores * live if variant == "official" else ((scores - compared[:, None]) * live).softmax(1)
        # A score that is the same whatever is seen speaks for no channel.
        terms[name] = weights * changes[:, None], a
    return replace(summed(score, terms, relu=relu), notes=notes(baseline, settled, measured))
