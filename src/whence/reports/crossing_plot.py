"""A landscape of models as places in a drawing, both axes on one scale; no markup here."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import cos, degrees, hypot, sin

from whence.reports import words
from whence.reports.crossing_results import Ellipse, Landscape
from whence.reports.plot import Plot, Tick

# The drawing's size and its plot's edges, in its own units; on a line each model has a row of its own.
_WIDTH, _HEIGHT, _ROW = 420, 320, 34
_LEFT, _RIGHT, _TOP = 76, 408, 10
# Below the plot stand its numbers and what they are of.
_BELOW = 40
# Free space around the outermost ellipses, as a share of the range.
_MARGIN = 0.12
# A name's size, and its distance from the point; a letter's width is about right.
_LETTER, _AWAY = 6.2, 7.0
# How far below its point the line is that a name stands on: the first is level with the point. Above it in a row.
_BELOW_POINT, _ABOVE_BAR = (4, 17, -9, 30, -22), (-7,)
_LONGEST = 24

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Oval:
    """An ellipse: middle, half lengths of the axes, and by how many degrees it is turned clockwise."""

    x: float
    y: float
    rx: float
    ry: float
    turned: float


@dataclass(frozen=True)
class Label:
    """Where a name stands: where it has its ``anchor``, its start or end, and the line that it stands on."""

    x: float
    y: float
    anchor: str


@dataclass(frozen=True)
class Mark:
    """A model's point, its name and its ellipse."""

    model: str
    name: str
    x: float
    y: float
    label: Label
    oval: Oval | None


@dataclass(frozen=True)
class Scatter:
    """All models in a frame."""

    frame: Plot
    marks: tuple[Mark, ...]


@dataclass(frozen=True)
class _View:
    """What part of a landscape is drawn: its middle, how much of it one unit of the drawing is, and the lower edge.

    Without a ``plane`` each model stands in a row of its own.
    """

    middle: tuple[float, float]
    unit: float
    bottom: int
    plane: bool

    @classmethod
    def of(cls, made: Landscape) -> "_View":
        """Return the view that shows every point and ellipse; an equal length is an equal distance on both axes."""
        plane = made.dimensions == 2
        bottom = _HEIGHT - _BELOW if plane else _TOP + _ROW * len(made.points)
        (left, right), (low, high) = _range(made, 0), _range(made, 1)
        unit = max((right - left) / (_RIGHT - _LEFT), (high - low) / (bottom - _TOP))
        return cls(((left + right) / 2, (low + high) / 2), unit, bottom, plane)

    def place(self, at: tuple[float, float], number: int) -> tuple[float, float]:
        x = (_LEFT + _RIGHT) / 2 + (at[0] - self.middle[0]) / self.unit
        y = (_TOP + self.bottom) / 2 - (at[1] - self.middle[1]) / self.unit
        return round(x, 1), round(y, 1) if self.plane else _TOP + _ROW * (number + 0.6)

    def oval(self, one: Ellipse, number: int) -> Oval:
        rx, ry = (round(max(radius / self.unit, 1.5), 1) for radius in one.radii)
        return Oval(*self.place(one.middle, number), rx, ry, round(-degrees(one.angle), 1))

    def ticks(self, axis: int, ends: tuple[int, int]) -> tuple[Tick, ...]:
        """Return three numbers along an axis that is drawn between two ends."""
        values = (self.middle[axis] + part * self.unit * abs(ends[1] - ends[0]) / 2 for part in (-1, 0, 1))
        places = (ends[0], (ends[0] + ends[1]) / 2, ends[1])
        return tuple(Tick(float(at), _number(value)) for at, value in zip(places, values, strict=True))


def scatter(made: Landscape) -> Scatter:
    """Return the drawing of a landscape."""
    view = _View.of(made)
    spots = [view.place(point.at, number) for number, point in enumerate(made.points)]
    names = [words.cut(point.model, _LONGEST) for point in made.points]
    labels = _labels(spots, names, view)
    marks = []
    for number, (point, name, spot, label) in enumerate(zip(made.points, names, spots, labels, strict=True)):
        oval = None if point.ellipse is None else view.oval(point.ellipse, number)
        marks.append(Mark(point.model, name, *spot, label, oval))
    frame = Plot(
        strokes=(),
        across=view.ticks(0, (_LEFT, _RIGHT)),
        upright=view.ticks(1, (view.bottom, _TOP)) if view.plane else (),
        up=f"second axis, {words.percent(made.shares[1])}" if view.plane else "",
        along=f"first axis, {words.percent(made.shares[0])}",
        width=_WIDTH,
        height=view.bottom + _BELOW,
        left=_LEFT,
        right=_RIGHT,
        top=_TOP,
        bottom=view.bottom,
    )
    return Scatter(frame, tuple(marks))


def _number(value: float) -> str:
    return words.number(0.0 if abs(value) < 1e-9 else value)


def _range(made: Landscape, axis: int) -> tuple[float, float]:
    """Return from where to where points and ellipses reach along an axis, with a margin."""
    ends = [point.at[axis] for point in made.points]
    for point in made.points:
        if (one := point.ellipse) is not None:
            turn = (cos(one.angle), sin(one.angle)), (-sin(one.angle), cos(one.angle))
            half = hypot(*(radius * along[axis] for radius, along in zip(one.radii, turn, strict=True)))
            ends += [one.middle[axis] - half, one.middle[axis] + half]
    margin = _MARGIN * (max(ends) - min(ends))
    return min(ends) - margin, max(ends) + margin


def _labels(spots: Sequence[tuple[float, float]], names: Sequence[str], view: _View) -> Iterator[Label]:
    """Yield where each name stands: to the right or left of its point, where no other name or point is."""
    taken: list[Box] = [(x - 4, y - 4, x + 4, y + 4) for x, y in spots]
    for (x, y), name in zip(spots, names, strict=True):
        wide = _LETTER * len(name)
        choices = [
            label
            for below in (_BELOW_POINT if view.plane else _ABOVE_BAR)
            for label in (Label(x + _AWAY, y + below, "start"), Label(x - _AWAY, y + below, "end"))
        ]
        inside = [c for c in choices if _inside(_box(c, wide), view.bottom)]
        free = [c for c in inside if not any(_overlap(_box(c, wide), other) for other in taken)]
        chosen = (free or inside or choices)[0]
        taken.append(_box(chosen, wide))
        yield Label(round(chosen.x, 1), round(chosen.y, 1), chosen.anchor)


def _box(label: Label, wide: float) -> Box:
    left = label.x - (wide if label.anchor == "end" else 0)
    return left, label.y - 10, left + wide, label.y + 3


def _inside(box: Box, bottom: int) -> bool:
    return box[0] >= _LEFT and box[1] >= _TOP and box[2] <= _WIDTH and box[3] <= bottom


def _overlap(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
