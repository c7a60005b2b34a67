"""What was asked of ``load_model``, and the steps that every source takes alike."""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import nn

from whence.errors import ModelError, TrustError, WhenceError
from whence.models.random import draw, undisturbed
from whence.models.weights import load_weights

RANDOM = "random"
# Options of constructors that read a file or fetch one by themselves.
_LOADING = ("pretrained", "checkpoint", "weights", "cache_dir", "hf_")
Shape = tuple[int, int, int]
T = TypeVar("T")


@dataclass(frozen=True)
class Request:
    """The arguments of ``load_model``."""

    spec: str
    weights: str | os.PathLike[str] | None = None
    device: str | torch.device = "cpu"
    trust: bool = False
    seed: int = 0
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def asked(self) -> str:
        """What was asked for, as errors name it."""
        options = ", ".join(f"{name}={value!r}" for name, value in self.options.items())
        return repr(self.spec) + (f" with {options}" if options else "")


def said(error: BaseException, limit: int = 200) -> str:
    """Return an error of another library in one line."""
    text = f"{type(error).__name__}: {' '.join(str(error).split())}"
    return text if len(text) <= limit else f"{text[:limit]}..."


def refuse_loading(options: Mapping[str, Any], where: str) -> None:
    """Refuse constructor options of a stranger's file that load or fetch something by themselves.

    Raises
    ------
    TrustError
        Naming the option: what they load may be a pickle, and may lie anywhere.
    """
    loading = [name for name in options if name.startswith(_LOADING)]
    if loading:
        raise TrustError(f"{where}: the option {loading[0]!r} loads files by itself, state weights = FILE instead")


@contextmanager
def fetching(request: Request) -> Iterator[None]:
    """Turn whatever a library raises while it fetches published weights into a ModelError with the cure."""
    try:
        yield
    except WhenceError:
        raise
    except Exception as error:  # urllib, httpx, the hub and the file system have no base class in common
        raise ModelError(
            f"{request.asked}: its published weights cannot be downloaded or read ({said(error)}), check the "
            f'connection, or give weights=FILE, or weights="{RANDOM}" for an untrained model'
        ) from error


def constructed(construct: Callable[..., T], request: Request) -> T:
    """Call a constructor with the request's options; the global generator is left as it was.

    Raises
    ------
    ModelError
        The constructor refuses its options.
    """
    try:
        with undisturbed(request.seed):
            return construct(**request.options)
    except WhenceError:
        raise
    except Exception as error:  # constructors raise what they like: TypeError, AssertionError, KeyError, ...
        raise ModelError(
            f"{request.asked}: its constructor failed ({said(error)}), give options that it takes"
        ) from error


def filled(module: nn.Module, request: Request, shape: Shape | None) -> nn.Module:
    """Draw the weights, or load them from a file, where the request says so; return the module ready for use."""
    if request.weights == RANDOM:
        with undisturbed(request.seed):
            draw(module, request.seed, shape)
    elif request.weights is not None:
        load_weights(module, request.weights, trust=request.trust, asked=request.asked)
    return ready(module, request)


def ready(module: nn.Module, request: Request) -> nn.Module:
    """Return the module in evaluation mode on the request's device.

    Raises
    ------
    ModelError
        There is no such device.
    """
    try:
        return module.train(False).to(request.device)
    except (RuntimeError, AssertionError) as error:
        raise ModelError(
            f"{request.asked}: device {str(request.device)!r} cannot be used ({said(error)}), give device='cpu'"
        ) from error
