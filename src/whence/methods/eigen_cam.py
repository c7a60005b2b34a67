"""Eigen-CAM: the first principal component of a layer's activation."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from whence.methods.weighed import summed
from whence.models.session import Session
from whence.models.targets import TargetSpec
from whence.registry import method
from whence.results import Answer, Passes

# A component is rounding where it is shorter than so many times the activation's own rounding.
_ROUNDING = 16


def first_component(a: Float[Tensor, "b z k"]) -> Float[Tensor, "b k"]:
    """Return the direction of each picture's first principal component over its z places, zero where there is none.

    Its sign is that in which the activation's length grows: the component is positive where the layer is active.
    """
    # In double precision and near one, for the squares of weak activations are lost in single precision.
    whole = a.double()
    o = whole - whole.mean(1, keepdim=True)
    largest = o.abs().amax((1, 2), keepdim=True)
    near_one = o / torch.where(largest > 0, largest, 1.0)
    # The same component by the smaller of the two Gram matrices.
    if a.shape[1] <= a.shape[2]:
        u = torch.linalg.eigh(near_one @ near_one.mT).eigenvectors[:, :, -1:]
        v = F.normalize((near_one.mT @ u)[:, :, 0])
    else:
        v = torch.linalg.eigh(near_one.mT @ near_one).eigenvectors[:, :, -1]
    projection = (o @ v[:, :, None])[:, :, 0]
    rounding = _ROUNDING * torch.finfo(a.dtype).eps * whole.norm(dim=(1, 2))
    sign = _sign(projection, whole.norm(dim=2)) * (projection.norm(dim=1) > rounding)
    signed: Tensor = v * sign[:, None]
    return signed.to(a.dtype)


def _sign(projection: Float[Tensor, "b z"], length: Float[Tensor, "b z"]) -> Float[Tensor, " b"]:
    """Return the sign that lets a projection grow with the length; on a tie, with its own larger extreme."""
    agreement = (projection * (length - length.mean(1, keepdim=True))).sum(1)
    extreme = projection.amax(1) + projection.amin(1)
    positive = torch.where(agreement != 0, agreement, extreme) >= 0
    return torch.where(positive, 1.0, -1.0).to(projection)


@method(
    "eigen-cam",
    title="Eigen-CAM",
    family="activation",
    paper="arXiv:2008.00299",
    needs="layer",
    reduce="sum",
    show="positive",
    class_agnostic=True,
    cost=lambda options, model: Passes(forward=1),
)
def eigen_cam(
    model: Session,
    x: Float[Tensor, "b c h w"],
    target: Sequence[TargetSpec],
    *,
    layer: str | tuple[str, ...] | None = None,
    relu: bool = False,
) -> Answer:
    """First principal component of a layer's activation, whatever the class.

    Muhammad and Yeasin 2020, with each channel centred over the places: the activation projected on its first right
    singular vector v. A principal component has no sign of its own; the one taken is that in which it grows with the
    length of the activation over all channels. ``weights`` is v and ``activation`` the centred one. A constant
    activation has no component, and its map is zero. ``relu`` cuts the map to its positive part. With several layers,
    ``values`` is the map of the one that runs last.
    """
    recording = model.record(x, model.layers(layer, x))
    terms = {}
    for name, recorded in recording.activations.items():
        a = model.layout(name, recorded, x).to_maps(recorded.detach())
        # Half precision has no eigenvectors.
        a = a.float() if a.dtype in (torch.float16, torch.bfloat16) else a
        v = first_component(a.flatten(2).mT)
        terms[name] = v, a - a.mean((2, 3), keepdim=True)
    return summed(model.score(recording.output, target), terms, relu=relu)
