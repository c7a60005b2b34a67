"""The page of a comparison: how far two models' maps are apart, where, for which classes and in which pictures."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isnan, nan

import numpy as np
from jaxtyping import Float

from whence.reports import words
from whence.reports.colours import Scale, scale_of
from whence.reports.comparing_results import ClassLine, CompareReport, Distance, Pair, Shot, Where
from whence.reports.evaluation import text
from whence.reports.images import Encoded, exact
from whence.reports.overlay import colour_bar, on_grid
from whence.reports.page import asset, policy, render
from whence.reports.scores import Estimate

# The longer side of a mean map, in pixels; of a class's, and of the largest.
_SMALL, _LARGE = 64, 256
_MOST_CLASSES = 40
_BAR = 12


@dataclass(frozen=True)
class Number:
    """A mean and its interval in words, None where it is not known; ``less`` says that it is of fewer pictures."""

    mean: str
    interval: str | None
    less: str | None


@dataclass(frozen=True)
class Line:
    """A line of the table; ``numbers`` are by column, None where nothing can be said."""

    title: str
    pictures: int
    numbers: tuple[Number | None, ...]


@dataclass(frozen=True)
class Drawn:
    """An image, what is said of it by those who do not see it, and the line under it."""

    image: Encoded
    alt: str
    caption: str


@dataclass(frozen=True)
class Legend:
    """The colours of a map from left to right, and the values of the first, the middle and the last."""

    bar: Encoded
    ticks: tuple[str, str, str]
    about: str


@dataclass(frozen=True)
class ClassRow:
    """A class: its line, its shares in words, and what places gained and lost, None where no picture says it."""

    line: Line
    agree: str
    right: str | None
    gained: Drawn | None


@dataclass(frozen=True)
class Tile:
    """A picture as it is shown: its images or why there are none, and what is said of it."""

    pair: Pair
    images: tuple[Drawn, ...]
    missing: str | None
    answers: tuple[str, str]
    numbers: str
    marked: bool


def html(report: CompareReport) -> str:
    """Return a page that loads nothing from outside and runs no script."""
    style = asset("report.css", "comparing.css")
    shown = report.classes[:_MOST_CLASSES]
    return render(
        "comparing.html.j2",
        {
            "report": report,
            "style": style,
            "policy": policy(style),
            "verdict": verdict(report),
            "agreement": _agreement(report),
            "failed": list(zip(report.models, report.failed, strict=True)),
            "lines": [_line(one) for one in (*report.groups, *report.anchors)],
            "where": None if report.where is None else _where(report.where, report.models),
            "place": None if report.where is None else place(report.where),
            "classes": [_class(one) for one in shown],
            "left_out": len(report.classes) - len(shown),
            "galleries": [
                (id_, title, about, [_tile(shot, report.models) for shot in shots])
                for id_, title, about, shots in _galleries(report)
                if shots
            ],
        },
    )


def verdict(report: CompareReport) -> str:
    """Return in a sentence how much the maps differ."""
    every = report.groups[0]
    if isnan(every.moved.mean):
        return "No picture has a map on both models that speaks for its class: nothing can be said."
    said = f"Of what speaks for the class, {_share(every.moved)} lies in other places on the second model"
    ends = [words.percent(one.moved.mean) for one in report.anchors if not isnan(one.moved.mean)]
    among = f"; between different pictures on one model it is {' and '.join(dict.fromkeys(ends))}" if ends else ""
    return f"{said}{among}."


def _share(found: Estimate) -> str:
    mean = words.percent(found.mean)
    if isnan(found.low):
        return mean
    return f"{mean} ({words.percent(found.low)} to {words.percent(found.high)})"


def place(where: Where) -> str:
    """Return in a sentence whether what moved did so in the same way in all pictures."""
    net, chance = words.percent(where.net), words.percent(where.chance)
    swapped = f"were the two maps of each picture swapped at random, it would be up to {chance} in 95 % of the cases"
    if where.net > where.chance:
        return (
            f"{net} moves in the same way over the pictures; {swapped}. So the second model looks elsewhere as a "
            "rule, and the third map shows where."
        )
    return f"{net} moves in the same way over the pictures, which is chance: {swapped}. The third map shows no rule."


def _agreement(report: CompareReport) -> str | None:
    """Return in a sentence how often both models give one answer."""
    if report.agreement is None:
        return None
    return f"The same answer is given on both to {_share(report.agreement)} of the pictures."


def _line(one: Distance) -> Line:
    change = one.change
    numbers = (_number(one.moved), _number(one.rank), None if change is None else _number(change))
    return Line(one.title, one.pictures, numbers)


def _number(found: Estimate) -> Number:
    less = f"of {found.count}" if found.undefined and found.count else None
    return Number(*text(found), less)


def _where(where: Where, models: tuple[str, str]) -> tuple[tuple[Drawn, ...], Legend, Legend]:
    """Return the mean maps of both models on one scale, and their difference, with the scales."""
    mean = Scale("positive", float(max(where.first.max(), where.second.max())))
    gained = where.second - where.first
    signed = scale_of(gained, "all")
    images = (
        Drawn(_image(where.first, mean, _LARGE), f"Mean map of {models[0]}", f"{models[0]}: the mean map"),
        Drawn(_image(where.second, mean, _LARGE), f"Mean map of {models[1]}", f"{models[1]}: the mean map"),
        Drawn(_image(gained, signed, _LARGE), "Mean of what places gained and lost", "Gained and lost"),
    )
    return images, _legend(mean, "Share of a map in one cell"), _legend(signed, "Lost, gained in one cell")


def _image(cells: Float[np.ndarray, "g k"], scale: Scale, side: int) -> Encoded:
    """Return a map of cells, its longer side so many pixels."""
    factor = side / max(cells.shape)
    size = (max(1, round(cells.shape[0] * factor)), max(1, round(cells.shape[1] * factor)))
    return exact(scale.rgb(on_grid(cells.astype(np.float32), "sum", size)))


def _legend(scale: Scale, about: str) -> Legend:
    first, middle, last = (words.percent(abs(value)) if value else "0" for value in scale.ticks)
    if scale.sign == "all" and scale.top > 0:
        first, last = f"−{first}", f"+{last}"
    return Legend(exact(colour_bar(scale, _BAR)), (first, middle, last), about)


def _class(one: ClassLine) -> ClassRow:
    title, gained = one.distance.title, None
    if one.gained is not None:
        image = _image(one.gained, scale_of(one.gained, "all"), _SMALL)
        gained = Drawn(image, f"What places gained and lost in pictures of {title}", "")
    right = None if one.right is None else " → ".join(words.percent(share) for share in one.right)
    agree = "not known" if one.agree is None else words.percent(one.agree)
    return ClassRow(_line(one.distance), agree, right, gained)


def _galleries(report: CompareReport) -> list[tuple[str, str, str, Sequence[Shot]]]:
    changed = sum(one.agree is False for one in report.pairs)
    return [
        (
            "most",
            "Pictures whose maps differ most",
            "Of those in which one class is explained on both models; the farthest first.",
            report.most,
        ),
        (
            "changed",
            "Pictures whose answer changed",
            f"{len(report.changed)} of {changed}; those whose maps differ most first.",
            report.changed,
        ),
    ]


def _tile(shot: Shot, models: tuple[str, str]) -> Tile:
    pair = shot.pair
    names = (models[0], models[1], "gained and lost")
    images = tuple(
        Drawn(image, f"{pair.picture}: {name}", name) for image, name in zip(shot.images or (), names, strict=False)
    )
    first, second = (_answer(pair, side) for side in (0, 1))
    change = "" if isnan(pair.change) else f", probability {_signed(pair.change)}"
    numbers = f"moved {_three(pair.moved)}, rank correlation {_three(pair.rank)}{change}"
    return Tile(pair, images, shot.missing, (first, second), numbers, not pair.same)


def _answer(pair: Pair, side: int) -> str:
    """Return what one of the models answers, and what was explained where that is something else."""
    answer, explained = pair.answers[side], pair.explained[side]
    judged = {True: ", right", False: ", wrong", None: ""}[pair.correct[side]]
    if answer is None:
        return f"explained: {explained}"
    return f"{answer}{judged}" + (f"; explained: {explained}" if explained != answer else "")


def _signed(value: float) -> str:
    return f"+{_three(value)}" if value > 0 else _three(value)


def _three(value: float) -> str:
    """Return a number as means are written."""
    return text(Estimate(value, nan, nan, 1, 0))[0]
