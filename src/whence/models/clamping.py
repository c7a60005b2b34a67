"""Clamps in place without the copy that autograd makes of what they read: half the memory of the maps of a ReLU6 net.

Where such a result is itself written to later, its gradient is an error: it is for models that were seen not to.
"""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from whence.models.operations import Function, Replacement, arguments


class _Clamp(torch.autograd.Function):
    """min(max(x, low), high) in place, which keeps what it returns: that is inside the bounds where x was."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, low: int | float, high: int | float) -> Tensor:  # noqa: ANN401
        x.clamp_(low, high)
        ctx.mark_dirty(x)
        ctx.save_for_backward(x)
        ctx.bounds = low, high
        return x

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:  # noqa: ANN401
        return torch.ops.aten.hardtanh_backward(gradient, *ctx.saved_tensors, *ctx.bounds), None, None


def _clamping(names: tuple[str, ...], low: int | float, high: int | float) -> Replacement:
    """Return a clamp's replacement; ``names`` are those of its arguments, and the bounds what it has without any."""

    def clamp(function: Function, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        given = {"min_val": low, "max_val": high, **arguments(names, args, kwargs)}
        copied = given.get("inplace") and torch.is_grad_enabled() and given["input"].requires_grad
        if not copied:
            return function(*args, **kwargs)
        return _Clamp.apply(given["input"], given["min_val"], given["max_val"])

    return clamp


CLAMPS: Mapping[Function, Replacement] = {
    F.relu6: _clamping(("input", "inplace"), 0.0, 6.0),
    F.hardtanh: _clamping(("input", "min_val", "max_val", "inplace"), -1.0, 1.0),
}
"""What runs in the place of torch's clamps."""
