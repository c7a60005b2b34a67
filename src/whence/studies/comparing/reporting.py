"""From a study of two models to what its comparison shows, and its files."""

import json
import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from math import isnan, nan
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from whence.evaluation.records import write as write_file
from whence.reports.comparing_page import html
from whence.reports.comparing_results import ClassLine, CompareReport, Distance, Pair, Where, figures
from whence.reports.study_numbers import estimated, share
from whence.studies.comparing.averaging import Compared, Distances, compared
from whence.studies.comparing.drawing import plain, shot
from whence.studies.comparing.reading import Row, Rows, pairs, rows

if TYPE_CHECKING:
    from whence.reports.scores import Estimate
    from whence.studies.study import Study

PAGE, FIGURES = "compare.html", "compare.json"
_SHOWN = 12


def from_study(study: "Study", method: str | None = None, *, seed: int = 0) -> CompareReport:
    """Compare the maps of a study's two models, by ``method`` where it has several.

    Raises
    ------
    ModelError, OptionError
        The models are not two checkpoints of one, or their maps cannot be compared.
    """
    of = rows(study, method)
    groups, known = _groups(of)
    labels = sorted({label for label in groups if label is not None})
    classes = torch.tensor([-1 if label is None else labels.index(label) for label in groups])
    found = compared(pairs(study, of), classes, seed)
    each = [_pair(*one) for one in zip(of.first, of.second, groups, *_values(of, found.distances), strict=True)]
    first, second = study.job.models
    return CompareReport(
        whence=version("whence"),
        folder=study.job.root.name,
        models=(first.name, second.name),
        method=of.method,
        facts=_facts(study, of, seed),
        pictures=len(study.job.pictures),
        failed=of.failed,
        pairs=each,
        agreement=_agreement(each),
        groups=[_distance(title, own) for title, own in _sets(each) if own],
        anchors=(_anchor(first.name, found.anchors[0]), _anchor(second.name, found.anchors[1])),
        where=_where(found),
        known=known,
        classes=_classes(each, labels, known, found),
        most=[shot(study, one, of.method) for one in _farthest([one for one in each if one.same])],
        changed=[shot(study, one, of.method) for one in _farthest([one for one in each if one.agree is False])],
        notes=list(_notes(of)),
    )


def _groups(of: Rows) -> tuple[list[str | None], bool]:
    """Return each picture's true class, or, where none is known, the one that the first model gives."""
    known = any(row["truth"] is not None for row in of.first)
    return [row["truth"] if known else _label(row, "predicted") for row in of.first], known


def _label(row: Row, what: str) -> str | None:
    """Return the name of a class, None where there is none."""
    label: str | None = row[f"{what}_label"]
    return label or (None if row[what] is None else f"class {row[what]}")


def _values(of: Rows, found: Distances) -> tuple[list[float], list[float]]:
    return found.moved.tolist(), found.rank.tolist()


def _pair(one: Row, other: Row, group: str | None, moved: float, rank: float) -> Pair:
    same = one["target"] == other["target"]
    known = same and None not in (one["probability"], other["probability"])
    answered = None not in (one["predicted"], other["predicted"])
    return Pair(
        number=one["number"],
        picture=one["picture"],
        truth=one["truth"],
        group=group,
        explained=(str(_label(one, "target")), str(_label(other, "target"))),
        same=same,
        answers=(_label(one, "predicted"), _label(other, "predicted")),
        agree=one["predicted"] == other["predicted"] if answered else None,
        correct=(one["correct"], other["correct"]),
        moved=moved,
        rank=rank,
        change=other["probability"] - one["probability"] if known else nan,
    )


def _agreement(each: Sequence[Pair]) -> "Estimate | None":
    told = [one.agree for one in each if one.agree is not None]
    return share(sum(told), len(told)) if told else None


def _sets(each: Sequence[Pair]) -> Iterator[tuple[str, list[Pair]]]:
    """Yield all pictures, and those that are counted apart."""
    yield "All pictures", list(each)
    yield "One class explained on both", [one for one in each if one.same]
    yield "Another class explained on each", [one for one in each if not one.same]
    for title, right in (
        ("Right on both", (True, True)),
        ("Right, then wrong", (True, False)),
        ("Wrong, then right", (False, True)),
        ("Wrong on both", (False, False)),
    ):
        yield title, [one for one in each if one.correct == right]


def _distance(title: str, own: Sequence[Pair]) -> Distance:
    moved, rank, change = (
        estimated(torch.tensor([getattr(one, name) for one in own], dtype=torch.float64))
        for name in ("moved", "rank", "change")
    )
    return Distance(title, len(own), moved, rank, change)


def _anchor(model: str, found: Distances) -> Distance:
    return Distance(
        f"Different pictures on {model}", len(found.moved), estimated(found.moved), estimated(found.rank), None
    )


def _where(found: Compared) -> Where | None:
    means = found.means
    if means is None:
        return None
    return Where(means.first.numpy(), means.second.numpy(), means.count, means.net, means.chance)


def _classes(each: Sequence[Pair], labels: Sequence[str], known: bool, found: Compared) -> list[ClassLine]:
    """Return the classes, the one whose maps moved most first."""
    members: dict[str | None, list[Pair]] = defaultdict(list)
    for one in each:
        members[one.group].append(one)
    lines = []
    for label, gained in zip(labels, found.gained, strict=True):
        own = members[label]
        agreement = _agreement(own)
        agree = None if agreement is None else agreement.mean
        lines.append(ClassLine(_distance(label, own), agree, _right(own) if known else None, plain(gained)))
    return sorted(lines, key=lambda line: _last(line.distance.moved.mean))


def _right(own: Sequence[Pair]) -> tuple[float, float] | None:
    told = [one.correct for one in own if None not in one.correct]
    if not told:
        return None
    before, after = (sum(bool(right) for right in model) / len(told) for model in zip(*told, strict=True))
    return before, after


def _last(value: float) -> tuple[bool, float]:
    """Return by what numbers are sorted, the largest first and what is not defined last."""
    return isnan(value), -value


def _farthest(each: Sequence[Pair]) -> list[Pair]:
    return sorted(each, key=lambda one: _last(one.moved))[:_SHOWN]


def _facts(study: "Study", of: Rows, seed: int) -> dict[str, str]:
    job = study.job
    layers = dict.fromkeys(str(side[0]["layer"]) for side in (of.first, of.second) if side[0]["layer"])
    explained = {None: "the class that each model gives", "truth": "each picture’s true class"}
    return {
        "Pictures": job.root.name,
        "Method": of.method,
        **({"Layer": ", ".join(layers)} if layers else {}),
        "Explained": explained.get(job.target, str(job.target)),
        "Weights": ", ".join(f"{model.name} {model.fingerprint[:12]}" for model in job.models),
        "Seed": str(seed),
    }


def _notes(of: Rows) -> Iterator[str]:
    """Yield what makes a difference of maps mean less than it seems."""
    one, other = of.first[0]["layer"], of.second[0]["layer"]
    if one != other:
        yield f"The maps are of two layers, {one} and {other}, which differ in one model too: name one with layer=."


def write(report: CompareReport, folder: str | os.PathLike[str]) -> Path:
    """Write compare.html and compare.json into a folder, which may hold other files; return the page's path.

    Raises
    ------
    OutputError
        They cannot be written.
    """
    page = Path(folder) / PAGE
    write_file(page.with_name(FIGURES), (json.dumps(figures(report), indent=1, allow_nan=False) + "\n").encode())
    write_file(page, html(report).encode())
    return page
