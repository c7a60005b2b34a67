"""``PATH/TO/FILE.py:FUNCTION``: a function of the user's own that builds a model."""

import hashlib
import sys
from collections.abc import Callable
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from whence.errors import ModelError, TrustError, WhenceError, nearest
from whence.models.classifier import Classifier
from whence.models.sources.request import Request, Shape, constructed, filled, said


def module(path: Path, function: str, request: Request, shape: Shape | None) -> nn.Module:
    """Call the function for a module, and fill it."""
    made = _made(path, function, request)
    return filled(made.module if isinstance(made, Classifier) else made, request, shape)


def classifier(path: Path, function: str, request: Request) -> Classifier:
    """Call the function for a module or a Classifier.

    Raises
    ------
    TrustError
        Trust was not given; nothing of the file was run.
    ModelError
        The file or the function is absent, fails, or returns something else.
    """
    made = _made(path, function, request)
    if not isinstance(made, Classifier):
        return Classifier(filled(made, request, None), name=function, spec=request.spec)
    filled(made.module, request, made.input)
    made.check_weights()
    return made


def _made(path: Path, function: str, request: Request) -> nn.Module | Classifier:
    made = constructed(_function(path, function, request), request)
    if isinstance(made, nn.Module | Classifier):
        return made
    raise ModelError(
        f"{request.asked}: {function} returned {type(made).__name__}, "
        "let it return a torch.nn.Module or a whence.Classifier"
    )


def _function(path: Path, function: str, request: Request) -> Callable[..., Any]:
    if not path.is_file():
        raise ModelError(f"{request.asked}: there is no file {str(path)!r}, give the path of a Python file")
    if not request.trust:
        raise TrustError(
            f"{request.asked} runs the Python code of {str(path)!r}: "
            "give trust=True (--trust) if you know who wrote it"
        )
    code = _run(path, request)
    found: Callable[..., Any] | None = getattr(code, function, None)
    if not callable(found):
        names = [name for name, value in vars(code).items() if callable(value) and not name.startswith("_")]
        raise ModelError(f"{request.asked}: {path.name} has no function {function!r}, {nearest(function, names)}")
    return found


def _run(path: Path, request: Request) -> ModuleType:
    """Run a file as a module under a name that nothing else has; dataclasses look their module up by it."""
    name = f"whence_model_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:16]}"
    spec = spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ModelError(f"{request.asked}: {str(path)!r} is no Python file, give one that ends in .py")
    code = module_from_spec(spec)
    sys.modules[name] = code
    try:
        spec.loader.exec_module(code)
    except WhenceError:
        raise
    except Exception as error:  # whatever a stranger's file raises
        del sys.modules[name]
        raise ModelError(f"{request.asked}: {path.name} failed ({said(error)}), mend the file") from error
    return code
