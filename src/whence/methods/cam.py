"""CAM: the channels that a head pools, each weighed by the class's weight in the linear layer behind the pooling."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from whence.errors import UnsupportedError
from whence.methods.weighed import summed
from whence.models.layers import Layout
from whence.models.session import Session
from whence.models.targets import TargetSpec
from whence.registry import method
from whence.results import Answer, Passes


@dataclass(frozen=True, eq=False)
class _Head:
    """A head that takes the mean of each map, of its positive part where ``rectified``, and weighs the means."""

    weights: Float[Tensor, "b k"]
    rectified: Bool[Tensor, " b"]
    fits: Bool[Tensor, " b"]

    @classmethod
    def read(cls, a: Float[Tensor, "b k h w"], g: Float[Tensor, "b k h w"], tolerance: float) -> "_Head":
        """Read the weights off the gradient, which behind such a head is w / Z at each of the Z places.

        Behind a rectifier it is w / Z where the activation is positive and 0 elsewhere. ``fits`` says of which
        pictures either is true.
        """
        slack = tolerance * g.abs().amax((1, 2, 3))

        def misses(there: Float[Tensor, "b k h w"]) -> tuple[Float[Tensor, "b k"], Bool[Tensor, " b"]]:
            each = g.sum((2, 3)) / there.sum((2, 3)).clamp(min=1)
            return each, (g - each[:, :, None, None] * there).abs().amax((1, 2, 3)) > slack

        plain, rectified = misses(torch.ones_like(a))
        positive, unfit = misses((a > 0).to(a))
        each = torch.where(rectified[:, None], positive, plain)
        return cls(each * a[0, 0].numel(), rectified, ~(rectified & unfit))

    def pooled(self, a: Float[Tensor, "n k h w"]) -> Float[Tensor, "n k h w"]:
        """Return the maps of which the head takes the mean; n is a multiple of the batch."""
        rectified = self.rectified.repeat(len(a) // len(self.rectified))
        return torch.where(rectified[:, None, None, None], a.clamp(min=0), a)


def _disturbed(activation: Float[Tensor, "..."], layout: Layout) -> Float[Tensor, "..."]:
    """Return an activation with its channels and its values scaled by 0 to 2, alike in every picture."""
    generator = torch.Generator().manual_seed(0)
    picture, channels = list(activation.shape), [1] * activation.ndim
    picture[layout.batch_axis] = 1
    axis = 1 if layout.kind == "channels-first" else -1
    channels[axis] = activation.shape[axis]
    factor = torch.rand(picture, generator=generator) + torch.rand(channels, generator=generator)
    return activation * factor.to(activation)


def _is_linear(
    model: Session, x: Tensor, name: str, target: Sequence[TargetSpec], head: _Head, tolerance: float
) -> Bool[Tensor, " b"]:
    """Return whether the score without the weighed means is the same number, the bias, for another activation too."""
    replay = model.replay(x, name)
    layout = model.layout(name, replay.activation, x)
    own = replay.activation.detach()
    both = torch.cat((own, _disturbed(own, layout)), dim=layout.batch_axis)
    rows = torch.arange(len(x)).repeat(2)
    output = model.replayed(replay, both, rows)
    score = model.score(output, [*model.fixed(output, target)] * 2, rows).value
    terms = head.weights.repeat(2, 1) * head.pooled(layout.to_maps(both)).mean((2, 3))
    bias, others_bias = (score - terms.sum(1)).chunk(2)
    size = (score.abs() + terms.abs().sum(1)).reshape(2, -1).amax(0)
    return (bias - others_bias).abs() <= tolerance * size


def _cost(options: Mapping[str, Any], model: object) -> Passes:
    """Return one gradient for all layers, and for each the record of what follows it, run on two activations."""
    layer = options["layer"]
    return Passes(forward=1, partial=1 + 3 * (len(layer) if isinstance(layer, tuple) else 1))


@method(
    "cam",
    title="CAM",
    family="activation",
    paper="arXiv:1512.04150",
    needs="layer",
    reduce="sum",
    show="positive",
    cost=_cost,
)
def cam(
    model: Session,
    x: Float[Tensor, "b c h w"],
    target: Sequence[TargetSpec],
    *,
    layer: str | tuple[str, ...] | None = None,
    relu: bool = False,
) -> Answer:
    """Channels of a layer, each weighed by the class's weight in the linear layer behind the pooling.

    Zhou et al. 2016, equation 2: M = sum_k w_k A_k, raw, where the score is sum_k w_k mean(A_k) + b; so the
    map's mean is the score without its bias. The weights are read off the gradient, and that the head is of this kind
    is checked on the activation itself and on a disturbed one, whatever its modules are. A rectifier between the
    layer and the pooling belongs to the map: A is then the positive part of the activation, and a channel without any
    has weight 0. A contrast has the difference of two classes' weights. ``relu`` cuts the map to its positive part.
    With several layers, ``values`` is the map of the one that runs last.

    Raises
    ------
    UnsupportedError
        The score is no weighed sum of the pooled maps: another head follows, or the target is a probability.
    """
    score, taps = model.tap(x, layer, target)
    terms: dict[str, tuple[Tensor, Tensor]] = {}
    for name, (a, g) in taps.items():
        # Half the digits: the sums behind the score round differently.
        tolerance = max(torch.finfo(a.dtype).eps, torch.finfo(score.value.dtype).eps) ** 0.5
        head = _Head.read(a, g, tolerance)
        if not (bool(head.fits.all()) and bool(_is_linear(model, x, name, target, head, tolerance).all())):
            raise UnsupportedError(
                f"cam needs a mean over the places of layer {name!r} and one linear layer behind it, and a target "
                "that is a class or a contrast; the score is no such sum of its pooled maps: use grad-cam"
            )
        terms[name] = head.weights, head.pooled(a)
    return summed(score, terms, relu=relu)
