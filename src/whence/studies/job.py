"""A job: all that decides the rows of a study, frozen and hashed."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from whence.errors import ModelError, OutputError, PictureError
from whence.models.classifier import Classifier, Precision
from whence.models.load import load_model
from whence.pictures.read import Picture, read

FILE = "job.json"
SCHEMA = 1

MapType = Literal["float32", "float16", "none"]


@dataclass(frozen=True)
class PictureEntry:
    """A picture of the folder: its name in it, the hash of its bytes, and its true class where that is known."""

    name: str
    sha256: str
    truth: str | None = None

    def read(self, root: Path, bits: int | None) -> Picture:
        """Return the picture, read from its file again.

        Raises
        ------
        PictureError
            Its file is gone, or is another than when the study began.
        """
        picture = read(root / self.name, bits=bits)
        if picture.sha256 != self.sha256:
            raise PictureError(f"{self.name!r} is another picture than when the study began: put that one back")
        return picture


@dataclass(frozen=True)
class ModelEntry:
    """A model, and how it is loaded again: ``input`` is [C, H, W], ``weights`` as for ``load_model``."""

    name: str
    spec: str
    weights: str | None
    fingerprint: str
    preprocessing: str
    activation: str
    precision: Precision
    input: tuple[int, int, int]
    labels: tuple[str, ...] | None

    def load(self, *, device: str, trust: bool, seed: int) -> Classifier:
        """Return the model.

        Raises
        ------
        ModelError
            It is another than the one that the job was planned with.
        """
        made = load_model(self.spec, weights=self.weights, device=device, trust=trust, seed=seed)
        made.name, made.precision = self.name, self.precision
        there = (made.fingerprint, made.preprocessing, made.scale.activation, made.labels)
        if there != (self.fingerprint, self.preprocessing, self.activation, self.labels):
            raise ModelError(
                f"{self.spec} is another model than the study began with: put the weights back, or begin a new study"
            )
        return made


@dataclass(frozen=True)
class Cell:
    """What is asked of one model: a method as it was asked for, and with the layer that it explains."""

    model: int
    method: str
    request: str


@dataclass(frozen=True)
class Job:
    """All that decides the rows of a study, and where its pictures are.

    Attributes
    ----------
    root
        The folder of the pictures; outside the fingerprint, as ``trust`` is.
    pictures, models, cells, metrics
        What is explained, by what, and how the maps are measured. The rows of a picture are its cells.
    judges
        Whether every map is measured on the other models too.
    target
        As for ``whence explain``, or ``truth``: each picture's true class.
    seed, bits, device
        As for ``whence explain``; of the device its kind alone.
    batch, shard, threads
        How many pictures go through a model together, stand in one file, and threads a worker has.
    maps
        In which type maps are kept.
    versions
        Of the libraries that the numbers depend on.
    """

    root: Path
    pictures: tuple[PictureEntry, ...]
    models: tuple[ModelEntry, ...]
    cells: tuple[Cell, ...]
    metrics: tuple[str, ...]
    judges: bool
    target: str | None
    seed: int
    bits: int | None
    device: str
    batch: int
    shard: int
    threads: int
    maps: MapType
    versions: Mapping[str, str]
    trust: bool = False

    @property
    def methods(self) -> tuple[str, ...]:
        """The methods as they were asked for."""
        return tuple(dict.fromkeys(cell.method for cell in self.cells))

    @property
    def shards(self) -> range:
        """The numbers of the shards."""
        return range(-(-len(self.pictures) // self.shard))

    def slice(self, shard: int) -> range:
        """Return the numbers of a shard's pictures."""
        return range(len(self.pictures))[shard * self.shard : (shard + 1) * self.shard]

    @cached_property
    def settings(self) -> dict[str, Any]:
        """What decides the rows, as plain values by name."""
        values = asdict(self)
        del values["root"], values["trust"]
        for model in values["models"]:
            # Where a model was found decides nothing; its fingerprint does.
            del model["spec"], model["weights"]
        return values

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the settings, in hex."""
        return hashlib.sha256(json.dumps(self.settings, sort_keys=True).encode()).hexdigest()

    def load_models(self, device: str | None = None) -> list[Classifier]:
        """Return the models, on the job's kind of device or on one that is named."""
        return [entry.load(device=device or self.device, trust=self.trust, seed=self.seed) for entry in self.models]

    def text(self) -> str:
        """Return the job as JSON."""
        values = {"schema": SCHEMA, "fingerprint": self.fingerprint, **asdict(self), "root": str(self.root)}
        return json.dumps(values, indent=1) + "\n"

    @classmethod
    def load(cls, folder: str | Path) -> "Job":
        """Return the job of a study's folder.

        Raises
        ------
        OutputError
            The folder holds none, or one that is damaged or of another version of whence.
        """
        path = Path(folder) / FILE
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            schema, fingerprint = values["schema"], values["fingerprint"]
            job = _read(values) if schema == SCHEMA else None
        except FileNotFoundError:
            raise OutputError(f"{folder} holds no study: name a folder that `whence study run` made") from None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise OutputError(f"{path} cannot be read ({error}): run the study into a new folder") from error
        if job is None:
            raise OutputError(
                f"{path} is of another version of whence (its schema is {schema}, and {SCHEMA} is read "
                "here): run the study into a new folder"
            )
        if job.fingerprint != fingerprint:
            raise OutputError(f"{path} was changed after the study began: run the study into a new folder")
        return job


def _read(values: Mapping[str, Any]) -> Job:
    known = {field.name: values[field.name] for field in fields(Job)}
    models = (
        {**m, "input": tuple(m["input"]), "labels": None if m["labels"] is None else tuple(m["labels"])}
        for m in values["models"]
    )
    made = {
        "root": Path(values["root"]),
        "pictures": tuple(PictureEntry(**one) for one in values["pictures"]),
        "models": tuple(ModelEntry(**one) for one in models),
        "cells": tuple(Cell(**one) for one in values["cells"]),
        "metrics": tuple(values["metrics"]),
    }
    return Job(**{**known, **made})


def difference(asked: Job, made: Job) -> str:
    """Return in words the first thing in which a job is another than the one that a folder holds."""
    for name, value in asked.settings.items():
        before = made.settings[name]
        if value == before:
            continue
        if name == "pictures":
            if [(one["name"], one["sha256"]) for one in before] == [(one["name"], one["sha256"]) for one in value]:
                return "the same pictures with other true classes"
            return f"{len(before)} pictures, not all of which are the {len(value)} asked for"
        if name == "models":
            return f"the models {_names(before, 'name')}, and {_other_models(before, value)} is asked"
        if name == "cells":
            key = "method" if _names(before, "request") == _names(value, "request") else "request"
            return f"{_names(before, key)}, and {_names(value, key)} is asked"
        return f"{name} {before}, and {value} is asked"
    return "nothing else"


def _other_models(before: Sequence[Mapping[str, Any]], value: Sequence[Mapping[str, Any]]) -> str:
    names = _names(value, "name")
    if names != _names(before, "name"):
        return names
    changed = [key for key in value[0] if [one[key] for one in value] != [one[key] for one in before]]
    return f"{names} with other {' and '.join('weights' if key == 'fingerprint' else key for key in changed)}"


def _names(values: Sequence[Mapping[str, Any]], key: str) -> str:
    return " and ".join(dict.fromkeys(str(value[key]) for value in values))
