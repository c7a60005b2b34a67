"""The page about the filters of a trained model, and the folder that it is written into."""

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from math import isfinite, isnan, nan
from pathlib import Path

import numpy as np
from jaxtyping import Bool, UInt8

from whence.errors import OutputError
from whence.reports import swap, words
from whence.reports.colours import Scale
from whence.reports.course import drawings
from whence.reports.fields import outlined
from whence.reports.filters import Filter, FilterReport, Measure, Pair, Step, Walk, figures, ratio
from whence.reports.images import Encoded, photo, png
from whence.reports.page import asset, policy, render

PAGE, FIGURES = "filters.html", "filters.json"

# The longer side of a filter's pictures, and of those whose filters are shown one by one, in pixels.
_SMALL, _LARGE = 112, 192
_QUALITY = 60
_UNKNOWN = "not measured"


@dataclass(frozen=True)
class Picture:
    """An image with what is said of it by those who do not see it."""

    image: Encoded
    alt: str


@dataclass(frozen=True)
class Line:
    """One line of the table of measures."""

    measure: Measure
    values: tuple[str, ...]
    ratio: str


@dataclass(frozen=True)
class Side:
    """One filter in one net: title, figures by name, and pictures with the peak on each."""

    title: str
    figures: Mapping[str, str]
    pictures: tuple[tuple[Picture, str], ...]


@dataclass(frozen=True)
class Group:
    """All filters of a category, each with its number, its part and its sides."""

    category: str | None
    filters: tuple[tuple[int, str | None, tuple[Side, ...]], ...]


@dataclass(frozen=True)
class Stage:
    """What one filter makes of a picture, in images with what stands under each."""

    step: Step
    contribution: str
    images: tuple[tuple[str, Picture], ...]


def check(folder: str | os.PathLike[str]) -> None:
    """Refuse a folder that is not new or empty, before any work is done for it.

    Raises
    ------
    OutputError
        It is a file, holds something, or cannot be made.
    """
    swap.check(folder)
    if Path(folder).is_dir() and any(Path(folder).iterdir()):
        raise OutputError(f"{os.fspath(folder)!r} is not empty: give a new or an empty folder")


def write(report: FilterReport, folder: str | os.PathLike[str]) -> Path:
    """Write filters.html and filters.json, all or nothing; return the page's path.

    Raises
    ------
    OutputError
        As ``check``.
    """
    check(folder)
    with swap.replacing(folder) as built:
        (built / PAGE).write_text(html(report), "utf-8")
        (built / FIGURES).write_text(json.dumps(figures(report), indent=1, allow_nan=False) + "\n", "utf-8")
    return Path(folder) / PAGE


def html(report: FilterReport) -> str:
    """Return a page that loads nothing from outside and runs no script."""
    style = asset("report.css", "filters.css")
    return render(
        "filters.html.j2",
        {
            "report": report,
            "style": style,
            "policy": policy(style),
            "accuracy": {name: words.percent(share) for name, share in report.accuracy.items()},
            "lines": [_line(report, measure) for measure in report.measures],
            "templates": list(_templates(report)),
            "slopes": " to ".join(dict.fromkeys(map(words.number, report.templates.slopes))),
            "course": drawings(report.course),
            "groups": list(_groups(report)),
            "walks": [(walk, _whole(walk), [_stage(walk, step) for step in walk.steps]) for walk in report.walks],
        },
    )


def _line(report: FilterReport, measure: Measure) -> Line:
    values = tuple(_value(measure, net.values) for net in report.nets)
    share = ratio(report, measure)
    return Line(measure, values, "–" if isnan(share) else f"× {share:.2f}")


def _value(measure: Measure, values: Mapping[str, float]) -> str:
    """Return a measure with its decimals, so that a column can be compared."""
    value = values.get(measure.key, nan)
    return f"{value:.{measure.digits}f}" if isfinite(value) else _UNKNOWN


def _templates(report: FilterReport) -> Iterator[tuple[str, Picture]]:
    """Yield the templates drawn, each with its name."""
    scale = Scale("all", 1.0)
    for (row, column), values in report.templates.positive:
        name = f"around row {row + 1}, column {column + 1}"
        yield name, Picture(png(scale.rgb(values)), f"Positive template {name}")
    yield "negative", Picture(png(scale.rgb(report.templates.negative)), "Negative template: the same everywhere")


def _groups(report: FilterReport) -> Iterator[Group]:
    """Yield the filters of each category, in the order in which they come."""
    for category, pairs in groupby(report.pairs, key=lambda pair: pair.interpretable.category):
        shown = ((pair.number, pair.interpretable.part, tuple(_sides(report, pair))) for pair in pairs)
        yield Group(category, tuple(shown))


def _sides(report: FilterReport, pair: Pair) -> Iterator[Side]:
    yield _side(report, "Interpretable net", pair.interpretable)
    if pair.ordinary is not None and report.ordinary is not None:
        yield _side(report, report.ordinary, pair.ordinary)


def _side(report: FilterReport, title: str, one: Filter) -> Side:
    measured = {
        m.title: " ".join(filter(None, (_value(m, one.values), one.parts.get(m.key))))
        for m in report.measures
        if m.key in one.values
    }
    pictures = (
        (Picture(_field(shot.pixels, shot.field, _SMALL), f"{shot.name}, {shot.label}"), words.number(shot.peak))
        for shot in one.shots
    )
    return Side(title, measured, tuple(pictures))


def _field(pixels: UInt8[np.ndarray, "h w 3"], field: Bool[np.ndarray, "h w"], side: int) -> Encoded:
    return photo(outlined(pixels, field, side), _QUALITY)


def _whole(walk: Walk) -> Picture:
    everywhere = np.ones(walk.pixels.shape[:2], bool)
    return Picture(_field(walk.pixels, everywhere, _LARGE), walk.name)


def _stage(walk: Walk, step: Step) -> Stage:
    """Return the images of one filter; its raw map and its masked map have one scale."""
    scale, signed = Scale("positive", float(step.raw.max(initial=0.0))), Scale("all", 1.0)
    row, column = (place + 1 for place in step.at)
    images = (
        ("in the picture", _field(walk.pixels, step.field, _LARGE)),
        (f"raw map, up to {words.number(scale.top)}", png(scale.rgb(step.raw))),
        (f"template around row {row}, column {column}", png(signed.rgb(step.template))),
        ("masked map", png(scale.rgb(step.masked))),
    )
    named = tuple((name, Picture(image, f"Filter {step.number}: {name}")) for name, image in images)
    return Stage(step, words.number(step.contribution), named)
