"""What a comparison of two models' maps found, and how it stands in compare.json."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import isfinite
from typing import Any

import numpy as np
from jaxtyping import Float

from whence.reports.images import Encoded
from whence.reports.scores import Estimate

SCHEMA = 1


@dataclass(frozen=True)
class Pair:
    """One picture on both models; two values are those of the first and of the second.

    ``group`` is the class that it is counted under. ``same`` says whether one class was explained on both, ``agree``
    whether both give one answer. ``moved``, ``rank`` and ``change`` are NaN where they are not defined.
    """

    number: int
    picture: str
    truth: str | None
    group: str | None
    explained: tuple[str, str]
    same: bool
    answers: tuple[str | None, str | None]
    agree: bool | None
    correct: tuple[bool | None, bool | None]
    moved: float
    rank: float
    change: float


@dataclass(frozen=True)
class Distance:
    """The means of ``pictures`` pictures; ``change`` is that of the probability, None between different pictures."""

    title: str
    pictures: int
    moved: Estimate
    rank: Estimate
    change: Estimate | None


@dataclass(frozen=True, eq=False)
class ClassLine:
    """The pictures of one class: shares of equal and of right answers, None where not known, and their distance.

    ``gained`` is the mean of what places gained and lost, None where no picture says it.
    """

    distance: Distance
    agree: float | None
    right: tuple[float, float] | None
    gained: Float[np.ndarray, "g k"] | None


@dataclass(frozen=True, eq=False)
class Where:
    """The mean shares of both models over ``pictures`` pictures.

    ``net`` is how much moves in the same way in all of them; ``chance`` is what that is below in 95 % of the times
    that the two maps of each picture are swapped at random.
    """

    first: Float[np.ndarray, "g k"]
    second: Float[np.ndarray, "g k"]
    pictures: int
    net: float
    chance: float


@dataclass(frozen=True)
class Shot:
    """A picture with both maps and their difference over it; ``missing`` says why it has no images."""

    pair: Pair
    images: tuple[Encoded, Encoded, Encoded] | None
    missing: str | None = None


@dataclass(frozen=True, eq=False)
class CompareReport:
    """Everything that is shown of a comparison.

    Attributes
    ----------
    folder, models, method, facts
        What was compared; facts are shown by name.
    pictures, failed
        How many the study has, and how many have no map on each model, or are not explained yet.
    pairs
        The pictures that have both maps.
    agreement
        The share of equal answers, None where answers are not known.
    groups
        All pictures, and some of them.
    anchors
        Between different pictures of each model.
    known
        Whether classes are the true ones.
    """

    whence: str
    folder: str
    models: tuple[str, str]
    method: str
    facts: Mapping[str, str]
    pictures: int
    failed: tuple[int, int]
    pairs: Sequence[Pair]
    agreement: Estimate | None
    groups: Sequence[Distance]
    anchors: tuple[Distance, Distance]
    where: Where | None
    known: bool
    classes: Sequence[ClassLine]
    most: Sequence[Shot]
    changed: Sequence[Shot]
    notes: Sequence[str]


def figures(report: CompareReport) -> dict[str, Any]:
    """Return the figures of the page as they stand in compare.json; what is not defined is None."""
    where = report.where
    return {
        "schema": SCHEMA,
        "whence": report.whence,
        "models": list(report.models),
        "method": report.method,
        "facts": dict(report.facts),
        "pictures": report.pictures,
        "compared": len(report.pairs),
        "failed": list(report.failed),
        "agreement": None if report.agreement is None else _estimate(report.agreement),
        "groups": [_distance(one) for one in report.groups],
        "anchors": [_distance(one) for one in report.anchors],
        "where": None
        if where is None
        else {
            "pictures": where.pictures,
            "net": where.net,
            "chance": where.chance,
            "first": where.first.tolist(),
            "gained": (where.second - where.first).tolist(),
        },
        "classes_are": "true" if report.known else "those the first model gives",
        "classes": [
            {**_distance(one.distance), "agree": one.agree, "right": None if one.right is None else list(one.right)}
            for one in report.classes
        ],
        "notes": list(report.notes),
        "rows": [_pair(one) for one in report.pairs],
    }


def _distance(one: Distance) -> dict[str, Any]:
    found = {"title": one.title, "pictures": one.pictures, "moved": _estimate(one.moved), "rank": _estimate(one.rank)}
    return found if one.change is None else {**found, "change": _estimate(one.change)}


def _estimate(one: Estimate) -> dict[str, Any]:
    return {name: _finite(value) for name, value in asdict(one).items()}


def _pair(one: Pair) -> dict[str, Any]:
    told = {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(one).items()}
    return {**told, **{name: _finite(getattr(one, name)) for name in ("moved", "rank", "change")}}


def _finite(value: float | int) -> float | int | None:
    return value if isfinite(value) else None
