"""What each operation of torch does with relevance, one file a kind; ``handles`` adds to them from outside."""

from collections.abc import Callable
from importlib import import_module
from pkgutil import iter_modules
from types import FunctionType
from typing import Any, NamedTuple, TypeVar

from whence.models.operations import Function, named

F = TypeVar("F", bound=Callable[..., Any])


class Handler(NamedTuple):
    """What runs, as ``run(propagation, function, *args, **kwargs)``, where the model calls ``function``.

    It returns what the function returns. Where it ``carries``, it looks after tensors that carry relevance itself;
    where it ``expands``, it calls what it is made of with the mode on again.
    """

    run: Callable[..., Any]
    carries: bool = False
    expands: bool = False


_TABLE: dict[Function, Handler] = {}


def primitives(*names: str) -> tuple[Function, ...]:
    """Return the functions of torch of these names that are not made of others in Python."""
    return tuple(function for function in named(*names) if not isinstance(function, FunctionType))


def handles(*functions: Function, carries: bool = False, expands: bool = False) -> Callable[[F], F]:
    """Return a decorator that enters a handler for functions, of torch or of your own.

    A function of your own is seen where it asks ``torch.overrides`` whether it is intercepted, as those decorated
    with ``torch.overrides.wrap_torch_function`` do. What the handler returns is differentiated as usual: its inputs'
    relevance is value times gradient, so that whatever is to get none is to be detached.
    """

    def enter(run: F) -> F:
        _TABLE.update(dict.fromkeys(functions, Handler(run, carries, expands)))
        return run

    return enter


def table() -> dict[Function, Handler]:
    """Return the handlers of all functions."""
    for module in iter_modules(__path__, __name__ + "."):
        import_module(module.name)
    return _TABLE
