"""Ablation-CAM: the channels of a layer, each weighed by how far the score drops without it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from whence.methods.numbers import at_least, rounding
from whence.methods.reference import Reference
from whence.methods.weighed import channels
from whence.models.classifier import Classifier
from whence.models.layers import Layout
from whence.models.replay import Replay
from whence.models.session import Session, chunk_size
from whence.models.targets import TargetSpec
from whence.registry import method
from whence.results import Answer, Passes, Score

# Values of a layer that are replayed at once, and at most how many channels: fewer do not keep the processor busy,
# more do not stay in its caches.
_CHUNK_VALUES = 64 * 1024 * 14 * 14
_MOST_AT_ONCE = 64
# The closed form is tested by so many channels alone, and so many halves of the channels with their complements.
_ALONE, _HALVES = 8, 8
_TESTS = _ALONE + 2 * _HALVES


def _cost(options: Mapping[str, Any], model: Classifier) -> Passes:
    """Return what a picture takes where no channel is dead and no closed form holds."""
    counts = channels(options["layer"], model)
    return Passes(forward=len(counts) > 1, partial=sum(3 + _TESTS + count for count in counts))


@dataclass(frozen=True, eq=False)
class _Layer:
    """A layer of a batch: how to run what comes after it, and its output with the channels in their place."""

    replay: Replay
    layout: Layout

    def channels(self, tensor: Float[Tensor, "..."]) -> Float[Tensor, "b k *places"]:
        """View a tensor of the layer's own layout by channels, with all that each holds: the class token too."""
        if self.layout.kind == "channels-first":
            return tensor
        return tensor.transpose(0, self.layout.batch_axis).movedim(-1, 1)

    @cached_property
    def activation(self) -> Float[Tensor, "b k *places"]:
        return self.channels(self.replay.activation)


def _without(
    model: Session,
    layer: _Layer,
    picture: int,
    removed: Bool[Tensor, "n k"],
    target: Sequence[TargetSpec],
    batch: int,
) -> Float[Tensor, " n"]:
    """Return the scores of one picture without the channels that each row of ``removed`` marks.

    One buffer serves all chunks: channels are set to zero in it, and filled again before the next chunk.
    """
    own = layer.activation[picture]
    axis = layer.layout.batch_axis
    alone = layer.replay.activation.narrow(axis, picture, 1)
    buffer = torch.cat([alone] * min(batch, len(removed)), dim=axis)
    rows, zeroed = removed[:0].nonzero(as_tuple=True)

    def make(numbers: Int[Tensor, " m"]) -> Float[Tensor, "..."]:
        nonlocal rows, zeroed
        whole = layer.channels(buffer)
        whole[rows, zeroed] = own[zeroed]
        rows, zeroed = removed[numbers.to(removed.device)].nonzero(as_tuple=True)
        whole[rows, zeroed] = 0
        return buffer.narrow(axis, 0, len(numbers))

    return model.scores(make, torch.full((len(removed),), picture), target, batch, layer.replay)


def _tests(closed: Float[Tensor, " k"], alive: Bool[Tensor, " k"]) -> Bool[Tensor, "n k"]:
    """Return sets of channels: those that count most, alone, and halves drawn from all, with their complements.

    Each channel stands in one of every half and its complement, so that none can hide.
    """
    most = (closed.abs() * alive).topk(_ALONE).indices
    alone = torch.zeros(_ALONE, len(closed), dtype=torch.bool, device=closed.device)
    alone[torch.arange(_ALONE, device=closed.device), most] = True
    halves = torch.rand(_HALVES, len(closed), generator=torch.Generator().manual_seed(0)).to(closed.device) < 0.5
    return torch.cat((alone, halves & alive, ~halves & alive))


def _holds(
    closed: Float[Tensor, " k"], sets: Bool[Tensor, "n k"], score: Float[Tensor, ""], scores: Float[Tensor, " n"]
) -> bool:
    """Return whether the channels' closed drops add up to the drop that each set's replay shows.

    Equal but for rounding: of the drops, and of the score itself.
    """
    shown = score - scores
    off = (shown - sets.to(closed) @ closed).abs().max()
    return bool(off <= 100 * torch.finfo(score.dtype).eps * shown.abs().max() + rounding(score))


def _replayed(
    model: Session,
    layer: _Layer,
    picture: int,
    alive: Bool[Tensor, " k"],
    reference: Reference,
    target: Sequence[TargetSpec],
    batch: int,
) -> Float[Tensor, " k"]:
    """Return y - y_k for every channel of a picture, each one replayed that is not zero already."""
    each = torch.eye(len(alive), dtype=torch.bool, device=alive.device)[alive]
    drops = reference.score.new_zeros(len(alive))
    if len(each):
        scores = _without(model, layer, picture, each, target, batch)
        drops[alive] = reference.drops(torch.full((len(each),), picture), scores)
    return drops


def _drops(
    model: Session, layer: _Layer, target: Sequence[TargetSpec], batch: int
) -> tuple[Score, Float[Tensor, "b k"]]:
    """Return the score y, and y - y_k for every channel k.

    A channel that is zero already needs no replay. Where the score is affine in what is left of the channels, y - y_k
    is the sum of gradient times activation; that is tested for every picture, and where it fails, or the channels are
    few, all are replayed.
    """
    output, score, gradient = model.tail(layer.replay, target)
    settled = model.fixed(output, target)
    y = score.value.detach()
    alive = (layer.activation != 0).flatten(2).any(2)
    closed = (layer.channels(gradient) * layer.activation).flatten(2).sum(2).to(y)
    drops = torch.zeros_like(closed)

    def whole(picture: int, size: int) -> Float[Tensor, " n"]:
        return _without(model, layer, picture, alive.new_zeros(size, alive.shape[1]), settled, batch)

    reference = Reference.of(model, output, y, batch, whole)
    for picture, own in enumerate(alive):
        if int(own.sum()) > _TESTS:
            sets = _tests(closed[picture], own)
            scores = _without(model, layer, picture, sets, settled, batch)
            if _holds(closed[picture], sets, y[picture], scores):
                drops[picture] = closed[picture]
                continue
        drops[picture] = _replayed(model, layer, picture, own, reference, settled, batch)
    return score, drops


def _at_once(layer: _Layer, x: Float[Tensor, "b c h w"]) -> int:
    """Return how many channels are replayed at once: as many as full runs take, or more of a smaller layer."""
    if layer.replay.plan.reason:
        return chunk_size(x)
    values = prod(layer.activation.shape[1:])
    return max(chunk_size(x), min(_MOST_AT_ONCE, _CHUNK_VALUES // values))


@method(
    "ablation-cam",
    title="Ablation-CAM",
    family="activation",
    paper="doi:10.1109/WACV45572.2020.9093360",
    needs="layer",
    reduce="sum",
    show="positive",
    cost=_cost,
)
def ablation_cam(
    model: Session,
    x: Float[Tensor, "b c h w"],
    target: Sequence[TargetSpec],
    *,
    layer: str | tuple[str, ...] | None = None,
    variant: Literal["fraction", "slope"] = "fraction",
    relu: bool = False,
    batch: int | None = None,
) -> Answer:
    """Channels of a layer, each weighed by how far the score drops without it.

    Desai and Ramaswamy 2020, section 3. With y the score and y_k the score where channel k of the layer's output is
    zero everywhere, ``slope`` weighs by (y - y_k) / ||A_k||, from which the paper starts, and ``fraction`` by
    (y - y_k) / y, which it takes in its place. Divided is by |y|, so that a negative score does not turn the map
    round; where the score is 0 the drop itself is the weight. The map is sum_k w_k A_k and keeps its sign unless
    ``relu`` cuts it to its positive part as the paper does.

    Of a transformer's layer, channel k is zero in all tokens, also in those that are no patches, and ||A_k|| is the
    norm of all that is removed; the map shows the patches. ``batch`` channels are replayed at once. With several
    layers, ``values`` is the map of the one that runs last.
    """
    at_least(batch=(batch, 1))
    names = model.layers(layer, x)
    if len(names) > 1:
        names = tuple(model.record(x[:1], names).activations)  # in the order in which they run
    maps: dict[str, Tensor] = {}
    for name in names:
        replay = model.replay(x, name)
        of = _Layer(replay, model.layout(name, replay.activation, x))
        score, drops = _drops(model, of, target, batch or _at_once(of, x))
        size = of.activation.flatten(2).norm(dim=2) if variant == "slope" else score.value.abs()[:, None]
        weights = drops / size.where(size != 0, 1)
        a = of.layout.to_maps(replay.activation)
        cam = (weights[:, :, None, None] * a).sum(1, keepdim=True)
        maps[name] = cam.clamp(min=0) if relu else cam
    layers = maps if len(maps) > 1 else {}
    zero = "the score is 0: the channels' weights are drops of the score, not fractions of it"
    notes = tuple((zero,) if variant == "fraction" and y == 0 else () for y in score.value.tolist())
    return Answer(maps[name], score, layer=name, layers=layers, weights=weights, activation=a, notes=notes)
