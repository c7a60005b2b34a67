"""What cross-testing found: matrices, landscapes, and how they stand in cross.json."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

from whence.reports.scores import Asked, Estimate

SCHEMA = 1


@dataclass(frozen=True)
class Cell:
    """Maps of one model on another: the mean over pictures.

    ``small`` pictures are left out because there the judge says nearly the same of the whole picture and of nothing
    of it, ``missing`` ones because they were not judged.
    """

    estimate: Estimate
    small: int
    missing: int


@dataclass(frozen=True)
class Ellipse:
    """Where a point lies in 95 % of resamples: its middle, half axes, and the first one's angle in radians."""

    middle: tuple[float, float]
    radii: tuple[float, float]
    angle: float


@dataclass(frozen=True)
class Point:
    """A model's place in a landscape; no ellipse where there are too few pictures for one."""

    model: str
    at: tuple[float, float]
    ellipse: Ellipse | None


@dataclass(frozen=True)
class Landscape:
    """Models by the likeness of what they look at.

    ``dimensions`` is 1 where the models lie on a line. ``shares`` are those of the two axes, and ``negative`` that of
    all negative eigenvalues, each of the sum of the sizes of all. ``normalised`` says whether likeness was divided by
    that of each model with itself, ``resamples`` of how many sets of pictures the ellipses are.
    """

    points: tuple[Point, ...]
    dimensions: int
    shares: tuple[float, float]
    negative: float
    normalised: bool
    resamples: int


@dataclass(frozen=True)
class Crossing:
    """One metric's matrix for maps by one method, [model made][model judged], and the landscape that it spans.

    ``reason`` says why there is no landscape, where there is none. ``pictures`` is how many it is about.
    """

    method: str
    metric: Asked
    pictures: int
    cells: tuple[tuple[Cell, ...], ...]
    landscape: Landscape | None
    reason: str = ""


@dataclass(frozen=True)
class CrossReport:
    """Everything that is shown of a cross-testing.

    ``correct`` is about the pictures alone that every model classifies correctly, None where the truth is not known.
    Pictures on which a judge's probability changes by less than ``least`` are left out of its means.
    """

    whence: str
    models: tuple[str, ...]
    facts: Mapping[str, str]
    least: float
    every: Sequence[Crossing]
    correct: Sequence[Crossing] | None


def figures(report: CrossReport) -> dict[str, Any]:
    """Return the figures of the page as they stand in cross.json; what is not defined is None."""
    return {
        "schema": SCHEMA,
        "whence": report.whence,
        "models": list(report.models),
        "facts": dict(report.facts),
        "least_range": report.least,
        "every": [_crossing(one) for one in report.every],
        "correct": None if report.correct is None else [_crossing(one) for one in report.correct],
    }


def _crossing(one: Crossing) -> dict[str, Any]:
    return {
        "method": one.method,
        "metric": one.metric.text,
        "better": one.metric.better,
        "pictures": one.pictures,
        "matrix": [[_cell(cell) for cell in row] for row in one.cells],
        "landscape": None if one.landscape is None else _landscape(one.landscape),
        "reason": one.reason,
    }


def _cell(cell: Cell) -> dict[str, Any]:
    e = cell.estimate
    numbers = {name: v if isfinite(v) else None for name, v in (("mean", e.mean), ("low", e.low), ("high", e.high))}
    return {**numbers, "count": e.count, "small": cell.small, "missing": cell.missing}


def _landscape(made: Landscape) -> dict[str, Any]:
    points = [
        {"model": p.model, "at": list(p.at), "ellipse": None if p.ellipse is None else vars(p.ellipse)}
        for p in made.points
    ]
    return {**vars(made), "points": points}
