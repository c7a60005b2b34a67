"""The page of cross-testing: the matrices with shaded cells, and the landscapes of models."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from math import isnan

from whence.reports import words
from whence.reports.crossing_plot import Scatter, scatter
from whence.reports.crossing_results import Cell, Crossing, CrossReport, Landscape
from whence.reports.evaluation import text
from whence.reports.page import asset, policy, render

_SHADES = 9
# From this share of all on, negative eigenvalues are warned of.
_MUCH = 0.2


@dataclass(frozen=True)
class Shaded:
    """A cell of a matrix: its texts, None for what is not known, and how strong its shade is."""

    mean: str
    interval: str | None
    shade: int
    own: bool
    left_out: tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """A matrix as a table: lines of cells, and sentences on what it says."""

    crossing: Crossing
    lines: tuple[tuple[str, tuple[Shaded, ...]], ...]
    sentences: tuple[str, ...]
    scatter: Scatter | None
    about: tuple[str, ...]


@dataclass(frozen=True)
class Part:
    """All tables of one method."""

    method: str
    tables: tuple[Table, ...]


def html(report: CrossReport) -> str:
    """Return a page that loads nothing from outside and runs no script."""
    style = asset("report.css", "crossing.css")
    return render(
        "crossing.html.j2",
        {
            "report": report,
            "style": style,
            "policy": policy(style),
            "least": words.percent(report.least),
            "sets": [
                (id_, title, list(_parts(report.models, found)))
                for id_, title, found in (
                    ("every", "All pictures", report.every),
                    ("correct", "Pictures that every model classifies correctly", report.correct),
                )
                if found is not None
            ],
        },
    )


def _parts(models: Sequence[str], found: Sequence[Crossing]) -> Iterator[Part]:
    for method, own in groupby(found, key=lambda one: one.method):
        yield Part(method, tuple(_table(models, one) for one in own))


def _table(models: Sequence[str], one: Crossing) -> Table:
    means = [cell.estimate.mean for row in one.cells for cell in row if not isnan(cell.estimate.mean)]
    ends = (min(means), max(means)) if means else (0.0, 0.0)
    lines = tuple(
        (name, tuple(_shaded(one, cell, ends, a == b) for b, cell in enumerate(row)))
        for a, (name, row) in enumerate(zip(models, one.cells, strict=True))
    )
    made = one.landscape
    return Table(
        crossing=one,
        lines=lines,
        sentences=tuple(_sentences(models, one)),
        scatter=None if made is None else scatter(made),
        about=(one.reason,) if made is None else tuple(_about(made)),
    )


def _shaded(one: Crossing, cell: Cell, ends: tuple[float, float], own: bool) -> Shaded:
    """Return a cell; the better its mean among those of the matrix, the stronger its shade."""
    mean, interval = text(cell.estimate)
    worst, best = ends if one.metric.better == "higher" else ends[::-1]
    known = worst != best and not isnan(cell.estimate.mean)
    place = (cell.estimate.mean - worst) / (best - worst) if known else 0.0
    little = f"{cell.small} {'tells' if cell.small == 1 else 'tell'} too little"
    said = {little: cell.small, f"{cell.missing} not judged": cell.missing}
    left_out = tuple(sentence for sentence, count in said.items() if count)
    return Shaded(mean, interval, round(place * (_SHADES - 1)), own, left_out)


def _sentences(models: Sequence[str], one: Crossing) -> Iterator[str]:
    """Yield for each model that judges whether its own maps serve it best."""
    sign = 1 if one.metric.better == "higher" else -1
    for judge, name in enumerate(models):
        column = [row[judge].estimate for row in one.cells]
        if len(models) < 2 or any(isnan(e.mean) for e in column):
            continue
        best = max(range(len(column)), key=lambda a: sign * column[a].mean)
        first, own = column[best], column[judge]
        if text(first)[0] == text(own)[0]:
            yield f"{name}: no other model’s maps serve it better than its own, {text(own)[0]}."
            continue
        apart = first.low > own.high or first.high < own.low
        yield (
            f"{name}: the maps of {models[best]} serve it better, {text(first)[0]}, than its own, {text(own)[0]}; "
            f"{'the intervals do not overlap' if apart else 'the intervals overlap'}."
        )


def _about(made: Landscape) -> Iterator[str]:
    """Yield what is to be known of a landscape."""
    if made.dimensions == 1:
        yield (
            "Two models have one distance: the landscape is a line."
            if len(made.points) == 2
            else "Only one axis tells these models apart: the landscape is a line."
        )
    axes = "The axis holds" if made.dimensions == 1 else "The first axis holds"
    more = "" if made.dimensions == 1 else f", the second {words.percent(made.shares[1])}"
    yield f"{axes} {words.percent(made.shares[0])}{more} of the size of all eigenvalues."
    if made.negative == 0:
        yield "No eigenvalue is negative: nothing of the likeness but the axes left out is missing here."
    else:
        held = f"Negative eigenvalues hold {words.percent(made.negative)}, which no distance can show"
        yield f"{held}: the drawing misleads about that much." if made.negative >= _MUCH else f"{held}."
    if made.resamples:
        band = "Ellipses hold" if made.dimensions == 2 else "Bars hold"
        yield f"{band} 95 % of the places that {made.resamples} resamples of the pictures give."
    else:
        yield "There are too few pictures for ellipses."
