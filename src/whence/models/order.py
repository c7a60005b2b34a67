"""In which memory order a model runs fastest: on a CPU convolutions do with channels last, at no loss."""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

# How far, relative to the largest output, the two orders may be apart: rounding is far below.
_TOLERANCE = 1e-4


def takes_channels_last(module: nn.Module, x: Float[Tensor, "b c h w"], run: Callable[[Tensor], Any]) -> bool:
    """Return whether a model is to be run with channels last: it has convolutions, and returns the same.

    A module that views its input's memory as it lies does not take that order.
    """
    if x.is_cuda or x.dtype != torch.float32 or not any(isinstance(m, nn.Conv2d) for m in module.modules()):
        return False
    one = x[:1].contiguous()
    try:
        pairs = zip(tree_leaves(run(one.to(memory_format=torch.channels_last))), tree_leaves(run(one)), strict=True)
        return all(
            float((a - b).abs().max()) <= _TOLERANCE * float(b.abs().max())
            for a, b in pairs
            if isinstance(b, Tensor) and b.is_floating_point()
        )
    except Exception:  # any way of failing means the same: the model is left the order that it knows
        return False
