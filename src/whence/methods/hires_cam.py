"""HiResCAM: each place of a layer's channels, weighed by its own gradient."""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

from whence.methods.weighed import weighed
from whence.models.session import Session
from whence.models.targets import TargetSpec
from whence.registry import method
from whence.results import Answer, Passes


@method(
    "hires-cam",
    title="HiResCAM",
    family="activation",
    paper="arXiv:2011.08891",
    needs="layer",
    reduce="sum",
    show="positive",
    cost=lambda options, model: Passes(forward=1, partial=1),
)
def hires_cam(
    model: Session,
    x: Float[Tensor, "b c h w"],
    target: Sequence[TargetSpec],
    *,
    layer: str | tuple[str, ...] | None = None,
    relu: bool = False,
) -> Answer:
    """Channels of a layer, each place weighed by its own gradient.

    Draelos and Carin 2020: the sum over the channels of gradient times activation. Where all that follows the layer
    is linear, the map sums to the score without its bias. ``relu`` cuts it to its positive part. With several layers,
    ``values`` is the map of the one that runs last.
    """
    score, taps = model.tap(x, layer, target)

    def own_gradient(a: Float[Tensor, "b k h w"], g: Float[Tensor, "b k h w"]) -> Float[Tensor, "b k h w"]:
        return g

    return weighed(score, taps, own_gradient, relu=relu)
