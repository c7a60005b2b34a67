"""Small folders of pictures and small models for tests of how a job is planned and its rows are made."""

from pathlib import Path

import numpy as np
from PIL import Image
from torch import nn

from small_nets import SmallNet, drawn
from whence.models.classifier import Classifier
from whence.pictures.preprocess import Preprocess
from whence.studies.job import Job
from whence.studies.planning import Given, Settings, planned
from whence.studies.tables import UNSTEADY

LABELS = ("ant", "bee", "cat", "dog", "eel")
SIZES = ((20, 24), (24, 20), (33, 17))


def picture(path: Path, seed: int) -> None:
    """Write a picture that is another for each seed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width = SIZES[seed % len(SIZES)]
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    Image.fromarray(coarse).resize((width, height)).save(path)


def pictures(folder: Path, count: int = 6) -> Path:
    """Write pictures 000.png, 001.png, ... into a folder."""
    for number in range(count):
        picture(folder / f"{number:03d}.png", number)
    return folder


def table(folder: Path, rows: dict[str, str], name: str = "labels.csv", encoding: str = "utf-8") -> Path:
    """Write a table of the true classes."""
    lines = ["file,label", *(f"{file},{label}" for file, label in rows.items())]
    (folder / name).write_text("\n".join(lines) + "\n", encoding=encoding)
    return folder / name


def net(seed: int = 0, size: int = 16, net: nn.Module | None = None, **options: object) -> Classifier:
    """Return a drawn net with a preprocessing of its own."""
    preprocess = Preprocess(resize=(size, size), mean=(0.5,), std=(0.25,))
    given = {"labels": LABELS, "name": "net", "preprocess": preprocess, **options}
    return Classifier((net or drawn(SmallNet(), seed)).float(), **given)


def plan(root: Path, *models: Classifier, truth: Path | None = None, **settings: object) -> Job:
    """Return a job on models in memory."""
    wanted = {"methods": ["gradient"], "batch": 4, "shard": 6, **settings}
    return planned(
        root, [(Given(model.spec), model) for model in models or (net(),)], Settings(**wanted), truth=truth
    )


def steady(rows):
    """Return rows without what differs from run to run."""
    return rows.drop_columns(UNSTEADY)
