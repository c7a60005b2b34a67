"""Max-pooling: the winner takes all, ties share, or as if it were average pooling."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from whence.errors import UnsupportedError
from whence.methods.lrp.carried import Call, Operation, share
from whence.methods.lrp.operations import handles, primitives
from whence.methods.lrp.propagation import Propagation


class _Shared(torch.autograd.Function):
    """Max-pooling in which every input that equals the maximum gets the same."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, window: dict[str, Any]) -> Tensor:  # noqa: ANN401
        ctx.x, ctx.y, ctx.window = x.detach(), y, window
        return y.clone()

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None, None]:  # noqa: ANN401
        x, y, window = ctx.x, ctx.y, ctx.window
        height, width = (window["padding"],) * 2 if isinstance(window["padding"], int) else window["padding"]
        # A margin that never wins; where windows overhang it (ceil_mode) nothing is lost, for nothing wins there.
        edges = (width, width + x.shape[3], height, height + x.shape[2])
        padded = F.pad(x, edges, value=-torch.inf)
        settings = {"kernel_size": window["kernel_size"], "stride": window["stride"], "dilation": window["dilation"]}
        patches = F.unfold(padded.flatten(0, 1)[:, None].nan_to_num(neginf=torch.finfo(x.dtype).min), **settings)
        rows, columns = _windows(padded.shape[2:], settings)
        patches = patches.reshape(len(patches), -1, rows, columns)[..., : y.shape[2], : y.shape[3]]
        wins = (patches == y.flatten(0, 1)[:, None]).to(g)
        shares = wins / wins.sum(1, keepdim=True) * g.flatten(0, 1)[:, None]
        whole = shares.new_zeros(len(shares), shares.shape[1], rows, columns)
        whole[..., : y.shape[2], : y.shape[3]] = shares
        back = F.fold(whole.flatten(2), tuple(padded.shape[2:]), **settings).reshape(padded.shape)
        return back[..., height : height + x.shape[2], width : width + x.shape[3]], None, None


def _windows(size: tuple[int, ...], settings: dict[str, Any]) -> tuple[int, ...]:
    def of(what: str, axis: int) -> int:
        value = settings[what]
        return int(value if isinstance(value, int) else value[axis])

    return tuple(
        (side - of("dilation", axis) * (of("kernel_size", axis) - 1) - 1) // of("stride", axis) + 1
        for axis, side in enumerate(size)
    )


class _Averaged(torch.autograd.Function):
    """Max-pooling whose relevance is dealt out as average pooling deals it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, run: Propagation, leaf: Tensor, mean: Tensor, y: Tensor) -> Tensor:  # noqa: ANN401
        ctx.run, ctx.leaf, ctx.mean, ctx.y = run, leaf, mean, y
        return y.clone()

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        mean, r = ctx.mean.detach(), g * ctx.y
        s = share(r, mean)
        ctx.run.ledger.to_stabiliser(r - s * mean)
        return *torch.autograd.grad(ctx.mean, ctx.leaf, s, retain_graph=True), None, None, None, None


@handles(*primitives("max_pool2d"), carries=True)
def max_pool(
    run: Propagation,
    function: Operation,
    input: Tensor,
    kernel_size: Any,  # noqa: ANN401
    stride: Any = None,  # noqa: ANN401
    padding: Any = 0,  # noqa: ANN401
    dilation: Any = 1,  # noqa: ANN401
    ceil_mode: bool = False,
) -> Tensor:
    """Let the winner take all, unless the composite chooses otherwise.

    Raises
    ------
    UnsupportedError
        Windows with gaps, as average pooling has none.
    """
    choice = run.composite.choice("max-pool")
    stride = stride or kernel_size
    call = Call(function, (input, kernel_size, stride, padding, dilation, ceil_mode), {})
    if choice == "winner":
        return call.with_({})
    if choice == "average" and dilation not in (1, (1, 1), [1, 1]):
        raise UnsupportedError("lrp: max-pooling with dilation is no average pooling: choose 'winner'")

    if choice == "shared":
        # Those that equal the maximum share R as they share R / value.
        window = {"kernel_size": kernel_size, "stride": stride, "padding": padding, "dilation": dilation}
        out: Tensor = _Shared.apply(input, call.detached(input), window)
        return out

    def act(input: Tensor, *rest: Any) -> Tensor:  # noqa: ANN401
        y = function(input.detach(), *rest)
        leaf = input.detach().clone().requires_grad_()
        mean = F.avg_pool2d(leaf, kernel_size, stride, padding, ceil_mode, count_include_pad=False)
        averaged: Tensor = _Averaged.apply(input, run, leaf, mean, y)
        return averaged

    return run.by_form(call, [input], act)
