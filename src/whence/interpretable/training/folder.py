"""A training as a folder: checkpoints while it runs, model folders and the course when it is done."""

import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from torch import nn

from whence.errors import OutputError
from whence.interpretable.labelled import Labelled, Progress
from whence.interpretable.training.recipe import Recipe
from whence.interpretable.training.starting import Start
from whence.interpretable.training.train import Trained, train
from whence.models.load import load_model
from whence.models.masked import ranks
from whence.models.writing import stated, write
from whence.pictures.preprocess import Preprocessing

_CHECKPOINTS, COURSE = "checkpoints", "training.json"
# Of the file that tells the course.
SCHEMA = 1


@dataclass(frozen=True)
class Data:
    """What is trained on: the pictures, their name for people, how they are prepared, and which were left out.

    ``share`` is the share of a folder's pictures that are held out, by the plan's seed; None where they were drawn.
    ``category`` is the one category of the single-category mode, where a net has one logit.
    """

    name: str
    train: Labelled
    held_out: Labelled
    preprocess: Preprocessing | None
    skipped: Sequence[str] = ()
    category: str | None = None
    share: float | None = None

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels of a net's logits."""
        return self.train.classes if self.category is None else (self.category,)


def check(out: Path) -> None:
    """Refuse a folder that holds something else than a training that can go on.

    Raises
    ------
    OutputError
        It does, or is a file.
    """
    if out.exists() and not out.is_dir():
        raise OutputError(f"{out} is a file: choose a new folder")
    if (out / COURSE).is_file() and not is_begun(out):
        raise OutputError(f"{out} holds a training that is finished: choose a new folder, or remove it first")
    if out.is_dir() and any(out.iterdir()) and not is_begun(out):
        raise OutputError(f"{out} is there already and holds no training to go on with: choose a new folder")


def is_begun(out: Path) -> bool:
    """Return whether a folder holds a training that can go on."""
    return (out / _CHECKPOINTS).is_dir()


def train_into(
    out: Path, start: Start, data: Data, recipe: Recipe, *, half: bool = False, progress: Progress | None = None
) -> dict[str, Any]:
    """Train, and write ``out`` as a model folder, with ``plain/``, ``control/`` and ``training.json`` inside.

    While it runs ``out`` holds ``checkpoints/``: run again with the same arguments it goes on from there.

    Parameters
    ----------
    start
        A model with as many logits as the data has labels.
    half
        Keep the weights in half precision.

    Returns
    -------
    dict
        What stands in ``training.json``.

    Raises
    ------
    OutputError
        ``out`` holds something else, or a training with other settings.
    WhenceError
        As ``train``.
    """
    check(out)
    if data.preprocess is not None:
        stated(data.preprocess)  # refused now rather than when all is trained
    began = time.perf_counter()
    found = train(
        start.classifier.module,
        data.train,
        data.held_out,
        recipe,
        checkpoints=out / _CHECKPOINTS,
        progress=progress,
    )
    said = _said(found, start, data, recipe, time.perf_counter() - began)
    if ranks.first():
        for name, net in found.nets.items():
            ours = name == "interpretable"
            _write(*((out, out.name) if ours else (out / name, f"{out.name}, {name}")), net, start, data, half)
            # What cannot be read back is no result, and its checkpoints are kept.
            load_model(out if ours else out / name, trust=True)
        (out / COURSE).write_text(json.dumps(said, indent=1) + "\n", encoding="utf-8")
        shutil.rmtree(out / _CHECKPOINTS)
    return said


def _write(folder: Path, name: str, net: nn.Module, start: Start, data: Data, half: bool) -> None:
    folder.mkdir(exist_ok=True)
    write(
        folder,
        net,
        start.origin,
        name=name,
        labels=data.labels,
        preprocess=data.preprocess,
        activation="softmax" if data.category is None else "sigmoid",
        half=half,
    )


def _said(found: Trained, start: Start, data: Data, recipe: Recipe, seconds: float) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "whence": version("whence"),
        "model": start.classifier.spec,
        "new": list(start.new),
        "layer": found.interpretable.form.layer,
        "recipe": recipe.settings(),
        "data": {
            "name": data.name,
            "pictures": len(data.train),
            "held_out": len(data.held_out),
            "share": data.share,
            "classes": list(data.train.classes),
            "skipped": list(data.skipped),
        },
        "course": found.course,
        "accuracy": dict(found.accuracy),
        "seconds": seconds,
    }
