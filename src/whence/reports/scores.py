"""Numbers that metrics gave, and what is said of many: means with their intervals, and mean curves."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isnan, nan
from typing import Literal

import torch

_RESAMPLES = 2000
# The ends of an interval that holds 95 % of the resampled means.
_ENDS = (0.025, 0.975)


@dataclass(frozen=True)
class Asked:
    """A metric as it was asked for, with its options; ``better`` says which way, ``along`` what curves are over."""

    text: str
    title: str
    better: Literal["higher", "lower"]
    along: str = "share of the area"


@dataclass(frozen=True)
class Row:
    """One number: a metric's, of one method's map of one picture.

    ``options`` are those that were given for the method, as ``key=value,...``; ``metric`` has its own behind a colon.
    ``value`` is NaN where it is not defined, which ``notes`` explain. ``curve`` stands at each ``share`` of the area,
    where the value is the area under one. ``sha256`` and ``region`` are those of the picture and of the mask.
    """

    picture: str
    method: str
    options: str
    target: str
    metric: str
    value: float
    share: tuple[float, ...] = ()
    curve: tuple[float, ...] = ()
    notes: tuple[str, ...] = ()
    sha256: str = ""
    region: str = ""

    @property
    def key(self) -> tuple[str, str, str, str]:
        """What the number is of."""
        return self.picture, self.method, self.options, self.metric

    @property
    def label(self) -> str:
        """The method with its options."""
        return f"{self.method}:{self.options}" if self.options else self.method


@dataclass(frozen=True)
class Skipped:
    """What could not be measured: a ``metric`` of a method's map of one picture, or, without, all of them."""

    picture: str
    method: str
    metric: str | None
    reason: str


def reasons(skipped: Sequence[Skipped]) -> list[tuple[str, list[str], str]]:
    """Return what was left out, each once: of which method or metric, for which pictures, and why."""
    pictures: dict[tuple[str, str], list[str]] = {}
    for one in skipped:
        what = one.method if one.metric is None else f"{one.metric} of {one.method}"
        pictures.setdefault((what, one.reason), []).append(one.picture)
    return [(what, names, reason) for (what, reason), names in pictures.items()]


@dataclass(frozen=True)
class Estimate:
    """A mean over ``count`` pictures and its 95 % interval, NaN below two; ``undefined`` values are left out."""

    mean: float
    low: float
    high: float
    count: int
    undefined: int


@dataclass(frozen=True)
class Line:
    """One method's line of the table; ``best`` are the metrics in which no other mean is better."""

    method: str
    pictures: int
    estimates: Mapping[str, Estimate]
    best: tuple[str, ...]


@dataclass(frozen=True)
class MeanCurve:
    """The mean of ``count`` pictures' curves of one method."""

    method: str
    metric: str
    share: tuple[float, ...]
    value: tuple[float, ...]
    count: int


def estimate(values: Sequence[float], seed: int = 0) -> Estimate:
    """Return the mean with its percentile bootstrap interval: Efron 1979, 2000 resamples of the pictures."""
    defined = torch.tensor([value for value in values if not isnan(value)], dtype=torch.float64)
    count = len(defined)
    if count < 2:
        return Estimate(float(defined.mean()) if count else nan, nan, nan, count, len(values) - count)
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(count, (_RESAMPLES, count), generator=generator)
    low, high = defined[drawn].mean(1).quantile(torch.tensor(_ENDS, dtype=torch.float64)).tolist()
    return Estimate(float(defined.mean()), low, high, count, len(values) - count)


def table(rows: Sequence[Row], metrics: Sequence[Asked], seed: int = 0) -> list[Line]:
    """Return a line for each method, the best by the first metric first."""
    values: dict[str, dict[str, list[float]]] = {}
    pictures: dict[str, set[str]] = {}
    for row in rows:
        values.setdefault(row.label, {}).setdefault(row.metric, []).append(row.value)
        pictures.setdefault(row.label, set()).add(row.picture)
    found = {label: {m: estimate(v, seed) for m, v in own.items()} for label, own in values.items()}
    best: dict[str, list[str]] = {label: [] for label in found}
    for metric in metrics:
        means = {label: _goodness(own, metric) for label, own in found.items()}
        top = max(means.values(), default=-torch.inf)
        for label, mean in means.items():
            if mean == top > -torch.inf:
                best[label].append(metric.text)
    lines = [Line(label, len(pictures[label]), own, tuple(best[label])) for label, own in found.items()]
    return sorted(lines, key=lambda line: -_goodness(line.estimates, metrics[0]))


def _goodness(estimates: Mapping[str, Estimate], metric: Asked) -> float:
    """Return a method's mean so that more is better, minus infinity where it has none."""
    mean = estimates[metric.text].mean if metric.text in estimates else nan
    return -torch.inf if isnan(mean) else mean if metric.better == "higher" else -mean


def mean_curves(rows: Sequence[Row]) -> list[MeanCurve]:
    """Return the mean curve of each method by each metric that has curves; those that hold NaN are left out.

    Curves that stand at other shares of the area than the first one of their metric have no mean with it.
    """
    curves: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        if row.curve and not any(map(isnan, row.curve)):
            curves.setdefault((row.label, row.metric), []).append(row)
    found = []
    for (label, metric), own in curves.items():
        alike = [row.curve for row in own if row.share == own[0].share]
        value = torch.tensor(alike, dtype=torch.float64).mean(0).tolist()
        found.append(MeanCurve(label, metric, own[0].share, tuple(value), len(alike)))
    return found
