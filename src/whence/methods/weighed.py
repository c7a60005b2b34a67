"""What the methods on layers share: the weighed sum over a layer's channels, at one layer or several."""

from collections.abc import Callable, Mapping, Sequence

from jaxtyping import Float
from torch import Tensor

from whence.models.classifier import Classifier
from whence.models.session import Tapped, opened
from whence.results import Answer, Score

Weigh = Callable[[Float[Tensor, "b k h w"], Float[Tensor, "b k h w"]], Float[Tensor, "b k *_"]]


def channels(layer: str | Sequence[str] | None, model: Classifier) -> list[int]:
    """Return how many channels each of the layers asked for has; found out by a pass that is not counted."""
    grey = model.like.new_zeros(1, *(model.input or (3, 224, 224)))
    with opened(model) as session:
        recorded = session.record(grey, session.layers(layer, grey)).activations
        return [session.layout(name, a, grey).channels(a.shape) for name, a in recorded.items()]


def weighed(score: Score, taps: Mapping[str, Tapped], weigh: Weigh, *, relu: bool) -> Answer:
    """Return the sum of each layer's channels, weighed by ``weigh(activation, gradient)``, as ``summed`` does."""
    return summed(score, {name: (weigh(a, g), a) for name, (a, g) in taps.items()}, relu=relu)


def summed(
    score: Score,
    terms: Mapping[str, tuple[Float[Tensor, "b k *_"], Float[Tensor, "b k h w"]]],
    *,
    relu: bool,
) -> Answer:
    """Return the sum over each layer's channels of weights and maps.

    The weights are [B, K], or [B, K, h, w] where every place has its own. ``relu`` keeps the positive part alone.
    ``values`` is the map of the layer that runs last.
    """
    maps: dict[str, Tensor] = {}
    for name, (weights, a) in terms.items():
        each = weights[:, :, None, None] if weights.ndim == 2 else weights
        cam = (each * a).sum(1, keepdim=True)
        maps[name] = cam.clamp(min=0) if relu else cam
    layers = maps if len(maps) > 1 else {}
    if weights.ndim > 2:
        return Answer(maps[name], score, layer=name, layers=layers)
    return Answer(maps[name], score, layer=name, layers=layers, weights=weights, activation=a)
