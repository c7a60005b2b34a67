"""What metrics say of methods, as a page and in a notebook: the table with its intervals, and the mean curves."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isnan

from whence.reports import words
from whence.reports.page import asset, policy, render
from whence.reports.plot import Curve, Plot, plot
from whence.reports.scores import Asked, Estimate, Line, MeanCurve, Skipped, reasons

_BETTER = {"higher": "higher is better", "lower": "lower is better"}
# Reasons that hold for many pictures name no more of them than these.
_MOST_NAMES = 3


@dataclass(frozen=True)
class Shown:
    """Everything that is shown of an evaluation; ``notes`` are sentences with how many numbers each is said of."""

    model: str
    facts: Mapping[str, str]
    pictures: int
    metrics: Sequence[Asked]
    lines: Sequence[Line]
    curves: Sequence[MeanCurve]
    skipped: Sequence[Skipped]
    failed: Sequence[tuple[str, str]]
    notes: Sequence[tuple[str, int]]


@dataclass(frozen=True)
class Interval:
    """Where a mean and its interval lie, in per cent of a column's width."""

    low: float
    width: float
    mean: float


@dataclass(frozen=True)
class Number:
    """One entry of the table; None for its texts where nothing was measured."""

    mean: str | None
    interval: str | None
    drawn: Interval | None
    best: bool
    less: str | None


@dataclass(frozen=True)
class Drawn:
    """One method's mean curve among those of the others."""

    method: str
    said: str
    points: str


@dataclass(frozen=True)
class Family:
    """All methods' mean curves by one metric, on one scale."""

    metric: str
    title: str
    frame: Plot
    curves: tuple[Drawn, ...]


def html(shown: Shown) -> str:
    """Return a page that loads nothing from outside and runs no script."""
    style = asset("report.css")
    values = {"style": style, "policy": policy(style), "curves": _families(shown), **_values(shown)}
    return render("evaluation.html.j2", values)


def fragment(shown: Shown) -> str:
    """Return the table alone, for a notebook."""
    return render("evaluation_table.html.j2", _values(shown))


def _values(shown: Shown) -> dict[str, object]:
    return {
        "shown": shown,
        "heads": [(metric, _BETTER[metric.better]) for metric in shown.metrics],
        "lines": _numbers(shown),
        "skipped": [(what, _named(names, shown.pictures), why) for what, names, why in reasons(shown.skipped)],
    }


def text(estimate: Estimate) -> tuple[str, str | None]:
    """Return a mean and its interval in words, the interval None where it is not known."""
    if isnan(estimate.mean):
        return "not defined", None
    if isnan(estimate.low):
        return _three(estimate.mean), None
    return _three(estimate.mean), f"{_three(estimate.low)} to {_three(estimate.high)}"


def _three(value: float) -> str:
    """Return a number of the size of a probability with three decimals, so that a column can be compared."""
    return f"{value:.3f}".replace("-", "−") if 0.001 <= abs(value) < 1000 or value == 0 else words.number(value)


def _numbers(shown: Shown) -> list[tuple[Line, list[Number]]]:
    """Return the entries of each line of the table."""
    ends = {metric.text: _ends([line.estimates.get(metric.text) for line in shown.lines]) for metric in shown.metrics}
    return [
        (line, [_number(line, metric.text, ends[metric.text]) for metric in shown.metrics]) for line in shown.lines
    ]


def _ends(column: Sequence[Estimate | None]) -> tuple[float, float]:
    """Return from where to where a column's intervals reach."""
    values = [v for e in column if e for v in (e.low, e.mean, e.high) if not isnan(v)]
    return (min(values), max(values)) if values else (0.0, 0.0)


def _number(line: Line, metric: str, ends: tuple[float, float]) -> Number:
    found = line.estimates.get(metric)
    if found is None:
        return Number(None, None, None, False, None)
    mean, interval = text(found)
    low, high = ends
    drawn = None
    if interval and high > low:
        at = [100 * (v - low) / (high - low) for v in (found.low, found.high, found.mean)]
        drawn = Interval(round(at[0], 2), round(at[1] - at[0], 2), round(at[2], 2))
    fewer = f"of {found.count} pictures" if found.count != line.pictures else None
    return Number(mean, interval, drawn, metric in line.best, fewer)


def _families(shown: Shown) -> list[Family]:
    """Return the curves of each metric that has some, in the order of the table."""
    order = [line.method for line in shown.lines]
    families = []
    for metric in shown.metrics:
        own = sorted((c for c in shown.curves if c.metric == metric.text), key=lambda c: order.index(c.method))
        if own:
            said = [
                text(line.estimates[metric.text])[0] for c in own for line in shown.lines if line.method == c.method
            ]
            curves = [Curve(c.method, s, c.share, c.value) for c, s in zip(own, said, strict=True)]
            frame = plot(curves, "mean value", metric.along)
            drawn = tuple(Drawn(s.name, s.said, s.points) for s in frame.strokes)
            families.append(Family(metric.text, metric.title, frame, drawn))
    return families


def _named(names: Sequence[str], pictures: int) -> str:
    if len(names) == pictures > 1:
        return "every picture"
    names = [words.short(name) for name in names]
    if len(names) <= _MOST_NAMES:
        return ", ".join(names)
    return f"{', '.join(names[:_MOST_NAMES])} and {len(names) - _MOST_NAMES} more"
