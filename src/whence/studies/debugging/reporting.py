"""What was found, as the page shows it, and the page in a folder."""

import json
import os
from collections import Counter
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

import torch
from jaxtyping import Int
from torch import Tensor

from whence.evaluation.records import write as write_file
from whence.models.classifier import Classifier
from whence.pictures.preprocess import as_seen
from whence.reports.debugging_page import html
from whence.reports.debugging_results import Box, DebuggingReport, Look, Repair, Shot, figures
from whence.studies.debugging.clusters import features
from whence.studies.debugging.search import Findings

PAGE, FIGURES = "debug.html", "debug.json"

# So many pictures of a cluster are shown, and so many make its mean picture.
_SHOWN, _MEAN = 12, 100


def report(
    classifier: Classifier,
    found: Findings,
    method: str,
    *,
    facts: Mapping[str, str] | None = None,
    repair: Repair | None = None,
) -> DebuggingReport:
    """Return all that the page shows, with the pictures as the model sees them; ``facts`` are shown by name."""
    numbers, names = range(found.clusters.count), found.pictures.names
    members = (
        tuple((names[row], _box(found.boxes[row])) for row in found.clusters.rows(number).tolist())
        for number in numbers
    )
    return DebuggingReport(
        whence=version("whence"),
        model=classifier.name,
        method=method,
        pictures=len(found.pictures.data),
        clustered=len(found.clusters.points),
        without_map=int((found.clusters.member < 0).sum()),
        clusters=tuple(map(found.cluster, numbers)),
        looks=tuple(_look(classifier, found, number) for number in numbers),
        members=tuple(members),
        facts=dict(facts or {}),
        repair=repair,
    )


def _look(classifier: Classifier, found: Findings, number: int) -> Look:
    rows, mean = found.clusters.rows(number), found.means[number]
    away = torch.cdist(features(found.pictures.relevance[rows]), features(mean[None]))[:, 0]
    nearest = rows[away.argsort(stable=True)[:_MEAN]]
    middle = found.pictures.inputs(nearest).mean(0)
    shots = tuple(_shot(classifier, found, row) for row in _mixed(nearest, found)[:_SHOWN])
    return Look(mean.numpy(), as_seen(middle, classifier.pixels), shots)


def _mixed(rows: Int[Tensor, " m"], found: Findings) -> list[int]:
    """Return the first of each class that the model gives, then the second of each, and so on."""
    seen: Counter[int] = Counter()
    turns = []
    for row in rows.tolist():
        label = int(found.pictures.said[row])
        turns.append((seen[label], row))
        seen[label] += 1
    return [row for _, row in sorted(turns, key=lambda turn: turn[0])]


def _shot(classifier: Classifier, found: Findings, row: int) -> Shot:
    pictures = found.pictures
    x, label = pictures.data[row]
    return Shot(
        name=pictures.names[row],
        said=pictures.data.classes[int(pictures.said[row])],
        truth=None if label < 0 else pictures.data.classes[label],
        pixels=as_seen(x, classifier.pixels),
        heat=pictures.relevance[row].numpy(),
        region=_box(found.boxes[row]),
    )


def _box(region: Int[Tensor, " 4"]) -> Box:
    top, left, bottom, right = region.tolist()
    return top, left, bottom, right


def write(found: DebuggingReport, folder: str | os.PathLike[str]) -> Path:
    """Write debug.html and debug.json into a folder, which may hold other files; return the page's path.

    Raises
    ------
    OutputError
        They cannot be written.
    """
    page = Path(folder) / PAGE
    write_file(page.with_name(FIGURES), (json.dumps(figures(found), indent=1, allow_nan=False) + "\n").encode())
    write_file(page, html(found).encode())
    return page
