"""In which memory order a model runs fastest: on a CPU convolutions do with channels last, at no loss."""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from whence.models.outputs import agree


def order_of(x: Float[Tensor, "..."]) -> torch.memory_format:
    """Return in which order a batch lies; channels last where it lies in both."""
    last = x.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if last else torch.contiguous_format


def takes_channels_last(module: nn.Module, x: Float[Tensor, "b c h w"], run: Callable[[Tensor], Any]) -> bool:
    """Return whether a model is to be run with channels last: it has convolutions, and returns the same.

    A module that views its input's memory as it lies does not take that order.
    """
    if x.is_cuda or x.dtype != torch.float32 or not any(isinstance(m, nn.Conv2d) for m in module.modules()):
        return False
    one = x[:1].contiguous()
    try:
        return agree(run(one.to(memory_format=torch.channels_last)), run(one))
    except Exception:  # any way of failing means the same: the model is left the order that it knows
        return False
