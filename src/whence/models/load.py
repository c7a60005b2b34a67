"""``load_model``: from a spec to a Classifier."""

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from whence.errors import ModelError, nearest
from whence.models import folder
from whence.models.classifier import Classifier
from whence.models.sources import python_file, timm, torchvision, transformers
from whence.models.sources.request import RANDOM, Request

_LIBRARIES: dict[str, Callable[[str, Request], Classifier]] = {
    "torchvision": torchvision.classifier,
    "timm": timm.classifier,
    "hf": transformers.classifier,
}
PYTHON = re.compile(r"(?P<path>.+\.py):(?P<function>\w+)")
_FORMS = (
    "torchvision:NAME, timm:NAME, hf:NAME_OR_FOLDER, PATH/TO/FILE.py:FUNCTION, "
    "a folder with a model.toml, a .toml file, or a bundled model"
)


def load_model(
    spec: str | os.PathLike[str],
    *,
    weights: str | os.PathLike[str] | None = None,
    device: str | torch.device = "cpu",
    trust: bool = False,
    seed: int = 0,
    **options: Any,  # noqa: ANN401  (what constructors take is not ours to type)
) -> Classifier:
    """Load a classifier, in evaluation mode, in float32, with its preprocessing and labels.

    Parameters
    ----------
    spec
        ``torchvision:NAME``, ``timm:NAME``, ``hf:NAME_OR_FOLDER`` (or ``hf:TYPE`` like ``hf:vit``, for a type's
        default), ``PATH/TO/FILE.py:FUNCTION``, a folder with a ``model.toml``, a ``.toml`` file, or the name of
        a bundled model.
    weights
        None for the weights that the spec comes with (a library fetches them once), a file, the name that
        torchvision gives to published weights, or ``random``: drawn from ``seed``, every part alive.
    device
        Where the module goes.
    trust
        Allow what runs a stranger's code: a Python file, and weights that are a pickle.
    seed
        For ``weights="random"``; the global generator is never touched.
    options
        Keyword arguments of the constructor.

    Raises
    ------
    ModelError
        The spec is unknown, or the model cannot be built, fetched or filled.
    TrustError
        Trust is needed, and was not given.
    MissingExtraError
        The spec's library is not installed, or does not fit torch.
    NotFiniteError
        A parameter holds NaN or infinity.
    """
    if not isinstance(spec, str | os.PathLike):
        raise ModelError(
            f"load_model takes a spec, not {type(spec).__name__}: whence.Classifier takes a module itself"
        )
    text = os.fspath(spec)
    made = _made(text, Request(text, weights, device, trust, seed, options))
    if weights == RANDOM:
        # Whoever is handed the result must see it.
        made.name += f" (random weights, seed {seed})"
    return made


def _made(text: str, request: Request) -> Classifier:
    prefix, _, name = text.partition(":")
    if prefix in _LIBRARIES:
        return _LIBRARIES[prefix](name, request)
    if python := PYTHON.fullmatch(text):
        return python_file.classifier(Path(python["path"]), python["function"], request)
    return folder.classifier(_model_file(text), request)


def _model_file(text: str) -> Path:
    """Return the .toml file that a spec names: that of a bundled model, a folder's, or itself."""
    bundled = folder.bundled()
    path = bundled.get(text, Path(text))
    if path.is_dir():
        return path / folder.FILE
    if path.suffix == ".toml":
        return path
    fault = "is no model file" if path.exists() else "names no model, and no file or folder of that name exists"
    raise ModelError(f"{text!r} {fault}: give {_FORMS}, {nearest(text, bundled)}")
