"""Optional libraries, imported only where they are used."""

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any

from whence.errors import MissingExtraError


def library(name: str, asked: str) -> Any:  # noqa: ANN401  (a module of a library without types)
    """Return an optional library's module.

    Raises
    ------
    MissingExtraError
        It is not installed, or torch and torchvision do not fit together.
    """
    # timm and transformers import torchvision themselves, and bury its error under their own.
    if not name.startswith("torchvision") and find_spec("torchvision"):
        library("torchvision", asked)
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        extra = name.partition(".")[0]
        missing = (error.name or extra).partition(".")[0]
        raise MissingExtraError(f"{missing} is needed for {asked}: pip install 'whence[{extra}]'") from error
    except (ImportError, RuntimeError, OSError, AttributeError) as error:
        raise _misfit(name.partition(".")[0], asked, error) from error


def _misfit(name: str, asked: str, error: Exception) -> MissingExtraError:
    """Return the error for a library that is there and cannot be imported: nearly always a pair that does not fit."""
    fault = str(error).partition("\n")[0]
    together = " ".join(dict.fromkeys(("torch", "torchvision", name)))
    return MissingExtraError(
        f"{name} {_version(name)} does not fit torch {_version('torch')} ({fault}), and {asked} needs both: "
        f"install versions that fit from one index, pip install --upgrade {together}"
    )


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "(unknown version)"
