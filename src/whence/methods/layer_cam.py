"""LayerCAM: each place of a layer's channels, weighed by its own positive gradient; maps of several layers fused."""

from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from whence.methods.weighed import weighed
from whence.models.session import Session
from whence.models.targets import TargetSpec
from whence.registry import method
from whence.results import Answer, Passes

FUSED = "the maps of several layers are each scaled by their maximum and fused: layers holds the raw ones"


def _scaled(map_: Float[Tensor, "b 1 h w"]) -> Float[Tensor, "b 1 h w"]:
    """Return each picture's map by its largest absolute value; a zero map stays zero."""
    return map_ / map_.abs().amax((2, 3), keepdim=True).clamp(min=torch.finfo(map_.dtype).tiny)


def fused(maps: Sequence[Float[Tensor, "b 1 _ _"]], gamma: float) -> Float[Tensor, "b 1 h w"]:
    """Return the maximum over the layers on the largest grid, all but the last one through ``tanh``."""
    size = max((tuple(map_.shape[2:]) for map_ in maps), key=lambda grid: grid[0] * grid[1])
    *shallow, deep = map(_scaled, maps)
    scaled = [*((gamma * map_).tanh() for map_ in shallow), deep]
    return torch.stack([F.interpolate(map_, size, mode="bilinear", align_corners=False) for map_ in scaled]).amax(0)


@method(
    "layer-cam",
    title="LayerCAM",
    family="activation",
    paper="doi:10.1109/TIP.2021.3089943",
    needs="layer",
    reduce="sum",
    show="positive",
    cost=lambda options, model: Passes(forward=1, partial=1),
)
def layer_cam(
    model: Session,
    x: Float[Tensor, "b c h w"],
    target: Sequence[TargetSpec],
    *,
    layer: str | tuple[str, ...] | None = None,
    gamma: int | float = 2.0,
    relu: bool = False,
) -> Answer:
    """Channels of a layer, each place weighed by its own positive gradient.

    Jiang et al. 2021: the sum over the channels of ReLU(g) A, raw; ``relu`` cuts it to its positive part as the paper
    does. With several layers, ``layers`` holds the raw map of each, and ``values`` is their fusion on the largest
    grid: each map is divided by its largest absolute value, those of all layers but the last one to run become
    tanh(``gamma`` L / max L), which lifts the weak values of shallow layers, and the maximum over layers is taken.
    """
    score, taps = model.tap(x, layer, target)

    def positive_gradient(a: Float[Tensor, "b k h w"], g: Float[Tensor, "b k h w"]) -> Float[Tensor, "b k h w"]:
        return g.clamp(min=0)

    answer = weighed(score, taps, positive_gradient, relu=relu)
    if not answer.layers:
        return answer
    return replace(answer, values=fused(list(answer.layers.values()), float(gamma)), notes=((FUSED,),) * len(x))
