"""What a module returns: its logits, and whether two runs returned the same."""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils._pytree import tree_leaves

from whence.errors import ModelError

# How far, relative to the largest value, two ways to compute the same may be apart: rounding is far below.
_TOLERANCE = 1e-4


def floating(output: Any) -> list[Tensor]:  # noqa: ANN401  (modules return anything)
    """Return the floating tensors in what a module returned; of an object that torch does not look into, its logits.

    Raises
    ------
    ModelError
        There are none.
    """
    found = [leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor) and leaf.is_floating_point()]
    return found or [logits_of(output)]


def agree(one: Any, other: Any) -> bool:  # noqa: ANN401
    """Return whether two runs returned the same, to rounding."""
    with torch.no_grad():
        return all(
            float((a - b).abs().max()) <= _TOLERANCE * float(b.abs().max())
            for a, b in zip(floating(one), floating(other), strict=True)
        )


def logits_of(output: Any) -> Float[Tensor, "b k"]:  # noqa: ANN401  (modules return anything)
    """Return the logits [B, K] in what a classifier returned: a tensor, a tuple, a dict or a ModelOutput.

    Raises
    ------
    ModelError
        There are none.
    """
    logits = output
    if hasattr(logits, "logits"):
        logits = logits.logits
    elif isinstance(logits, Mapping):
        logits = next((logits[key] for key in ("logits", "out", *logits) if key in logits), None)
    elif isinstance(logits, list | tuple):
        logits = next((item for item in logits if isinstance(item, Tensor)), None)
    if not isinstance(logits, Tensor) or logits.ndim != 2 or not logits.is_floating_point():
        found = list(logits.shape) if isinstance(logits, Tensor) else type(output).__name__
        raise ModelError(
            f"the model returned {found} where logits [batch, classes] are expected: "
            "give target= a function from the model's output to one number a picture"
        )
    return logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits
