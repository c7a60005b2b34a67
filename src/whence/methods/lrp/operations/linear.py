"""Convolutions, matrices, and the batch norms merged into them."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from whence.errors import UnsupportedError
from whence.methods.lrp.carried import Call, Operation, ratio
from whence.methods.lrp.linear import Convolution, Matrix
from whence.methods.lrp.operations import Handler, handles, primitives
from whence.methods.lrp.propagation import Propagation
from whence.methods.lrp.tags import is_tracked
from whence.models.operations import Function


def _several(value: int | tuple[int, ...], axes: int) -> list[int]:
    values = [value] if isinstance(value, int) else list(value)
    return values * axes if len(values) == 1 else values


@handles(*primitives("conv1d", "conv2d", "conv3d"), carries=True)
def convolution(
    run: Propagation,
    function: Operation,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | tuple[int, ...] = 1,
    padding: int | str | tuple[int, ...] = 0,
    dilation: int | tuple[int, ...] = 1,
    groups: int = 1,
) -> Tensor:
    """Deal out by the composite's rule; weights that depend on the input, too, are taken as constants."""
    axes = weight.ndim - 2
    if not is_tracked(input) or input.ndim != weight.ndim:
        return function(input, weight, bias, stride, padding, dilation, groups)
    steps, gaps = _several(stride, axes), _several(dilation, axes)
    if padding == "same":
        total = [gap * (side - 1) for gap, side in zip(gaps, weight.shape[2:], strict=True)]
        if any(t % 2 for t in total):
            sides = [side for t in reversed(total) for side in (t // 2, t - t // 2)]
            with run:
                input = F.pad(input, sides)
            total = [0] * axes
        padding = tuple(t // 2 for t in total)
    edges = [0] * axes if padding == "valid" else _several(padding, axes)  # type: ignore[arg-type]
    settings = (steps, edges, gaps, False, [0] * axes, groups)

    def compute(weight: Tensor) -> Tensor:
        return function(input, weight, bias, stride, tuple(edges), dilation, groups)

    return run.carry("convolution", input, weight, bias, Convolution(settings=settings), compute)


@handles(*primitives("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"), carries=True)
def transposed_convolution(
    run: Propagation,
    function: Operation,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | tuple[int, ...] = 1,
    padding: int | tuple[int, ...] = 0,
    output_padding: int | tuple[int, ...] = 0,
    groups: int = 1,
    dilation: int | tuple[int, ...] = 1,
) -> Tensor:
    """Deal out by the composite's rule."""
    axes = weight.ndim - 2
    arguments = (bias, stride, padding, output_padding, groups, dilation)
    if not is_tracked(input) or input.ndim != weight.ndim:
        return function(input, weight, *arguments)
    steps, edges, gaps, ends = (_several(value, axes) for value in (stride, padding, dilation, output_padding))
    map_ = Convolution(settings=(steps, edges, gaps, True, ends, groups))
    return run.carry("convolution", input, weight, bias, map_, lambda w: function(input, w, *arguments))


@handles(*primitives("linear"), carries=True)
def linear(
    run: Propagation, function: Operation, input: Tensor, weight: Tensor, bias: Tensor | None = None
) -> Tensor:
    """Deal out by the composite's rule."""
    if not is_tracked(input):
        return function(input, weight, bias)
    if run.batch is None:
        return run.carry("linear", input, weight, bias, Matrix(), lambda w: function(input, w, bias))
    # What is entered for a picture is told by the first axis.
    with run:
        turned = input.reshape(-1, run.batch, input.shape[-1]).transpose(0, 1)
    out = run.carry("linear", turned, weight, bias, Matrix(), lambda w: function(turned, w, bias))
    with run:
        return out.transpose(0, 1).reshape(*input.shape[:-1], -1)


@handles(*primitives("batch_norm"), carries=True)
def batch_norm(
    run: Propagation,
    function: Operation,
    input: Float[Tensor, "b c *places"],
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    training: bool,
    momentum: int | float,
    eps: int | float,
    cudnn_enabled: bool = True,
) -> Tensor:
    """Merge into the linear operation whose output this is; elsewhere scale and shift, or pass.

    Raises
    ------
    UnsupportedError
        The statistics are those of the batch, so that a picture's relevance would depend on the others.
    """
    if training or running_mean is None or running_var is None:
        raise UnsupportedError(
            "lrp: a batch norm uses the statistics of the batch, which mixes its pictures: "
            "give it running statistics, or take grad-cam"
        )
    arguments = (weight, bias, running_mean, running_var, training, momentum, eps, cudnn_enabled)
    scale = (running_var + eps).rsqrt() * (1 if weight is None else weight)
    shift = -running_mean * scale + (0 if bias is None else bias)
    choice = run.composite.choice("batch-norm")
    node = run.mergeable(input) if choice == "merge" else None
    # A matrix's features may lie on another axis than the channels.
    if node is not None and node.map.axis % input.ndim == 1:
        return run.merge(node, scale.detach(), shift.detach(), lambda: function(input, *arguments))
    call = Call(function, (input, *arguments), {})
    if choice == "pass" or run.bias != "absorb":
        return call.scaled(input, None if run.tag(input).relevance else ratio)
    shape = (1, -1, *[1] * (input.ndim - 2))

    def affine(x: Tensor, *rest: Any) -> Tensor:  # noqa: ANN401
        parts = (t.detach().reshape(shape) for t in (scale, shift))
        out: Tensor = _Affine.apply(x, run, *parts, lambda: function(x, *rest))
        return out

    return run.by_form(call, [input], affine)


class _Affine(torch.autograd.Function):
    """A scale and a shift of each feature; the shift keeps its share."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401
        x: Tensor,
        run: Propagation,
        scale: Tensor,
        shift: Tensor,
        compute: Callable[[], Tensor],
    ) -> Tensor:
        ctx.run, ctx.scale, ctx.shift = run, scale, shift
        return compute()

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        ctx.run.ledger.to_bias(g * ctx.shift)
        return g * ctx.scale, None, None, None, None


def merges(handlers: Mapping[Function, Handler]) -> bool:
    """Return whether norms are merged here, and no handler of a user's own is to see them or the convolutions."""
    own: Mapping[Function, Function] = {torch.conv2d: convolution, torch.batch_norm: batch_norm}
    return F.batch_norm not in handlers and all(handlers[function].run is run for function, run in own.items())
