"""Checkpoints: a file that is whole or not there, from which a training goes on as if nothing had happened."""

import hashlib
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from whence.errors import ModelError, OutputError
from whence.interpretable.labelled import Chosen, Labelled, PictureFolder
from whence.models.weights import read_checkpoint

_PARTS = {"settings", "step", "course", "running"}


@dataclass
class Checkpoint:
    """The file of one training, and when it was written last.

    ``settings`` say which training it is of; a kill costs ``every`` seconds of work at most, or one step.
    """

    path: Path
    settings: Mapping[str, Any]
    every: float = 60.0
    written: float = 0.0

    def read(self) -> dict[str, Any] | None:
        """Return what was written last, None where nothing was.

        Raises
        ------
        OutputError
            The file belongs to a training with other settings.
        ModelError
            It is damaged.
        """
        self.written = time.monotonic()
        if not self.path.exists():
            return None
        state = read_checkpoint(self.path)
        if not isinstance(state, dict) or set(state) != _PARTS:
            raise ModelError(f"{self.path} is no checkpoint of a training: remove it to begin anew")
        found = state.pop("settings")
        other = [name for name in {**found, **self.settings} if found.get(name) != self.settings.get(name)]
        if other:
            name = sorted(other)[0]
            raise OutputError(
                f"{self.path.parent} holds a training with other settings ({name} was {found.get(name)!r}, and is "
                f"{self.settings.get(name)!r}): give the same settings to go on with it, or another folder"
            )
        return state

    def due(self) -> bool:
        """Return whether it is time to write again."""
        return time.monotonic() - self.written > self.every

    def write(self, state: Mapping[str, Any]) -> None:
        """Put the state in the place of what was written before."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        draft = self.path.with_suffix(".draft")
        torch.save({**state, "settings": dict(self.settings)}, draft)
        os.replace(draft, self.path)
        self.written = time.monotonic()


def fingerprint(data: Labelled) -> str:
    """Return what tells one set of pictures from another: the start of a SHA-256 of pictures and classes."""
    digest = hashlib.sha256(repr((data.classes, data.labels.tolist())).encode())
    # The same files are other inputs to another preprocessing.
    digest.update(_bytes(data[0][0]))
    for row in range(len(data)):
        digest.update(hashlib.sha256(_content(data, row)).digest())
    return digest.hexdigest()[:16]


def _content(data: Labelled, row: int) -> bytes:
    """Return what tells a picture from another: the bytes of its file, which cost less than reading it."""
    if isinstance(data, Chosen):
        return _content(data.data, int(data.rows[row]))
    if isinstance(data, PictureFolder):
        return data.files[row].read_bytes()
    return _bytes(data[row][0])


def _bytes(x: torch.Tensor) -> bytes:
    return x.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
