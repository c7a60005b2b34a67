"""The page of a study: what was found in numbers, and pictures from both ends; and pages with all pictures."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isnan

from whence.reports import words
from whence.reports.evaluation import Interval, text
from whence.reports.page import asset, policy, render
from whence.reports.scores import Estimate
from whence.reports.study_plots import family
from whence.reports.study_results import Accuracy, Line, Quantity, StudyReport, Tile

_BETTER = {"higher": "higher is better", "lower": "lower is better"}


@dataclass(frozen=True)
class Number:
    """One mean: None for its texts where nothing was measured."""

    mean: str | None
    interval: str | None
    drawn: Interval | None
    best: bool
    less: str | None


@dataclass(frozen=True)
class Shot:
    """An image that lies beside a page: its address, its size (height, width), and what it shows."""

    address: str
    size: tuple[int, int]
    about: str


@dataclass(frozen=True)
class Entry:
    """A picture among all: its images, or why there are none, and what is said of it."""

    name: str
    said: Sequence[str]
    shots: Sequence[Shot]
    missing: Sequence[str]


@dataclass(frozen=True)
class Sheet:
    """A page of pictures, of ``count``, with the names and addresses of other pages."""

    name: str
    number: int
    count: int
    entries: Sequence[Entry]
    pages: Sequence[tuple[str, str]]
    home: str


def html(report: StudyReport) -> str:
    """Return a page that loads nothing from outside and runs no script."""
    style = asset("report.css", "study.css")
    return render(
        "study.html.j2",
        {
            "report": report,
            "style": style,
            "policy": policy(style),
            "heads": [(one, _BETTER[one.better] if one.better else None) for one in report.quantities],
            "lines": [(line, numbers(line, report)) for line in report.lines],
            "accuracies": [(one, *_accuracy(one)) for one in report.accuracies],
            "families": [family(one) for one in report.histograms],
            "alt": alt,
        },
    )


def sheet(one: Sheet) -> str:
    """Return a page of pictures whose images lie beside it."""
    style = asset("report.css", "study.css")
    return render("study_sheet.html.j2", {"sheet": one, "style": style, "policy": policy(style, beside=True)})


def fragment(name: str, facts: Sequence[tuple[str, str]]) -> str:
    """Return a few facts for a notebook."""
    return render("study_notebook.html.j2", {"name": name, "facts": facts})


def alt(tile: Tile) -> str:
    """Return what a tile's image shows."""
    return f"Map over {tile.name}, {tile.said}"


def numbers(line: Line, report: StudyReport) -> list[Number]:
    """Return a line's means by column, with their intervals drawn on the column's scale."""
    return [_number(line, quantity, report.lines) for quantity in report.quantities]


def _number(line: Line, quantity: Quantity, lines: Sequence[Line]) -> Number:
    found = line.estimates.get(quantity.text)
    if found is None:
        return Number(None, None, None, False, None)
    mean, interval = text(found)
    fewer = f"of {found.count} pictures" if found.count != line.pictures else None
    column = [one.estimates[quantity.text] for one in lines if quantity.text in one.estimates]
    drawn = _interval(found, column) if interval else None
    return Number(mean, interval, drawn, _is_best(line, quantity, lines), fewer)


def _interval(found: Estimate, column: Sequence[Estimate]) -> Interval | None:
    values = [v for e in column for v in (e.low, e.mean, e.high) if not isnan(v)]
    low, high = min(values), max(values)
    if low == high:
        return None
    first, last, mean = (100 * (v - low) / (high - low) for v in (found.low, found.high, found.mean))
    return Interval(round(first, 2), round(last - first, 2), round(mean, 2))


def _is_best(line: Line, quantity: Quantity, lines: Sequence[Line]) -> bool:
    """Return whether no other method's mean is better on the same model, of several."""
    means = [
        one.estimates[quantity.text].mean
        for one in lines
        if one.model == line.model and quantity.text in one.estimates
    ]
    own = [mean for mean in means if not isnan(mean)]
    if quantity.better is None or len(own) < 2:
        return False
    return line.estimates[quantity.text].mean == (max(own) if quantity.better == "higher" else min(own))


def _accuracy(one: Accuracy) -> tuple[str, str, str, str]:
    """Return an accuracy, its interval, and how sure the model is where it is right and where it is wrong."""
    interval = f"{words.percent(one.share.low)} to {words.percent(one.share.high)}"
    right, wrong = ("none" if isnan(e.mean) else words.percent(e.mean) for e in (one.right, one.wrong))
    return words.percent(one.share.mean), interval, right, wrong
