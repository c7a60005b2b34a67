"""Grad-CAM++: the channels of a layer, each weighed by a weighed sum of its positive gradients."""

from collections.abc import Callable, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from whence.methods.weighed import weighed
from whence.models.session import Session
from whence.models.targets import Fixed, TargetSpec
from whence.registry import method
from whence.results import Answer, Passes

Link = Callable[[Tensor], Tensor]
_LINKS: dict[str, Link] = {"probability": torch.sigmoid, "log-probability": F.logsigmoid}


def _linear(target: TargetSpec) -> TargetSpec:
    """Return the target whose score S is taken for linear: the log-odds of what is measured by its probability."""
    if not (isinstance(target, Fixed) and target.measure in _LINKS):
        return target
    return Fixed("log-odds", target.classes)


def _derivatives(target: TargetSpec, s: Float[Tensor, ""]) -> Float[Tensor, "3"]:
    """Return the first three derivatives at S of phi, for which Y = phi(S).

    Y is exp(S) for all that is no probability; there the common factor exp(S) is left out.
    """
    phi = _LINKS.get(target.measure) if isinstance(target, Fixed) else None
    found = [torch.func.grad(phi or torch.exp)]
    while len(found) < 3:
        found.append(torch.func.grad(found[-1]))
    # In double precision, for a probability near 1 has no digits left.
    at = s.detach().double() if phi else torch.zeros_like(s, dtype=torch.float64)
    return torch.stack([derivative(at) for derivative in found])


def _coefficients(
    a: Float[Tensor, "b k h w"],
    g: Float[Tensor, "b k h w"],
    second: Float[Tensor, "b 1 1 1"],
    third: Float[Tensor, "b 1 1 1"],
) -> Float[Tensor, "b k h w"]:
    """Return alpha = phi'' g^2 / (2 phi'' g^2 + sum_ab A phi''' g^3), 0 where g is 0.

    In single precision g^2 underflows, so it is cancelled.
    """
    denominator = 2 * second + a.sum((2, 3), keepdim=True) * third * g
    counts = (g != 0) & (denominator != 0)
    return torch.where(counts, second / torch.where(counts, denominator, 1.0), 0.0)


@method(
    "grad-cam++",
    title="Grad-CAM++",
    family="activation",
    paper="arXiv:1710.11063",
    needs="layer",
    reduce="sum",
    show="positive",
    cost=lambda options, model: Passes(forward=1, partial=1),
)
def grad_cam_plus_plus(
    model: Session,
    x: Float[Tensor, "b c h w"],
    target: Sequence[TargetSpec],
    *,
    variant: Literal["closed-form", "autograd"] = "closed-form",
    layer: str | tuple[str, ...] | None = None,
    relu: bool = False,
) -> Answer:
    """Channels of a layer, each weighed by a weighed sum of its positive gradients.

    Chattopadhay et al. 2018. ``closed-form`` is equation 19: the weights' derivatives are those of Y = exp(score),
    whatever the score is, and the factor exp(score) common to all weights is left out. ``autograd`` is equation 10
    for Y = phi(S), whose S is taken for linear in the layer: dY = phi'(S) g, d2Y = phi''(S) g^2, d3Y = phi'''(S) g^3,
    with phi's derivatives by autograd. For a probability Y is that probability and S its log-odds, for a
    log-probability likewise; for all else Y = exp(S) as before. The map keeps its sign unless ``relu`` cuts it to its
    positive part as the paper does. With several layers, ``values`` is the map of the one that runs last.
    """
    recording = model.record(x, model.layers(layer, x))
    score = model.score(recording.output, target)
    if variant == "closed-form":
        taps = model.tapped(recording, score)
        first = second = third = torch.ones_like(score.value.detach())[:, None, None, None]
    else:
        settled = model.fixed(recording.output, target)
        linear = model.score(recording.output, [_linear(one) for one in settled])
        taps = model.tapped(recording, linear)
        found = torch.stack([_derivatives(*pair) for pair in zip(settled, linear.value, strict=True)])
        first, second, third = found.to(score.value.dtype)[:, :, None, None, None].unbind(1)

    def weights(a: Float[Tensor, "b k h w"], g: Float[Tensor, "b k h w"]) -> Float[Tensor, "b k"]:
        alpha = _coefficients(a, g, second, third)
        return (alpha * (first * g).clamp(min=0)).sum((2, 3))  # sum_ij alpha ReLU(dY / dA)

    return weighed(score, taps, weights, relu=relu)
