"""What a page about the filters of a trained model is made of: plain data, no model in sight."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite, nan
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float, UInt8

SCHEMA = 1

Phase = Literal["plain", "control", "interpretable"]


@dataclass(frozen=True)
class Measure:
    """One of the measures of filters.

    ``key`` and ``title`` are its names in filters.json and on the page, ``digits`` how many decimals are shown.
    """

    key: str
    title: str
    better: Literal["higher", "lower"]
    about: str
    digits: int = 3


@dataclass(frozen=True)
class Net:
    """One of the nets that are compared: its measures by key, NaN where one could not be taken."""

    key: str
    title: str
    values: Mapping[str, float]


@dataclass(frozen=True)
class Entry:
    """One epoch of the training.

    ``accuracy`` is that on held-out pictures, ``task`` the classification's loss. What follows is None where the
    epoch had no filter loss: the loss, its weight, its three terms in nats (means over the filters), and how many
    filters changed category.
    """

    phase: Phase
    epoch: int
    accuracy: float
    task: float
    filters: float | None = None
    weight: float | None = None
    prior: float | None = None
    inter_category: float | None = None
    spatial: float | None = None
    changed: int | None = None


@dataclass(frozen=True)
class Templates:
    """What the masked maps are compared with: over tau, so that 1 is the middle of a positive one.

    ``positive`` are some of the ``count`` positive ones, by the (row, column) of their middle; ``slopes`` is the
    least and the largest beta of the filters.
    """

    count: int
    slopes: tuple[float, float]
    centre: str
    positive: Sequence[tuple[tuple[int, int], Float[np.ndarray, "h w"]]]
    negative: Float[np.ndarray, "h w"]

    @property
    def size(self) -> tuple[int, int]:
        """The map's (H, W)."""
        return self.negative.shape[0], self.negative.shape[1]


@dataclass(frozen=True)
class Shot:
    """A picture as the model saw it, the filter's largest activation on it, and where in it the filter is active."""

    name: str
    label: str
    peak: float
    pixels: UInt8[np.ndarray, "h w 3"]
    field: Bool[np.ndarray, "h w"]


@dataclass(frozen=True)
class Filter:
    """One filter of one net.

    ``part`` is the part it stands for, None where parts are not known; ``values`` are its measures by key, NaN where
    one could not be taken, and ``parts`` the part that a measure is about, by the same key.
    """

    category: str | None
    part: str | None
    values: Mapping[str, float]
    parts: Mapping[str, str]
    shots: Sequence[Shot]


@dataclass(frozen=True)
class Pair:
    """A filter of the interpretable net, and the one of the same number in the ordinary net; None without one."""

    number: int
    interpretable: Filter
    ordinary: Filter | None


@dataclass(frozen=True)
class Step:
    """What one filter makes of a picture: its raw map, the template chosen over tau, and the masked map.

    ``contribution`` is the sum over places of the masked map times the score's gradient; ``at`` is (row, column).
    """

    number: int
    category: str | None
    part: str | None
    contribution: float
    at: tuple[int, int]
    raw: Float[np.ndarray, "h w"]
    template: Float[np.ndarray, "h w"]
    masked: Float[np.ndarray, "h w"]
    field: Bool[np.ndarray, "H W"]


@dataclass(frozen=True)
class Walk:
    """A picture, its class (None where not known), what the model takes it for, and its filters of most weight."""

    name: str
    label: str | None
    said: str
    probability: float
    pixels: UInt8[np.ndarray, "H W 3"]
    steps: Sequence[Step]


@dataclass(frozen=True)
class FilterReport:
    """Everything that the page shows.

    ``facts`` and ``recipe`` are what stands in small print, name and text; ``accuracy`` is by net. ``ordinary`` is
    the title of the net on the right-hand side of each pair, None where there is none. ``left_out`` is how many
    filters are not shown, ``parts`` the names of the parts known, and ``notes`` are sentences.
    """

    whence: str
    model: str
    facts: Mapping[str, str]
    recipe: Mapping[str, str]
    accuracy: Mapping[str, float]
    measures: Sequence[Measure]
    nets: Sequence[Net]
    templates: Templates
    course: Sequence[Entry]
    ordinary: str | None
    pairs: Sequence[Pair]
    left_out: int
    walks: Sequence[Walk]
    parts: Sequence[str]
    notes: Sequence[str]


def ratio(report: FilterReport, measure: Measure) -> float:
    """Return a measure of the interpretable net over the control's; NaN where one is missing or the latter is 0."""
    values = {net.key: net.values.get(measure.key, nan) for net in report.nets}
    below = values.get("control", nan)
    return values.get("interpretable", nan) / below if below else nan


def figures(report: FilterReport) -> dict[str, Any]:
    """Return the figures of the page as they stand in filters.json; what was not measured is None."""
    table = {
        "schema": SCHEMA,
        "whence": report.whence,
        "model": report.model,
        "facts": dict(report.facts),
        "recipe": dict(report.recipe),
        "accuracy": dict(report.accuracy),
        "measures": [
            {
                "name": measure.key,
                "title": measure.title,
                "better": measure.better,
                "values": {net.key: net.values.get(measure.key, nan) for net in report.nets},
                "ratio": ratio(report, measure),
            }
            for measure in report.measures
        ],
        "templates": {
            "size": list(report.templates.size),
            "count": report.templates.count,
            "beta": list(report.templates.slopes),
            "centre": report.templates.centre,
        },
        "course": [vars(entry) for entry in report.course],
        "filters": [
            {
                "filter": pair.number,
                "interpretable": _filter(pair.interpretable),
                "ordinary": _filter(pair.ordinary) if pair.ordinary else None,
            }
            for pair in report.pairs
        ],
        "left_out": report.left_out,
        "pictures": [_walk(walk) for walk in report.walks],
        "parts": list(report.parts),
        "notes": list(report.notes),
    }
    found: dict[str, Any] = _known(table)
    return found


def _filter(one: Filter) -> dict[str, Any]:
    tops = [{"picture": shot.name, "class": shot.label, "peak": shot.peak} for shot in one.shots]
    found = {"category": one.category, "part": one.part, "values": dict(one.values), "parts": dict(one.parts)}
    return {**found, "pictures": tops}


def _walk(walk: Walk) -> dict[str, Any]:
    steps = [
        {"filter": s.number, "contribution": s.contribution, "at": list(s.at), "peak": float(s.raw.max())}
        for s in walk.steps
    ]
    said = {"label": walk.said, "probability": walk.probability}
    return {"picture": walk.name, "class": walk.label, "said": said, "filters": steps}


def _known(value: Any) -> Any:  # noqa: ANN401  (what JSON holds)
    """Return the value with None in the place of NaN and infinity."""
    if isinstance(value, dict):
        return {key: _known(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_known(one) for one in value]
    return None if isinstance(value, float) and not isfinite(value) else value
