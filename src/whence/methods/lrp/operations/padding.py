"""Padding: what lies in the margin is a constant, and keeps its share."""

from typing import Any

import torch
from torch import Tensor

from whence.methods.lrp.carried import Operation
from whence.methods.lrp.operations import handles, primitives
from whence.methods.lrp.propagation import Propagation


class _Margin(torch.autograd.Function):
    """A padded tensor, of whose relevance the margin's is entered: ``held`` times what comes back."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, run: Propagation, held: Tensor) -> Tensor:  # noqa: ANN401
        ctx.run, ctx.held = run, held
        return x.clone()

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None, None]:  # noqa: ANN401
        ctx.run.ledger.to_constants(g * ctx.held)
        return g, None, None


@handles(*primitives("pad", "constant_pad_nd"), carries=True)
def padded(
    run: Propagation,
    function: Operation,
    input: Tensor,
    pad: tuple[int, ...],
    *rest: Any,  # noqa: ANN401
    **kwargs: Any,  # noqa: ANN401
) -> Tensor:
    """Let the margin keep what it gets, as a margin of zeros does by the rules that give relevance to zeros."""
    out = function(input, pad, *rest, **kwargs)
    mode = kwargs.get("mode", rest[0] if rest else "constant")
    # A margin that mirrors or repeats the input hands relevance back to it; a number is constant_pad_nd's value.
    if isinstance(mode, str) and mode != "constant":
        return out
    outside = 1 - torch.constant_pad_nd(torch.ones_like(input, requires_grad=False), pad)
    margin: Tensor = _Margin.apply(out, run, outside if run.tag(input).relevance else outside * out.detach())
    return margin
