"""Intercept functional operations: what torch does between, and inside, a model's layers.

A mode sees every call that the model's own code makes in this thread, whether of a function, of a method of a tensor,
or by a layer of torch; nothing is patched, and nothing is left when its `with` block ends. It does not see what runs
below Python (scripts, compiled functions), nor what a function of torch calls inside itself: of
``F.multi_head_attention_forward`` it sees the one call, which a table may replace as a whole.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

Function = Callable[..., Any]
Replacement = Callable[..., Any]
"""What runs, as ``replacement(function, *args, **kwargs)``, where the model calls ``function(*args, **kwargs)``."""

_HIDDEN = (torch._C._nn, torch._C._linalg, torch._C._special)  # type: ignore[attr-defined]
_PLACES = (torch, Tensor, F, *_HIDDEN, torch.ops.aten)


def named(*names: str) -> tuple[Function, ...]:
    """Return every function of torch that goes by one of the names, methods of tensors and overloads included."""
    found: list[Function] = []
    for place in _PLACES:
        for name in names:
            function = getattr(place, name, None)
            if function is not None:
                found.append(function)
            if place is torch.ops.aten and function is not None:
                found += [getattr(function, overload) for overload in function.overloads()]
    return tuple(dict.fromkeys(found))


def arguments(names: tuple[str, ...], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a call by their names, those alone that were given."""
    return {**dict(zip(names, args, strict=False)), **kwargs}


class Intercepted(TorchFunctionMode):
    """In its `with` block each function in the table is replaced; the replacement itself runs without the mode."""

    def __init__(self, table: Mapping[Function, Replacement]) -> None:
        super().__init__()
        self.table = table

    def __torch_function__(
        self,
        func: Function,
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        """Call the function, or what the table has for it."""
        replacement = self.table.get(func)
        if replacement is None:
            return func(*args, **(kwargs or {}))
        return replacement(func, *args, **(kwargs or {}))


class _Positive(torch.autograd.Function):
    """The identity, through which only positive gradients come back."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, inplace: bool) -> Tensor:  # noqa: ANN401
        if inplace:
            ctx.mark_dirty(x)
            return x
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # noqa: ANN401
        return gradient.clamp(min=0), None


def _argument(position: int, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:  # noqa: ANN401
    return args[position] if len(args) > position else kwargs.get(name)


def _zero(bound: object) -> bool:
    return isinstance(bound, int | float) and bound == 0


# What makes a call of these names a rectifier: it is flat up to 0 and rises from there.
_RECTIFIES: Mapping[str, Callable[[tuple[Any, ...], Mapping[str, Any]], bool]] = {
    "relu": lambda args, kwargs: True,
    "relu6": lambda args, kwargs: True,
    "hardtanh": lambda args, kwargs: _zero(_argument(1, "min_val", args, kwargs)),
    "clamp": lambda args, kwargs: _zero(_argument(1, "min", args, kwargs)),
    "clip": lambda args, kwargs: _zero(_argument(1, "min", args, kwargs)),
    "clamp_min": lambda args, kwargs: _zero(_argument(1, "min", args, kwargs)),
    "threshold": lambda args, kwargs: all(
        _zero(_argument(at, name, args, kwargs)) for at, name in ((1, "threshold"), (2, "value"))
    ),
}


def _guiding(rectifies: Callable[[tuple[Any, ...], Mapping[str, Any]], bool], always_in_place: bool) -> Replacement:
    """Return a rectifier's replacement: the rectifier itself, behind what lets positive gradients alone through.

    The rectifier's derivative is 0 or 1, so that it is all one on which side of it the gradient's sign is looked at.
    """

    def guided(function: Function, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        x = args[0] if args else kwargs.get("input")
        if not isinstance(x, Tensor) or not x.requires_grad or not rectifies(args, kwargs):
            return function(*args, **kwargs)
        x = _Positive.apply(x, always_in_place or bool(kwargs.get("inplace")))
        return function(x, *args[1:], **{name: value for name, value in kwargs.items() if name != "input"})

    return guided


_GUIDED: Mapping[Function, Replacement] = {
    function: _guiding(rectifies, bool(suffix))
    for name, rectifies in _RECTIFIES.items()
    for suffix in ("", "_")
    for function in named(name + suffix)
}


@contextmanager
def guided() -> Iterator[None]:
    """Let every rectifier that the model calls inside the block pass g * 1[x > 0] * 1[g > 0] back.

    Rectifiers are ReLU and ReLU6, ``hardtanh`` and ``clamp`` from 0, and ``threshold`` at 0, as layers, functions and
    methods, in place or not; one with an upper bound passes nothing back above it, as its own derivative says.
    """
    with Intercepted(_GUIDED):
        yield


class Rectifiers(NamedTuple):
    """Whether a score depends on rectifiers that were guided, and on some that could not be."""

    guided: bool
    missed: bool


def rectifiers(score: Tensor) -> Rectifiers:
    """Return what became of the rectifiers between the input and a score that was computed in a ``guided`` block."""
    found, missed = False, False
    seen, stack = set(), [score.grad_fn]
    while stack:
        node = stack.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        before = [following for following, _ in node.next_functions]
        found |= _is_guide(node)
        missed |= _rectified(node) and not _is_guide(before[0])
        # A script's or a compiled function's own graph, which shows nothing of what it is made of.
        missed |= node.name().endswith(("DifferentiableGraphBackward", "CompiledFunctionBackward"))
        stack += before
    return Rectifiers(found, missed)


def _rectified(node: Any) -> bool:  # noqa: ANN401  (autograd's nodes have no public type)
    """Return whether a node is that of a rectifier: of ReLU, or of what else is cut off below at 0."""
    bounds = (getattr(node, name, None) for name in ("_saved_min", "_saved_min_val"))
    return node.name() == "ReluBackward0" or any(map(_zero, bounds))


def _is_guide(node: Any) -> bool:  # noqa: ANN401
    return node is not None and node.name() == f"{_Positive.__name__}Backward"
