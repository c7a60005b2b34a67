"""XGrad-CAM: the channels of a layer, each weighed by the mean of its gradient that its activation weighs."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from whence.methods.weighed import weighed
from whence.models.session import Session
from whence.models.targets import TargetSpec
from whence.registry import method
from whence.results import Answer, Passes

# A channel whose activation cancels out to a smaller share of its absolute sum has no mean that it could weigh.
_CANCELLED = 1e-3


@method(
    "xgrad-cam",
    title="XGrad-CAM",
    family="activation",
    paper="arXiv:2008.02312",
    needs="layer",
    reduce="sum",
    show="positive",
    cost=lambda options, model: Passes(forward=1, partial=1),
)
def xgrad_cam(
    model: Session,
    x: Float[Tensor, "b c h w"],
    target: Sequence[TargetSpec],
    *,
    layer: str | tuple[str, ...] | None = None,
    relu: bool = False,
) -> Answer:
    """Channels of a layer, each weighed by its gradient's mean, in which the active places count more.

    Fu et al. 2020: w_k = sum_ij g A / sum_ij A. Where a channel's positive and negative activations cancel out to
    less than a thousandth of their absolute sum, and where it is zero everywhere, its weight is the plain mean of the
    gradient, as in Grad-CAM. ``relu`` cuts the map to its positive part. With several layers, ``values`` is the map
    of the one that runs last.
    """
    score, taps = model.tap(x, layer, target)

    def alpha(a: Float[Tensor, "b k h w"], g: Float[Tensor, "b k h w"]) -> Float[Tensor, "b k"]:
        total = a.sum((2, 3))
        cancelled = total.abs() <= _CANCELLED * a.abs().sum((2, 3))
        return torch.where(cancelled, g.mean((2, 3)), (g * a).sum((2, 3)) / total)

    return weighed(score, taps, alpha, relu=relu)
