"""Layer, group, instance and root-mean-square norms, and local response normalisation: the norm is a constant."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from whence.methods.lrp.carried import Call, Operation, ratio, share
from whence.methods.lrp.operations import handles, primitives
from whence.methods.lrp.operations.linear import batch_norm
from whence.methods.lrp.propagation import Propagation


class _Normed(torch.autograd.Function):
    """(x - mean) / deviation * weight + bias: the deviation gets nothing, the bias its share."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401
        x: Tensor,
        run: Propagation,
        rows: tuple[int, ...],
        scale: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        centred: bool,
        compute: Callable[[], Tensor],
    ) -> Tensor:
        y = compute()
        ctx.run, ctx.rows, ctx.scale, ctx.weight, ctx.bias, ctx.centred = run, rows, scale, weight, bias, centred
        ctx.value = y.detach().clone() if bias is not None and run.bias != "absorb" else None
        return y

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        if ctx.value is not None:
            r = g * ctx.value
            g = share(r, ctx.value - ctx.bias)
            ctx.run.ledger.to_stabiliser(r - g * (ctx.value - ctx.bias))
        elif ctx.bias is not None:
            ctx.run.ledger.to_bias(g * ctx.bias)
        g = g if ctx.weight is None else g * ctx.weight
        rows = g.reshape(ctx.rows) * ctx.scale
        if ctx.centred:
            rows = rows - rows.mean(-1, keepdim=True)
        return rows.reshape(g.shape), None, None, None, None, None, None, None


def _normed(
    run: Propagation,
    call: Call,
    x: Tensor,
    rows: tuple[int, ...],
    eps: int | float,
    weight: Tensor | None,
    bias: Tensor | None,
    centred: bool = True,
) -> Tensor:
    if run.composite.choice("norm") == "pass":
        return call.scaled(x, ratio)
    values = x.detach().reshape(rows)
    square = values.var(-1, correction=0, keepdim=True) if centred else values.square().mean(-1, keepdim=True)
    scale = (square + eps).rsqrt()
    y: Tensor = _Normed.apply(x, run, rows, scale, weight, bias, centred, lambda: call.detached(x))
    return y


@handles(*primitives("layer_norm"))
def layer_norm(
    run: Propagation,
    function: Operation,
    input: Tensor,
    normalized_shape: tuple[int, ...],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: int | float = 1e-5,
    *rest: Any,  # noqa: ANN401
    **kwargs: Any,  # noqa: ANN401
) -> Tensor:
    """Take the deviation as a constant."""
    call = Call(function, (input, normalized_shape, weight, bias, eps, *rest), kwargs)
    rows = (*input.shape[: -len(normalized_shape)], -1)
    return _normed(run, call, input, rows, eps, weight, bias)


@handles(*primitives("rms_norm"))
def rms_norm(
    run: Propagation,
    function: Operation,
    input: Tensor,
    normalized_shape: tuple[int, ...],
    weight: Tensor | None = None,
    eps: int | float | None = None,
) -> Tensor:
    """Take the root of the mean square as a constant."""
    call = Call(function, (input, normalized_shape, weight, eps), {})
    rows = (*input.shape[: -len(normalized_shape)], -1)
    epsilon = torch.finfo(input.dtype).eps if eps is None else eps
    return _normed(run, call, input, rows, epsilon, weight, None, centred=False)


@handles(*primitives("group_norm"))
def group_norm(
    run: Propagation,
    function: Operation,
    input: Float[Tensor, "b c *places"],
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: int | float = 1e-5,
    *rest: Any,  # noqa: ANN401
) -> Tensor:
    """Take the deviation as a constant."""
    call = Call(function, (input, num_groups, weight, bias, eps, *rest), {})
    rows = (len(input), num_groups, -1)
    return _normed(run, call, input, rows, eps, _per_channel(weight, input), _per_channel(bias, input))


@handles(*primitives("instance_norm"))
def instance_norm(
    run: Propagation,
    function: Operation,
    input: Float[Tensor, "b c *places"],
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    use_input_stats: bool,
    momentum: int | float,
    eps: int | float,
    *rest: Any,  # noqa: ANN401
) -> Tensor:
    """Take the deviation as a constant."""
    call = Call(function, (input, weight, bias, running_mean, running_var, use_input_stats, momentum, eps, *rest), {})
    if not use_input_stats:
        # Then it is a batch norm.
        statistics = (weight, bias, running_mean, running_var, False, momentum, eps, False)
        return batch_norm(run, torch.batch_norm, input, *statistics)
    rows = (len(input), input.shape[1], -1)
    return _normed(run, call, input, rows, eps, _per_channel(weight, input), _per_channel(bias, input))


def _per_channel(values: Tensor | None, x: Tensor) -> Tensor | None:
    return None if values is None else values.reshape(1, -1, *[1] * (x.ndim - 2))


class _Taylor(torch.autograd.Function):
    """Local response normalisation by its first-order expansion. Binder et al. 2016, equation 12.

    The output y_k = x_k (K + a S_k)^-b, where S_k sums the squares of the neighbours, itself among them, and
    a = alpha / n. Contributions: of its own channel x_k (K + a x_k^2)^-b, of a neighbour i
    -2 a b x_k x_i^2 (K + a S_k)^(-b - 1); they share out the relevance in proportion to them.
    """

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401
        x: Tensor,
        run: Propagation,
        size: int,
        a: int | float,
        b: int | float,
        k: int | float,
        y: Tensor,
    ) -> Tensor:
        ctx.run, ctx.x, ctx.settings, ctx.y = run, x.detach(), (size, a, b, k), y
        return y.clone()

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        x, (size, a, b, k) = ctx.x, ctx.settings

        def neighbours(values: Tensor, reverse: bool) -> Tensor:
            before, after = size // 2, (size - 1) // 2
            rows = values.flatten(2).transpose(1, 2)
            padded = F.pad(rows, (after, before) if reverse else (before, after))
            return padded.unfold(2, size, 1).sum(3).transpose(1, 2).reshape(values.shape)

        own = x * (k + a * x.square()) ** -b
        weight = -2 * a * b * x * (k + a * neighbours(x.square(), False)) ** (-b - 1)
        total = own + weight * (neighbours(x.square(), False) - x.square())
        r = g * ctx.y
        s = share(r, total)
        ctx.run.ledger.to_stabiliser(r - s * total)
        # R / x of channel i: from its own output, and x_i times that of each neighbour's.
        from_own = s * (k + a * x.square()) ** -b
        from_others = x * (neighbours(s * weight, True) - s * weight)
        return from_own + from_others, None, None, None, None, None, None


@handles(F.local_response_norm)
def local_response_norm(
    run: Propagation,
    function: Operation,
    input: Tensor,
    size: int,
    alpha: int | float = 1e-4,
    beta: int | float = 0.75,
    k: int | float = 1.0,
) -> Tensor:
    """Take the norm as a constant, or expand to first order."""
    y = function(input.detach(), size, alpha, beta, k)
    if run.composite.choice("local-response-norm") == "taylor":
        out: Tensor = _Taylor.apply(input, run, size, alpha / size, beta, k, y)
        return out
    return input * ratio(input.detach(), y)
