"""Grad-CAM: the channels of a layer, each weighed by its mean gradient."""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

from whence.methods.weighed import weighed
from whence.models.session import Session
from whence.models.targets import TargetSpec
from whence.registry import method
from whence.results import Answer, Passes


@method(
    "grad-cam",
    title="Grad-CAM",
    family="activation",
    paper="arXiv:1610.02391",
    needs="layer",
    reduce="sum",
    show="positive",
    cost=lambda options, model: Passes(forward=1, partial=1),
)
def grad_cam(
    model: Session,
    x: Float[Tensor, "b c h w"],
    target: Sequence[TargetSpec],
    *,
    layer: str | tuple[str, ...] | None = None,
    relu: bool = False,
) -> Answer:
    """Channels of a layer, each weighed by the mean of its gradient.

    Selvaraju et al. 2017, equations 1 and 2. The map keeps its sign unless ``relu`` cuts it to its positive part as
    the paper does. With several layers, ``values`` is the map of the one that runs last.
    """
    score, taps = model.tap(x, layer, target)

    def alpha(a: Float[Tensor, "b k h w"], g: Float[Tensor, "b k h w"]) -> Float[Tensor, "b k"]:
        return g.mean((2, 3))  # equation 1

    return weighed(score, taps, alpha, relu=relu)  # equation 2
