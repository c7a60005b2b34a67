"""Guided Grad-CAM: guided backpropagation where Grad-CAM speaks for the class."""

from collections.abc import Sequence

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from whence.methods.grad_cam import grad_cam
from whence.methods.guided_backprop import guided_backprop
from whence.models.session import Session
from whence.models.targets import TargetSpec
from whence.registry import method
from whence.results import Answer, Passes


@method(
    "guided-grad-cam",
    title="Guided Grad-CAM",
    family="propagation",
    paper="arXiv:1610.02391",
    needs="layer",
    reduce="abs-max",
    show="positive",
    cost=lambda options, model: Passes(forward=2, backward=1, partial=1),
)
def guided_grad_cam(
    model: Session, x: Float[Tensor, "b c h w"], target: Sequence[TargetSpec], *, layer: str | None = None
) -> Answer:
    """Guided backpropagation, multiplied by the positive part of Grad-CAM.

    Selvaraju et al. 2017, section 3.2: the map of Grad-CAM, cut to its positive part, is brought to the input's size
    (bilinear) and multiplied with guided backpropagation place by place.
    """
    coarse = grad_cam(model, x, target, layer=layer, relu=True)
    fine = guided_backprop(model, x, target)
    upsampled = F.interpolate(coarse.values, size=x.shape[2:], mode="bilinear", align_corners=False)
    return Answer(upsampled * fine.values, fine.score, layer=coarse.layer, notes=fine.notes)
