"""What is known of each tensor that depends on the explained input, and kept on the tensor itself."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor

if TYPE_CHECKING:
    from whence.methods.lrp.linear import Node

_KEPT_AS = "_whence_lrp"
_HOLDERS = (tuple, list, dict)


@dataclass(frozen=True, slots=True)
class Tag:
    """What is known of a tensor.

    Attributes
    ----------
    depth
        How many linear operations lie between the input and it, on the longest way.
    relevance
        Whether what comes back to it is relevance R itself, and not R divided by its value.
    after
        The linear operations right above it, with nothing linear between.
    positive
        Whether it is known to hold nothing negative.
    gate
        Whether it only weighs other signals: a sigmoid, a norm, a softmax.
    made
        The linear operation whose very output it is, with the version that it had then.
    """

    depth: int = 0
    relevance: bool = False
    after: frozenset["Node"] = frozenset()
    gate: bool = False
    positive: bool = False
    made: "tuple[Node, int] | None" = None


def tag_of(tensor: Tensor) -> Tag | None:
    """Return a tensor's tag, None where it has none."""
    return getattr(tensor, _KEPT_AS, None)


def is_tracked(value: Any) -> bool:  # noqa: ANN401
    """Return whether a value is a tensor that depends on the input."""
    return isinstance(value, Tensor) and value.requires_grad and tag_of(value) is not None


def put(tensor: Tensor, tag: Tag) -> Tensor:
    """Put a tag on a tensor."""
    setattr(tensor, _KEPT_AS, tag)
    return tensor


def maker(tensor: Tensor) -> "Node | None":
    """Return the linear operation whose output a tensor is, None where it was written to since."""
    tag = tag_of(tensor)
    if tag is None or tag.made is None or tag.made[1] != tensor._version:
        return None
    return tag.made[0]


def tensors(values: Any) -> list[Tensor]:  # noqa: ANN401  (operations take and return anything)
    """Return the tensors among an operation's arguments or in what it returned."""
    if isinstance(values, Tensor):
        return [values]
    if isinstance(values, dict):
        values = values.values()
    elif not isinstance(values, _HOLDERS):
        return []
    found: list[Tensor] = []
    for value in values:
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, _HOLDERS):
            found += tensors(value)
    return found
