"""What the methods on layers share: the weighed sum over a layer's channels, at one layer or several."""

from collections.abc import Callable, Mapping

from jaxtyping import Float
from torch import Tensor

from whence.models.session import Tapped
from whence.results import Answer, Score


def weighed(
    score: Score,
    taps: Mapping[str, Tapped],
    weigh: Callable[[Float[Tensor, "b k h w"], Float[Tensor, "b k h w"]], Float[Tensor, "b k"]],
    *,
    relu: bool,
) -> Answer:
    """Return the sum of each layer's channels, weighed by ``weigh(activation, gradient)``.

    ``relu`` keeps the positive part alone. ``values`` is the map of the layer that runs last.
    """
    maps: dict[str, Tensor] = {}
    for name, (a, g) in taps.items():
        weights = weigh(a, g)
        cam = (weights[:, :, None, None] * a).sum(1, keepdim=True)
        maps[name] = cam.clamp(min=0) if relu else cam
    layers = maps if len(maps) > 1 else {}
    return Answer(maps[name], score, layer=name, layers=layers, weights=weights, activation=a)
