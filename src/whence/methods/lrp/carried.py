"""The two forms in which relevance comes back, R / value and R itself, and what takes an operation to either."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from whence.methods.lrp.rules import Stabiliser
from whence.methods.lrp.structure import may_write
from whence.methods.lrp.tags import Tag, maker, put, tag_of

if TYPE_CHECKING:
    from whence.methods.lrp.propagation import Propagation

Operation = Callable[..., Tensor]
_STABILISERS = {torch.float64: Stabiliser(1e-12), torch.float32: Stabiliser(1e-9)}


def share(r: Tensor, z: Tensor) -> Tensor:
    """Return r / z with the smallest stabiliser that the type allows."""
    return r / _STABILISERS.get(z.dtype, Stabiliser(1e-6))(z)


def ratio(x: Tensor, y: Tensor) -> Tensor:
    """Return g' / g where g y = g' x; a value of 0 has no relevance to hand on."""
    return torch.where(x == 0, 0, y / x)


def swapped(values: Any, by: Mapping[int, Tensor]) -> Any:  # noqa: ANN401
    """Return arguments with tensors exchanged, by their identities."""
    if isinstance(values, Tensor):
        return by.get(id(values), values)
    if isinstance(values, dict):
        return {name: swapped(value, by) for name, value in values.items()}
    if isinstance(values, list | tuple):
        parts = [swapped(value, by) for value in values]
        return parts if isinstance(values, list) else tuple(parts)
    return values


class Call:
    """One call of a function by the model, which may write to its first argument."""

    def __init__(self, function: Operation, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        self.function, self.args, self.kwargs = function, args, dict(kwargs)
        self.writes = may_write(function, args, kwargs)

    def with_(self, by: Mapping[int, Tensor]) -> Tensor:
        """Return what the function returns where some tensors are exchanged."""
        return self.function(*swapped(self.args, by), **swapped(self.kwargs, by))

    def detached(self, *tensors: Tensor) -> Tensor:
        """Return what the function returns, off the graph of some tensors and without writing to them."""
        return self.with_({id(t): t.detach().clone() if self.writes else t.detach() for t in tensors})

    def written(self, out: Tensor) -> Tensor:
        """Return a result, in the first argument's memory where the function writes there."""
        if not self.writes:
            return out
        target: Tensor = self.args[0] if self.args else self.kwargs["input"]
        return target.copy_(out)

    def scaled(self, x: Tensor, factor: Callable[[Tensor, Tensor], Tensor] | None = None) -> Tensor:
        """Run a function of ``x``, value by value: what comes back goes on times ``factor(x, y)``, None for 1."""

        def compute() -> tuple[Tensor, Tensor | None]:
            before, y = x.detach(), self.detached(x)
            return y, None if factor is None else factor(before, y)

        out: Tensor = _Scaled.apply(x, compute)
        return self.written(out)


class _Scaled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, compute: Callable[[], tuple[Tensor, Tensor | None]]) -> Tensor:  # noqa: ANN401
        y, ctx.factor = compute()
        return y

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None]:  # noqa: ANN401
        return g if ctx.factor is None else g * ctx.factor, None


class _Raised(torch.autograd.Function):
    """A value that carries relevance, for what comes after it and carries R / value."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:  # noqa: ANN401
        ctx.value = x.detach().clone()
        return x.clone()

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:  # noqa: ANN401
        r: Tensor = g * ctx.value
        return r


def raised(output: Any) -> Any:  # noqa: ANN401
    """Return what a model returned, so that a score's derivative comes back to it as relevance."""

    def one(value: Any) -> Any:  # noqa: ANN401
        tag = tag_of(value) if isinstance(value, Tensor) else None
        if tag is None or not tag.relevance:
            return value
        out = _Raised.apply(value)
        node = maker(value)
        return put(out, Tag(tag.depth, after=tag.after, made=None if node is None else (node, out._version)))

    with torch.enable_grad():
        return tree_map(one, output)


class _Converted(torch.autograd.Function):
    """What was computed of copies of its inputs, which carry R / value; here some of them carry R."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401
        run: "Propagation",
        y: Tensor,
        leaves: Sequence[Tensor],
        relevance: Sequence[bool],
        *inputs: Tensor,
    ) -> Tensor:
        ctx.run, ctx.y, ctx.leaves, ctx.relevance = run, y, leaves, relevance
        return y.detach().clone()

    @staticmethod
    def backward(ctx: Any, r: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        y = ctx.y.detach()
        *of_inputs, of_output = ctx.relevance
        g = share(r, y) if of_output else r
        if of_output:
            ctx.run.ledger.to_stabiliser(r - g * y)
        found = torch.autograd.grad(ctx.y, ctx.leaves, g, allow_unused=True, retain_graph=True)
        back = [
            None if g is None else leaf.detach() * g if relevance else g
            for g, leaf, relevance in zip(found, ctx.leaves, of_inputs, strict=True)
        ]
        return None, None, None, None, *back


def converted(run: "Propagation", call: Call, tracked: Sequence[Tensor], act: Operation) -> Tensor:
    """Run ``act`` in the function's place, on copies that carry R / value, and change back what comes to them."""
    tags = [tag_of(t) or Tag() for t in tracked]
    leaves = [t.detach().clone().requires_grad_() for t in tracked]
    # Copies of the leaves, which the function may write to.
    copies = [leaf.clone() for leaf in leaves]
    for copy, tag in zip(copies, tags, strict=True):
        put(copy, Tag(tag.depth, False, tag.after, tag.gate))
    by = {id(t): copy for t, copy in zip(tracked, copies, strict=True)}
    y = act(*swapped(call.args, by), **swapped(call.kwargs, by))
    if not y.requires_grad:
        return y
    forms = [*(tag.relevance for tag in tags), run.everywhere or all(tag.relevance for tag in tags)]
    out: Tensor = _Converted.apply(run, y, leaves, forms, *tracked)
    inner = tag_of(y)
    if inner is not None and inner.gate:
        put(out, Tag(gate=True))
    return call.written(out)
