"""What keeps a model as it is while it is used: lock, eval mode, exact precision, random state; all put back."""

import copy
import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

import torch
from torch import Generator, Tensor, nn

from whence.models.classifier import Classifier
from whence.models.parts import Parts

# One lock a module, shared by all classifiers around it.
_LOCKS: WeakKeyDictionary[nn.Module, threading.RLock] = WeakKeyDictionary()
_LOCKS_GUARD = threading.Lock()


def _exact(device: str) -> AbstractContextManager[object]:
    """Return what keeps an autocast of the user's away: a classifier's precision is its own."""
    return torch.autocast(device, enabled=False) if torch.is_autocast_enabled(device) else nullcontext()


def _lock(module: nn.Module) -> threading.RLock:
    with _LOCKS_GUARD:
        return _LOCKS.setdefault(module, threading.RLock())


@contextmanager
def _eval_mode(modules: Sequence[nn.Module]) -> Iterator[None]:
    """Clear the training flag of every module, and set it again where it was set."""
    training = [layer for layer in modules if layer.training]
    for layer in training:
        layer.training = False
    try:
        yield
    finally:
        for layer in training:
            layer.training = True


@dataclass
class _Borrowed:
    """The user's generators' states while sessions run: the first one saves them, the last one gives them back."""

    users: int = 0
    states: dict[Generator, Tensor] = field(default_factory=dict)


_BORROWED = _Borrowed()


def _generators(like: Tensor) -> list[Generator]:
    cuda = [torch.cuda.default_generators[like.device.index]] if like.is_cuda else []
    return [torch.default_generator, *cuda]


@contextmanager
def _random_state(like: Tensor, seed: int) -> Iterator[None]:
    """Give a model that draws numbers the same ones each time, and the user's generators back untouched.

    Generators belong to the whole process. A model that draws numbers while another one is explained in a second
    thread shares them with it.
    """
    generators = _generators(like)
    with _LOCKS_GUARD:
        _BORROWED.users += 1
        for generator in generators:
            _BORROWED.states.setdefault(generator, generator.get_state())
            generator.manual_seed(seed)
    try:
        yield
    finally:
        with _LOCKS_GUARD:
            _BORROWED.users -= 1
            if _BORROWED.users == 0:
                for generator, state in _BORROWED.states.items():
                    generator.set_state(state)
                _BORROWED.states.clear()


def _usable(module: nn.Module, parts: Parts) -> tuple[nn.Module, Parts]:
    """Return the module, or a copy where its weights were made in inference mode and can record no gradient."""
    if not any(map(Tensor.is_inference, parts.tensors)):
        return module, parts
    module = copy.deepcopy(module)
    return module, Parts.of(module)


@contextmanager
def guarded(classifier: Classifier, seed: int) -> Iterator[nn.Module]:
    """Give the module to be used, and put back everything of the model when the block ends, however it ends.

    Raises
    ------
    NotFiniteError
        A parameter has changed and holds NaN or infinity.
    """
    like = classifier.like
    with ExitStack() as stack:
        stack.enter_context(_lock(classifier.module))
        parts = classifier.check_weights()
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.no_grad())
        stack.enter_context(_exact(like.device.type))
        module, parts = _usable(classifier.module, parts)
        stack.enter_context(_eval_mode(parts.modules))
        stack.enter_context(_random_state(like, seed))
        yield module
