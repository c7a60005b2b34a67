"""The photos and models outside the repository, as the measured pages use them: $WHENCE_PHOTOS and $WHENCE_MODELS."""

import os
from pathlib import Path

import whence
from whence.models.classifier import Classifier


def outside(variable: str) -> Path:
    """Return the folder that an environment variable names."""
    if variable not in os.environ:
        raise SystemExit(f"set {variable} to the folder: the photos and models lie outside the repository")
    return Path(os.environ[variable])


def photos(count: int) -> list[Path]:
    """Return the first photos by name."""
    return sorted(outside("WHENCE_PHOTOS").glob("*.jpg"))[:count]


def real_model(name: str) -> Classifier:
    """Return one of the models."""
    return whence.load_model(outside("WHENCE_MODELS") / name)
