"""The page of counted sub-explanations: curves over the threshold, tables with intervals, paired differences."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import isnan

from whence.reports import words
from whence.reports.counting_results import (
    BY_THRESHOLD,
    SINGLE,
    THRESHOLDS,
    CountReport,
    Difference,
    Figure,
    Group,
    Kind,
    Summary,
    at,
)
from whence.reports.evaluation import text
from whence.reports.page import asset, policy, render
from whence.reports.plot import Curve, Plot, Stroke, plot
from whence.reports.scores import Estimate

_TITLES = {
    "correct": "Pictures that every model classifies correctly",
    "all": "All pictures",
    "whole": "Pictures whose counts are exact for every model",
}
_DRAWN: tuple[Kind, ...] = ("sub", "share")
# What pairs of models are compared by on the page; count.json has the rest.
_COMPARED = {
    "roots": "|M|",
    "compatible:0": "overlap 0",
    "size": "size",
    at("sub", 0.8): "|SUB(0.8)|",
    at("sub", 0.5): "|SUB(0.5)|",
    at("sub", 0.2): "|SUB(0.2)|",
    at("share", 0.5): "|SUB(0.5)| / (2^k − 2)",
    "area": "area",
}
# Models beyond so many have the colours of the first ones.
_COLOURS = 8


@dataclass(frozen=True)
class Line:
    """One model's curve: its colour's number, and the band between the ends of its intervals, None without any."""

    colour: int
    stroke: Stroke
    band: str | None


@dataclass(frozen=True)
class Drawing:
    """All models' curves of what is counted from each threshold on."""

    title: str
    plot: Plot
    lines: tuple[Line, ...]


@dataclass(frozen=True)
class Cell:
    """A mean with its interval and median in words; ``apart`` where the interval does not hold 0."""

    mean: str
    interval: str | None
    median: str | None
    less: str | None
    apart: bool = False


@dataclass(frozen=True)
class Row:
    """A line of a table: what it is, what is said of it, and its cells."""

    title: str
    about: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Section:
    """Everything that is shown of one group of pictures; ``ways`` are the counts of a tree without shared nodes."""

    key: str
    title: str
    group: Group
    drawings: tuple[Drawing, ...]
    rows: tuple[Row, ...]
    ways: tuple[Row, ...]
    trust: tuple[tuple[str, tuple[str, ...]], ...]
    pairs: tuple[Row, ...]


def html(report: CountReport) -> str:
    """Return a page that loads nothing from outside and runs no script."""
    style = asset("report.css", "counting.css")
    return render(
        "counting.html.j2",
        {
            "report": report,
            "style": style,
            "policy": policy(style),
            "threshold": words.percent(report.search.threshold),
            "expand": words.percent(report.search.expand),
            "sections": [_section(group) for group in _told(report)],
            "compared": list(_COMPARED.values()),
            "pictures": _of(report, "all").pictures,
            "notes": list(_notes(report)),
        },
    )


def _of(report: CountReport, key: str) -> Group:
    return next(group for group in report.groups if group.key == key)


def _told(report: CountReport) -> list[Group]:
    """Return the groups that hold pictures, each only once."""
    every = _of(report, "all").pictures
    return [g for g in report.groups if g.pictures and (g.key == "all" or g.pictures != every)]


def _notes(report: CountReport) -> Iterator[str]:
    """Yield what must be known of this study before its numbers are read."""
    search, every, correct, whole = report.search, *(_of(report, key) for key in ("all", "correct", "whole"))
    if report.missing:
        yield f"The study is not finished: {report.missing} graphs are still to be made."
    for model, count in report.failed.items():
        if count:
            yield f"{_pictures(count)} could not be searched on {model}, and stand in no number of this page."
    if not every.pictures:
        yield "No picture has a graph of every model: there is nothing to compare."
        return
    if all(row["correct"] is None for row in report.rows):
        yield "The true classes are not known: nothing is said of the pictures that every model has right."
    elif not correct.pictures:
        yield "No picture is classified correctly by every model."
    elif correct.pictures == every.pictures:
        yield "Every model classifies all these pictures correctly."
    if whole.pictures == every.pictures:
        yield "All counts of subsets are exact: every graph holds all subsets of its sets."
    elif not whole.pictures:
        yield "There is no picture whose counts of subsets are exact for every model."
    for summary in every.summaries:
        if summary.unopened:
            yield (
                f"{summary.model}: {summary.unopened} of {every.pictures} graphs do not hold all subsets of their "
                "sets; there |SUB| is a lower bound, which may be far too low."
            )
    if search.expand > 0:
        yield (
            f"The search shows the subsets of sets worth more than {words.percent(search.expand)} alone: counts of "
            "subsets are lower bounds, run the study with expand=0 for exact ones."
        )
    if search.overlap < 2:
        patches = "1 patch" if search.overlap == 1 else "no patch"
        yield (
            f"The search looked for sets that share at most {patches}: what is counted of a larger overlap is no "
            "more than |M|, run the study with overlap=2 for sets that share more."
        )


def _pictures(count: int) -> str:
    return f"{count} {'picture' if count == 1 else 'pictures'}"


def _section(group: Group) -> Section:
    rows = [_row(group, measure.key, measure.title, measure.about) for measure in SINGLE]
    return Section(
        group.key,
        _TITLES[group.key],
        group,
        tuple(made for kind in _DRAWN if (made := _drawing(group, kind))),
        (*rows, *(row for kind in _DRAWN for row in _by_threshold(group, kind))),
        tuple(_by_threshold(group, "tree")),
        tuple((summary.model, _trust(group, summary)) for summary in group.summaries),
        tuple(_pair(group, one) for one in group.differences),
    )


def _by_threshold(group: Group, kind: Kind) -> list[Row]:
    return [
        _row(group, at(kind, theta), BY_THRESHOLD[kind].replace("θ", f"{theta}"), f"θ = {words.percent(theta)}")
        for theta in THRESHOLDS
    ]


def _row(group: Group, key: str, title: str, about: str) -> Row:
    return Row(title, about, tuple(_cell(group, summary.figures[key]) for summary in group.summaries))


def _cell(group: Group, figure: Figure) -> Cell:
    middle = None if isnan(figure.median) else words.number(figure.median)
    return replace(_mean(group, figure.estimate), median=middle)


def _mean(group: Group, estimate: Estimate) -> Cell:
    mean, interval = text(estimate)
    less = f"of {_pictures(estimate.count)}" if estimate.count != group.pictures else None
    apart = not isnan(estimate.low) and not estimate.low <= 0 <= estimate.high
    return Cell(mean, interval, None, less, apart)


def _pair(group: Group, one: Difference) -> Row:
    cells = (_mean(group, one.estimates[key]) for key in _COMPARED)
    return Row(one.first, one.second, tuple(cells))


def _trust(group: Group, summary: Summary) -> tuple[str, ...]:
    counts = (summary.capped, summary.rootless, summary.limited, summary.unopened)
    return tuple(words.percent(count / group.pictures) for count in counts)


def _drawing(group: Group, kind: Kind) -> Drawing | None:
    """Return the curves of all models on one scale, from 0 to the upper end of the highest interval, if any."""
    shown = [[summary.figures[at(kind, theta)].estimate for theta in THRESHOLDS] for summary in group.summaries]
    values = [v for own in shown for e in own for v in (e.mean, e.high) if not isnan(v)]
    if not values:
        return None
    top = max(values) or 1.0
    curves = [_curve(s.model, own, top) for s, own in zip(group.summaries, shown, strict=True)]
    frame = plot(curves, f"mean {'count' if kind == 'sub' else 'share'}", "θ, share of the probability kept")
    upright = tuple(
        replace(tick, text=words.number(top * part)) for tick, part in zip(frame.upright, (0, 0.5, 1), strict=True)
    )
    lines = tuple(
        Line(number % _COLOURS, stroke, _band(own, top))
        for number, (stroke, own) in enumerate(zip(frame.strokes, shown, strict=True))
    )
    return Drawing(BY_THRESHOLD[kind], replace(frame, upright=upright), lines)


def _curve(model: str, own: Sequence[Estimate], top: float) -> Curve:
    drawn = [(theta, e.mean / top) for theta, e in zip(THRESHOLDS, own, strict=True) if not isnan(e.mean)]
    middle = own[THRESHOLDS.index(0.5)]
    return Curve(
        model, f"{text(middle)[0]} at θ = 50 %", [theta for theta, _ in drawn], [value for _, value in drawn]
    )


def _band(own: Sequence[Estimate], top: float) -> str | None:
    """Return the outline between the lower ends of the intervals and the upper ones."""
    known = [(theta, e) for theta, e in zip(THRESHOLDS, own, strict=True) if not isnan(e.low)]
    if not known:
        return None
    shares = [theta for theta, _ in known]
    low = Curve("", "", shares, [e.low / top for _, e in known])
    high = Curve("", "", shares[::-1], [e.high / top for _, e in known[::-1]])
    return " ".join(stroke.points for stroke in plot([low, high], "").strokes)
