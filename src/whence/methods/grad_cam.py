"""Grad-CAM: the channels of a layer, each weighed by its mean gradient."""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

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
    recording = model.record(x, model.layers(layer, x))
    score = model.score(recording.output, target)
    gradients = model.gradients(score.value, recording)
    maps: dict[str, Tensor] = {}
    for (name, activation), gradient in zip(recording.activations.items(), gradients, strict=True):
        layout = model.layout(name, activation, x)
        a, g = layout.to_maps(activation.detach()), layout.to_maps(gradient)
        alpha = g.mean((2, 3))  # equation 1
        cam = (alpha[:, :, None, None] * a).sum(1, keepdim=True)  # equation 2
        maps[name] = cam.clamp(min=0) if relu else cam
    return Answer(maps[name], score, layer=name, layers=maps if len(maps) > 1 else {}, weights=alpha, activation=a)
