"""Weights from files into modules; the only place that reads safetensors and pickles."""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from whence.errors import ModelError, TrustError

State = dict[str, Tensor]

_PICKLES = (".pt", ".pth", ".bin", ".ckpt")
# What training scripts wrap a state dict in, and what parallel and compiled modules put before every name.
_CONTAINERS = ("state_dict", "model_state_dict", "model")
_PREFIXES = ("module.", "_orig_mod.")
# Checkpoints older than this counter load without it.
_COUNTER = "num_batches_tracked"
# The published DenseNets still carry names that a module can no longer have: norm.1 for norm1.
_DENSE_LAYER = re.compile(r"(\.denselayer\d+\.(?:norm|relu|conv))\.([12])\.")


def load_weights(module: nn.Module, path: str | os.PathLike[str], *, trust: bool, asked: str) -> None:
    """Load a file of weights into a module, which keeps its own float type.

    Raises
    ------
    ModelError
        The file is absent or damaged, or does not fit the module.
    TrustError
        The file is a pickle, and trust was not given.
    """
    fit(module, read_weights(path, trust=trust), asked=asked, source=str(path))


def read_weights(path: str | os.PathLike[str], *, trust: bool) -> State:
    """Read a file of weights: safetensors, or a pickle where it is trusted.

    Raises
    ------
    ModelError
        The file is absent, damaged, or holds no weights.
    TrustError
        The file is a pickle, and trust was not given.
    """
    path = Path(path)
    if not path.is_file():
        raise ModelError(f"weights={str(path)!r}: there is no such file, give the path of a .safetensors file")
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    if path.suffix not in _PICKLES:
        raise ModelError(
            f"weights={str(path)!r}: the kind of file is not known, give .safetensors, or {', '.join(_PICKLES)}"
        )
    if not trust:
        raise TrustError(
            f"weights={str(path)!r} is a pickle, which can run any code when it is read: "
            "convert it to .safetensors, or give trust=True (--trust) if you know who made it"
        )
    return _tensors(_unwrapped(_read_pickle(path)), path)


def _damaged(path: Path, error: Exception) -> ModelError:
    return ModelError(f"weights={str(path)!r} is damaged or cut short ({error}): get the file again")


def _read_safetensors(path: Path) -> State:
    try:
        return dict(load_file(path))
    except (SafetensorError, ValueError, KeyError, OSError) as error:
        raise _damaged(path, error) from error


def _read_pickle(path: Path) -> object:
    """Read a trusted pickle; what holds weights alone is still read without running its code."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # a damaged file and a file with other classes fail alike: the second reading tells them apart
        pass
    try:
        return torch.load(path, map_location="cpu", weights_only=False)
    except Exception as error:  # unpickling raises whatever the pickled classes raise
        raise _damaged(path, error) from error


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint of a training: tensors, numbers and texts alone, so that no code of its runs.

    Raises
    ------
    ModelError
        The file is damaged.
    """
    try:
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file fails in many ways
        raise ModelError(f"{path} is damaged, or no checkpoint: remove it to begin anew") from error
    return content


def _unwrapped(content: object) -> object:
    """Return the state dict inside the usual containers, its names without the usual prefixes."""
    if isinstance(content, nn.Module):
        return _unwrapped(content.state_dict())
    if not isinstance(content, Mapping):
        return content
    for key in _CONTAINERS:
        if isinstance(content.get(key), Mapping | nn.Module):
            return _unwrapped(content[key])
    for prefix in _PREFIXES:
        if content and all(str(name).startswith(prefix) for name in content):
            return _unwrapped({str(name).removeprefix(prefix): value for name, value in content.items()})
    return content


def _tensors(content: object, path: Path) -> State:
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise ModelError(
            f"weights={str(path)!r} holds {type(content).__name__} where a dict from names to tensors is expected: "
            "save module.state_dict()"
        )
    return {str(name): value for name, value in content.items()}


def fit(module: nn.Module, state: Mapping[str, Tensor], *, asked: str, source: str) -> None:
    """Load a state dict into a module; every name and every shape must fit.

    Raises
    ------
    ModelError
        Naming the first keys that are missing, unexpected or of another shape.
    """
    own: dict[str, Any] = module.state_dict()
    given = {_DENSE_LAYER.sub(r"\1\2.", name): value for name, value in state.items()}
    check_fit(
        missing=[name for name in own if name not in given and not name.endswith(_COUNTER)],
        unexpected=[name for name in given if name not in own],
        misshaped=[
            f"{name} {list(given[name].shape)} for {list(own[name].shape)}"
            for name in own
            if name in given and own[name].shape != given[name].shape
        ],
        asked=asked,
        source=source,
    )
    module.load_state_dict(given, strict=False)


def check_fit(
    *, missing: Sequence[str], unexpected: Sequence[str], misshaped: Sequence[str], asked: str, source: str
) -> None:
    """Refuse weights that leave a part of the module unfilled, or that hold more than it takes.

    Raises
    ------
    ModelError
        Naming the first keys of each kind.
    """
    kinds = {"missing": missing, "unexpected": unexpected, "misshaped": misshaped}
    faults = [f"{len(keys)} {kind} ({_first(keys)})" for kind, keys in kinds.items() if keys]
    if faults:
        raise ModelError(
            f"weights={source!r} do not fit {asked}: {', '.join(faults)}; "
            "give the weights of this architecture, or the options that it was trained with"
        )


def _first(keys: Sequence[str], count: int = 3) -> str:
    return ", ".join([*keys[:count], *(["..."] if len(keys) > count else [])])
