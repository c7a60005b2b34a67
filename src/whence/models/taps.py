"""Record or replace what a layer returns: the only file with hooks and patched forwards.

Everything here is undone when its `with` block ends, however it ends, and touches only calls made by the thread that
opened the block.
"""

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_unflatten

from whence.errors import LayerError, UnknownLayerError, nearest


@dataclass(frozen=True)
class Call:
    """One call of a module: layers are named by the module's path, the second call of a module by ``path#1``."""

    path: str
    count: int = 0

    @classmethod
    def parse(cls, name: str) -> "Call":
        """Read a layer's name."""
        path, mark, count = name.partition("#")
        if mark and not count.isdecimal():
            raise UnknownLayerError(f"layer {name!r}: after # stands the number of the call, as in '{path}#1'")
        return cls(path, int(count) if mark else 0)

    def __str__(self) -> str:
        """Return the name that ``parse`` reads."""
        return f"{self.path}#{self.count}" if self.count else self.path


def find(module: nn.Module, call: Call) -> nn.Module:
    """Return the module that a call names.

    Raises
    ------
    UnknownLayerError
        There is no such module.
    """
    try:
        found = module.get_submodule(call.path) if call.path else None
    except (AttributeError, RuntimeError):  # a script module has no submodules to be got
        found = None
    if found is None:
        known = [path for path, _ in module.named_modules(remove_duplicate=False) if path]
        raise UnknownLayerError(f"the model has no layer {call.path!r}: {nearest(call.path, known)}")
    return found


def first_name(module: nn.Module, call: Call) -> Call:
    """Return the call under the first of the names that its module stands under."""
    layer = find(module, call)
    return Call(next(path for path, other in module.named_modules() if other is layer), call.count)


def main_leaf(leaves: Sequence[Any]) -> int:
    """Return which leaf of a layer's output carries the maps: the first floating tensor of three or more axes."""
    for index, leaf in enumerate(leaves):
        if isinstance(leaf, Tensor) and leaf.is_floating_point() and leaf.ndim >= 3:
            return index
    raise LayerError("it returns no floating tensor of three or more axes")


def _main(output: Any) -> tuple[Tensor, Callable[[Tensor], Any]]:  # noqa: ANN401  (layers return anything)
    """Return the tensor that carries the maps in what a layer returned, and how to put another in its place."""
    leaves, structure = tree_flatten(output)
    at = main_leaf(leaves)
    return leaves[at], lambda tensor: tree_unflatten([*leaves[:at], tensor, *leaves[at + 1 :]], structure)


@contextmanager
def _hooked(
    modules: Sequence[nn.Module],
    act: Callable[[nn.Module, int, Any], Any],
) -> Iterator[None]:
    """Call ``act(module, number of the call, output)`` after each call; what it returns replaces the output."""
    owner = threading.get_ident()
    calls: Counter[nn.Module] = Counter()

    def hook(module: nn.Module, args: Any, output: Any) -> Any:  # noqa: ANN401
        if threading.get_ident() != owner:
            return None
        calls[module] += 1
        return act(module, calls[module] - 1, output)

    with ExitStack() as stack:
        for module in dict.fromkeys(modules):
            if isinstance(module, torch.jit.ScriptModule):
                raise LayerError("a script module has no layers to look into: explain the module it was made from")
            stack.callback(module.register_forward_hook(hook).remove)
        yield


def _own(tensor: Tensor) -> Tensor:
    """Return a copy that is cut off the graph and that no in-place operation elsewhere can reach."""
    return tensor.detach().clone()


@contextmanager
def recorded(module: nn.Module, layers: Sequence[str], *, gradients: bool) -> Iterator[dict[str, Tensor]]:
    """Fill a dict with what each layer returns in the run inside the block, in the order in which they ran.

    With ``gradients`` the first layer's output becomes a leaf and the graph begins there: the trunk before it costs
    no more than without gradients. The values are the layer's own, also where the next operation works in place: the
    model goes on with a copy.

    Raises
    ------
    LayerError
        A layer does not exist, returned no tensor with maps, or, at the end of the block, never ran.
    """
    calls = {name: Call.parse(name) for name in layers}
    modules = {name: find(module, call) for name, call in calls.items()}
    wanted: dict[tuple[nn.Module, int], list[str]] = {}
    for name, call in calls.items():
        # A module that stands under two names is one layer.
        wanted.setdefault((modules[name], call.count), []).append(name)
    kept: dict[str, Tensor] = {}

    def keep(layer: nn.Module, count: int, output: Any) -> Any:  # noqa: ANN401
        names = wanted.get((layer, count))
        if names is None:
            return None
        try:
            tensor, put_back = _main(output)
        except LayerError as error:
            raise LayerError(f"layer {names[0]!r} has no map: {error}") from None
        if not gradients:
            kept.update(dict.fromkeys(names, _own(tensor)))
            return None
        torch.set_grad_enabled(True)
        own = tensor.clone() if tensor.requires_grad else _own(tensor).requires_grad_()
        kept.update(dict.fromkeys(names, own))
        return put_back(own.clone())

    with torch.set_grad_enabled(torch.is_grad_enabled()), _hooked(list(modules.values()), keep):
        yield kept
    for name in layers:
        if name not in kept:
            raise LayerError(f"layer {name!r} never ran for this input: choose one that `whence layers` lists")


@contextmanager
def replaced(module: nn.Module, layer: str, make: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Let ``layer`` return ``make(its output)`` in the runs inside the block.

    Raises
    ------
    LayerError
        The layer does not exist, returned no tensor with maps, or one of another shape than what is to replace it.
    """
    call = Call.parse(layer)
    target = find(module, call)

    def put(layer_: nn.Module, count: int, output: Any) -> Any:  # noqa: ANN401
        if count != call.count:
            return None
        tensor, put_back = _main(output)
        new = make(tensor)
        if new.shape != tensor.shape:
            raise LayerError(f"layer {layer!r} returns {list(tensor.shape)}, not {list(new.shape)}")
        return put_back(new)

    with _hooked([target], put):
        yield


class _Ended(BaseException):
    """Ends a run in its middle; no model's own handler may catch it."""


@contextmanager
def ended_at(module: nn.Module, layer: str) -> Iterator[list[Tensor]]:
    """End the run inside the block, and the block, once ``layer`` has returned; the list then holds what it returned.

    What comes after the layer is not run.

    Raises
    ------
    LayerError
        The layer does not exist, returned no tensor with maps, or, at the end of the block, never ran.
    """
    call = Call.parse(layer)
    kept: list[Tensor] = []

    def end(_: nn.Module, count: int, output: Any) -> None:  # noqa: ANN401
        if count != call.count:
            return
        try:
            kept.append(_main(output)[0])
        except LayerError as error:
            raise LayerError(f"layer {layer!r} has no map: {error}") from None
        raise _Ended

    try:
        with _hooked([find(module, call)], end):
            yield kept
    except _Ended:
        return
    raise LayerError(f"layer {layer!r} never ran for this input: choose one that `whence layers` lists")


@contextmanager
def passed_through(
    module: nn.Module, layers: Sequence[str] | None, through: Callable[[str, Tensor], Tensor]
) -> Iterator[None]:
    """Let each layer, or every call of every layer, return ``through(its name, its output)`` in the block's runs.

    Raises
    ------
    LayerError
        A layer does not exist, or returned no tensor with maps, or, at the end of the block, never ran.
    """
    names = {layer: path for path, layer in module.named_modules() if path}
    wanted = {first_name(module, Call.parse(name)): name for name in layers or ()}
    ran: set[str] = set()

    def put(layer: nn.Module, count: int, output: Any) -> Any:  # noqa: ANN401
        call = Call(names[layer], count)
        if layers is not None and call not in wanted:
            return None
        name = wanted.get(call, str(call))
        leaves, structure = tree_flatten(output)
        floats = [i for i, leaf in enumerate(leaves) if isinstance(leaf, Tensor) and leaf.is_floating_point()]
        if not floats:
            return None
        ran.add(name)
        leaves[floats[0]] = through(name, leaves[floats[0]])
        return tree_unflatten(leaves, structure)

    with _hooked(list(names), put):
        yield
    for name in layers or ():
        if name not in ran:
            raise LayerError(f"layer {name!r} never ran for this input: choose one that `whence layers` lists")


class Seen(NamedTuple):
    """What one call returned: whether a bare tensor, and the autograd node that made it."""

    call: Call
    module: nn.Module
    tensor: Tensor
    bare: bool
    node: Any


@contextmanager
def watched(module: nn.Module) -> Iterator[list[Seen]]:
    """Fill a list with what every module returns in the run inside the block, and change nothing."""
    names = {layer: path for path, layer in module.named_modules()}
    seen: list[Seen] = []

    def look(layer: nn.Module, count: int, output: Any) -> None:  # noqa: ANN401
        try:
            tensor = _main(output)[0]
        except LayerError:
            return
        bare = isinstance(output, Tensor)
        seen.append(Seen(Call(names[layer], count), layer, tensor, bare, tensor.grad_fn))

    with _hooked([layer for path, layer in module.named_modules() if path], look):
        yield seen


Forward = Callable[..., Any]


@contextmanager
def forwards(module: nn.Module, wrap: Callable[[str, Forward], Forward]) -> Iterator[None]:
    """Put ``wrap(path, the layer's forward)`` in the place of every submodule's forward, for this thread alone.

    Raises
    ------
    LayerError
        The model is compiled as a script and cannot be patched.
    """
    owner = threading.get_ident()

    def guarded(original: Forward, other: Forward) -> Forward:
        return lambda *args, **kwargs: (other if threading.get_ident() == owner else original)(*args, **kwargs)

    with ExitStack() as stack:
        for path, layer in module.named_modules():
            if isinstance(layer, torch.jit.ScriptModule):
                raise LayerError("a script module cannot be run from the middle")
            if layer is module:
                continue
            before: Mapping[str, Any] = layer.__dict__
            original, own = layer.forward, "forward" in before
            layer.__dict__["forward"] = guarded(original, wrap(path, original))
            if own:
                stack.callback(layer.__dict__.__setitem__, "forward", original)
            else:
                stack.callback(layer.__dict__.__delitem__, "forward")
        yield
