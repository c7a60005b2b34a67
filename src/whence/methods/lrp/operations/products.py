"""Sums, products, quotients and matrix products."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from whence.methods.lrp.balance import per_picture, scaled
from whence.methods.lrp.carried import Call, Operation
from whence.methods.lrp.linear import Matrix
from whence.methods.lrp.operations import handles, primitives
from whence.methods.lrp.propagation import Propagation
from whence.methods.lrp.tags import is_tracked, tensors


class _Halved(torch.autograd.Function):
    """A factor that two signals share: each gets half of the product's relevance."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:  # noqa: ANN401
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:  # noqa: ANN401
        return g / 2


def halved(x: Tensor) -> Tensor:
    """Return a factor of a product whose relevance is shared in halves."""
    half: Tensor = _Halved.apply(x)
    return half


class _Shifted(torch.autograd.Function):
    """sign x + constant, where the constant keeps its share."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401
        x: Tensor,
        run: Propagation,
        sign: int | float,
        constant: Tensor | int | float,
        compute: Callable[[], Tensor],
    ) -> Tensor:
        ctx.run, ctx.sign, ctx.constant, ctx.shape = run, sign, constant, x.shape
        return compute()

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        # Minus infinity, which forbids attention to look somewhere, takes nothing.
        ctx.run.ledger.to_constants((g * ctx.constant).masked_fill(g == 0, 0))
        back = g if ctx.sign == 1 else ctx.sign * g
        return back.sum_to_size(ctx.shape), None, None, None, None


class _Normalised(torch.autograd.Function):
    """The two summands of a sum, whose shares of a picture's relevance are made to have one sign.

    With S_a and S_b the sums of what they got, a's share is scaled by |S_a| / (|S_a| + |S_b|) * (S_a + S_b) / S_a.
    Chefer et al. 2021, the normalisation of sums.
    """

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, run: Propagation) -> tuple[Tensor, Tensor]:  # noqa: ANN401
        ctx.run, ctx.values = run, (a.detach().clone(), b.detach().clone())
        return a.clone(), b.clone()

    @staticmethod
    def backward(ctx: Any, *gs: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        sums = [per_picture(g * value, ctx.run.count) for g, value in zip(gs, ctx.values, strict=True)]
        size = sums[0].abs() + sums[1].abs()
        ratio = torch.where(size == 0, 0, (sums[0] + sums[1]) / size)
        return *(scaled(g, ratio * s.sign()) for g, s in zip(gs, sums, strict=True)), None


@handles(*primitives("add", "add_", "__add__", "__iadd__", "__radd__"))
def plus(run: Propagation, function: Operation, *args: Any, **kwargs: Any) -> Tensor:  # noqa: ANN401
    """Let each summand have its share."""
    return _sum(run, Call(function, args, kwargs), 1, kwargs.get("alpha", 1))


@handles(*primitives("sub", "sub_", "subtract", "subtract_", "__sub__", "__isub__"))
def minus(run: Propagation, function: Operation, *args: Any, **kwargs: Any) -> Tensor:  # noqa: ANN401
    """Let each summand have its share."""
    return _sum(run, Call(function, args, kwargs), 1, -kwargs.get("alpha", 1))


@handles(*primitives("rsub", "__rsub__"), torch.Tensor.__rsub__)
def minus_reversed(run: Propagation, function: Operation, *args: Any, **kwargs: Any) -> Tensor:  # noqa: ANN401
    """Let each summand have its share."""
    return _sum(run, Call(function, args, kwargs), -kwargs.get("alpha", 1), 1)


def _operands(call: Call) -> tuple[Any, Any]:
    """Return the two operands of a call, given by place or by name."""
    named = (call.kwargs.get(name) for name in ("input", "other", "mat2"))
    a, b = (*call.args, *(value for value in named if value is not None))[:2]
    return a, b


def _sum(run: Propagation, call: Call, *signs: int | float) -> Tensor:
    """Return sign_1 a + sign_2 b."""
    a, b = _operands(call)
    if is_tracked(a) and is_tracked(b):
        run.seen["sum of branches"] += 1
        if run.composite.choice("sum") == "plain" or a is b:
            return call.with_({})
        parts = _Normalised.apply(a, b, run)
        return call.written(call.with_({id(a): parts[0], id(b): parts[1]}))
    (x, sign), (constant, other) = ((a, signs[0]), (b, signs[1]))[:: 1 if is_tracked(a) else -1]
    return call.written(_Shifted.apply(x, run, sign, other * constant, lambda: call.detached(x)))


@handles(*primitives("cat", "concat", "concatenate", "stack", "hstack", "vstack", "dstack"), carries=True)
def joined(run: Propagation, function: Operation, *args: Any, **kwargs: Any) -> Tensor:  # noqa: ANN401
    """Let constants among the parts, such as class tokens, keep their share."""
    call = Call(function, args, kwargs)
    parts = list(tensors((args, kwargs)))
    tracked = [t for t in parts if is_tracked(t)]
    forms = {run.tag(t).relevance for t in tracked}
    if len(forms) > 1:
        return run.by_form(call, tracked, lambda *args, **kwargs: joined(run, function, *args, **kwargs))
    out = call.with_({})
    if len(tracked) == len(parts):
        return out
    # The same join with zeros in the place of what depends on the input, and with what the others' share is of what
    # comes back: all of it where that is relevance.
    whole = forms == {True}
    own = {id(t): torch.zeros_like(t) if is_tracked(t) else torch.ones_like(t) if whole else t for t in parts}
    held: Tensor = _Shifted.apply(out, run, 1, call.with_(own).detach(), lambda: out.detach().clone())
    return held


@handles(*primitives("where", "masked_fill", "masked_fill_", "index_fill", "index_fill_", "index_copy", "scatter"))
def filled(run: Propagation, function: Operation, *args: Any, **kwargs: Any) -> Tensor:  # noqa: ANN401
    """Let constants that are put in some places keep their share."""
    call = Call(function, args, kwargs)
    zeros = {id(t): torch.zeros_like(t) for t in tensors((args, kwargs)) if is_tracked(t)}
    constants = call.with_(zeros).detach()
    out = call.with_({})
    if not bool(constants.any()):
        return out
    held: Tensor = _Shifted.apply(out, run, 1, constants, lambda: out.detach().clone())
    return call.written(held)


@handles(*primitives("addcmul", "addcmul_"))
def plus_product(
    run: Propagation, function: Operation, input: Tensor, tensor1: Tensor, tensor2: Tensor, *, value: int | float = 1
) -> Tensor:
    """Run the sum and the product one by one."""
    with run:
        total = input + value * (tensor1 * tensor2)
    return input.copy_(total) if function.__name__.endswith("_") else total


@handles(*primitives("mul", "mul_", "multiply", "multiply_", "__mul__", "__rmul__", "__imul__"))
def times(run: Propagation, function: Operation, *args: Any, **kwargs: Any) -> Tensor:  # noqa: ANN401
    """Give everything to the signal that is weighed; where none is a weight, half to each."""
    call = Call(function, args, kwargs)
    a, b = _operands(call)
    if not (is_tracked(a) and is_tracked(b)):
        return call.with_({})
    if a is b:
        return call.written(a.detach() * a)
    if _is_weight(run, a, b):
        a, b = b, a
    if run.composite.choice("product") != "uniform" and _is_weight(run, b, a):
        out = call.written(a * b.detach())
    else:
        out = call.written(halved(a) * halved(b))
    return run.gate(out) if run.tag(a).gate and run.tag(b).gate else out


def _is_weight(run: Propagation, weight: Tensor, signal: Tensor) -> bool:
    """Return whether one factor only weighs the other: a gate, or one value for many."""
    mine, other = run.tag(weight).gate, run.tag(signal).gate
    return mine if mine != other else weight.numel() < signal.numel()


@handles(*primitives("div", "div_", "divide", "divide_", "true_divide", "__truediv__", "__itruediv__"))
def divided_by(run: Propagation, function: Operation, *args: Any, **kwargs: Any) -> Tensor:  # noqa: ANN401
    """Give nothing to the divisor."""
    call = Call(function, args, kwargs)
    a, b = _operands(call)
    if not is_tracked(b):
        return call.with_({})
    if not is_tracked(a):
        return run.gate(call.with_({}))
    out = call.with_({id(b): b.detach()})
    return run.gate(out) if run.tag(a).gate and run.tag(b).gate else out


@handles(*primitives("matmul", "bmm", "mm", "__matmul__", "mv", "dot"), carries=True)
def matrix_product(run: Propagation, function: Operation, *args: Any, **kwargs: Any) -> Tensor:  # noqa: ANN401
    """Treat a constant matrix on the right as a linear layer; of two signals give half to each, none to a gate."""
    a, b = _operands(Call(function, args, kwargs))
    if is_tracked(a) and not is_tracked(b) and b.ndim == 2 and a.ndim > 1:
        return run.carry("linear", a, b.t(), None, Matrix(), lambda _: function(a, b))
    tracked = [t for t in (a, b) if is_tracked(t)]
    return run.by_form(Call(function, (a, b), {}), tracked, partial(_bilinear, run, function))


@handles(torch.einsum)
def einsum(run: Propagation, function: Operation, equation: str, *operands: Any) -> Tensor:  # noqa: ANN401
    """Of two signals give half to each, none to a gate."""
    given = operands[0] if len(operands) == 1 and isinstance(operands[0], list | tuple) else operands
    if len(given) == 2:
        return _bilinear(run, lambda a, b: function(equation, a, b), *given)
    return function(equation, *given)


def _bilinear(run: Propagation, function: Operation, a: Tensor, b: Tensor) -> Tensor:
    """Return a product of two matrices: that of attention and values, of queries and keys, or any other."""
    if not (is_tracked(a) and is_tracked(b)):
        return function(a, b)
    gates = run.tag(a).gate, run.tag(b).gate
    if gates[0] != gates[1] and not run.shares_attention:
        return function(*(t.detach() if gate else t for t, gate in zip((a, b), gates, strict=True)))
    return function(halved(a), halved(b))


@handles(*primitives("addmm", "baddbmm"), carries=True)
def plus_matrix_product(
    run: Propagation,
    function: Operation,
    input: Tensor,
    mat1: Tensor,
    mat2: Tensor,
    *,
    beta: int | float = 1,
    alpha: int | float = 1,
) -> Tensor:
    """Treat a constant matrix with a constant bias as a linear layer; anything else one by one."""
    if is_tracked(mat1) and not is_tracked(mat2) and not is_tracked(input) and mat2.ndim == 2:
        bias = beta * input.expand(mat2.shape[1]) if input.ndim < 2 else None
        if bias is not None:
            return run.carry(
                "linear",
                mat1,
                alpha * mat2.t(),
                bias,
                Matrix(),
                lambda _: function(input, mat1, mat2, beta=beta, alpha=alpha),
            )
    with run:
        product = alpha * (mat1 @ mat2)
        # Without a share the summand may hold anything, as memory that was never written to.
        return beta * input + product if beta else product
