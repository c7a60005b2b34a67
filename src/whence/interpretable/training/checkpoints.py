"""Checkpoints: a file that is whole or not there, from which a training goes on as if nothing had happened."""

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from whence.errors import OutputError
from whence.models.weights import read_checkpoint

# So many seconds of work a kill may cost, beside what stands in an epoch's checkpoint.
_EVERY = 60.0


@dataclass
class Checkpoint:
    """The file of one training, and when it was written last; ``settings`` say which training it is of."""

    path: Path
    settings: Mapping[str, Any]
    written: float = 0.0

    def read(self) -> dict[str, Any] | None:
        """Return what was written last, None where nothing was.

        Raises
        ------
        OutputError
            The file belongs to a training with other settings.
        """
        self.written = time.monotonic()
        if not self.path.exists():
            return None
        state = read_checkpoint(self.path)
        found = state.pop("settings")
        other = [name for name in {**found, **self.settings} if found.get(name) != self.settings.get(name)]
        if other:
            name = sorted(other)[0]
            raise OutputError(
                f"{self.path.parent.parent} holds a training with other settings ({name} was {found.get(name)}, and "
                f"is {self.settings.get(name)}): give the same settings to go on with it, or another folder"
            )
        return state

    def due(self) -> bool:
        """Return whether it is time to write again."""
        return time.monotonic() - self.written > _EVERY

    def write(self, state: Mapping[str, Any]) -> None:
        """Put the state in the place of what was written before."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        draft = self.path.with_suffix(".draft")
        torch.save({**state, "settings": dict(self.settings)}, draft)
        os.replace(draft, self.path)
        self.written = time.monotonic()
