"""Softmax and attention: attention maps as constants (CP-LRP), or as signals (AttnLRP, or as activations)."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from whence.methods.lrp.carried import Call, Operation, ratio
from whence.methods.lrp.operations import handles, primitives
from whence.methods.lrp.operations.products import halved
from whence.methods.lrp.propagation import Propagation
from whence.methods.lrp.tags import is_tracked
from whence.models.attention import attention_map, makes_map, unguarded


class _Expanded(torch.autograd.Function):
    """A function by its first-order expansion, whose constant term is entered as its own."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, run: Propagation, what: str, leaf: Tensor, y: Tensor) -> Tensor:  # noqa: ANN401
        ctx.run, ctx.what, ctx.leaf, ctx.y = run, what, leaf, y
        return y.detach().clone()

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        (back,) = torch.autograd.grad(ctx.y, ctx.leaf, g, retain_graph=True)
        x = ctx.leaf.detach()
        # Where a mask forbids to look there is minus infinity, and nothing comes back.
        ctx.run.ledger.to_other(ctx.what, g * ctx.y.detach())
        ctx.run.ledger.to_other(ctx.what, -(back * x).masked_fill(back == 0, 0))
        return back, None, None, None, None


def expanded(run: Propagation, what: str, call: Call, x: Tensor) -> Tensor:
    """Run a function of ``x`` by its first-order expansion."""
    leaf = x.detach().clone().requires_grad_()
    out: Tensor = _Expanded.apply(x, run, what, leaf, call.with_({id(x): leaf}))
    return out


@handles(*primitives("softmax"), torch.special.softmax)
def softmax(run: Propagation, function: Operation, *args: Any, **kwargs: Any) -> Tensor:  # noqa: ANN401
    """Give no relevance to the scores of an attention map, or by the first-order expansion, or all of it."""
    call = Call(function, args, kwargs)
    x: Tensor = args[0] if args else kwargs["input"]
    # Over classes it is the model's own last step, and no attention.
    if x.ndim > 2 and not run.shares_attention:
        return call.detached(x)
    out = _mapped(run, call, x) if x.ndim > 2 else expanded(run, "softmax", call, x)
    return run.gate(run.attended(out) if makes_map(x, *args[1:], **kwargs) else out)


def _mapped(run: Propagation, call: Call, scores: Tensor) -> Tensor:
    """Run what makes an attention map of scores."""
    if run.composite.choice("attention") == "pass":
        return call.scaled(scores, ratio)
    return expanded(run, "softmax", call, scores)


@handles(*primitives("log_softmax", "special_log_softmax"))
def log_softmax(run: Propagation, function: Operation, *args: Any, **kwargs: Any) -> Tensor:  # noqa: ANN401
    """Expand to first order."""
    x: Tensor = args[0] if args else kwargs["input"]
    return expanded(run, "log-softmax", Call(function, args, kwargs), x)


@handles(F.scaled_dot_product_attention, carries=True)
def fused_attention(
    run: Propagation,
    function: Operation,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: int | float = 0.0,
    is_causal: bool = False,
    scale: int | float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """Give everything to the values, or one half to them and one fourth each to queries and keys."""
    tracked = [t for t in (query, key, value) if is_tracked(t)]
    mask = None if attn_mask is None else attn_mask.detach()
    named = {"attn_mask": mask, "is_causal": is_causal, "scale": scale, "enable_gqa": enable_gqa}
    if not run.shares_attention:

        def act(query: Tensor, key: Tensor, value: Tensor, **named: Any) -> Tensor:  # noqa: ANN401
            return function(query.detach(), key.detach(), value, **named)
    else:

        def act(query: Tensor, key: Tensor, value: Tensor, **named: Any) -> Tensor:  # noqa: ANN401
            if enable_gqa:
                key = key.repeat_interleave(query.shape[-3] // key.shape[-3], -3)
                value = value.repeat_interleave(query.shape[-3] // value.shape[-3], -3)
            width = query.shape[-1] ** -0.5 if scale is None else scale
            scores = halved(query) @ halved(key).transpose(-2, -1) * width
            # The scores once more as queries of a unit matrix: masks are read in one place alone.
            unit = torch.eye(scores.shape[-1], dtype=scores.dtype, device=scores.device)
            unit = unit.expand(*scores.shape[:-2], -1, -1)
            call = Call(lambda s: attention_map(s, unit, mask, is_causal, 1.0), (scores,), {})
            return halved(run.attended(_mapped(run, call, scores))) @ halved(value)

    return run.by_form(Call(function, (query, key, value), named), tracked, act)


@handles(F.multi_head_attention_forward, expands=True)
def multi_head_attention(run: Propagation, function: Operation, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
    """Run what ``nn.MultiheadAttention`` is made of, operation by operation; tokens come before pictures there."""
    query: Tensor = args[0] if args else kwargs["query"]
    run.batch = query.shape[1] if query.ndim == 3 else None
    try:
        with run:
            return unguarded(function)(*args, **kwargs)
    finally:
        run.batch = None
