"""The course of a training as small plots over its epochs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import inf, isfinite

from whence.reports import words
from whence.reports.filters import Entry, Phase
from whence.reports.plot import Curve, Plot, Stroke, Tick, plot

# An axis is at least so long, of its largest value: noise must not look like a change.
_LEAST = 0.1
_PHASES: dict[Phase, str] = {"plain": "ordinary net", "control": "control", "interpretable": "interpretable net"}


@dataclass(frozen=True)
class Drawing:
    """One plot with its title and what is said under it; each line with the number of its style."""

    title: str
    about: str
    plot: Plot
    lines: tuple[tuple[int, Stroke], ...]


@dataclass(frozen=True)
class _Quantity:
    """What is plotted: its title and unit, what is said of it, where it stands in an entry, and its largest value."""

    title: str
    up: str
    about: str
    value: Callable[[Entry], float | None]
    most: float = inf


_QUANTITIES = (
    _Quantity("Accuracy", "held-out", "Share of held-out pictures that are recognised.", lambda e: e.accuracy, 1.0),
    _Quantity("Loss of the task", "loss", "What the training was for in the first place.", lambda e: e.task),
    _Quantity(
        *("Weight of the filter loss", "weight"),
        "Follows the two gradients on the map, so that the filters pull as strongly as asked for.",
        lambda e: e.weight,
    ),
    _Quantity("Prior term", "nats", "Minus the entropy of the templates: a constant.", lambda e: e.prior),
    _Quantity(
        *("Inter-category term", "nats"),
        "Low where a map tells whether its filter fires at all.",
        lambda e: e.inter_category,
    ),
    _Quantity("Spatial term", "nats", "Low where a map that fires tells where.", lambda e: e.spatial),
    _Quantity(
        *("Filters that changed category", "filters"),
        "Since the entry before; a training that settles ends at 0.",
        lambda e: e.changed,
    ),
)


def drawings(course: Sequence[Entry]) -> list[Drawing]:
    """Return a plot for each quantity that the course holds."""
    return [made for quantity in _QUANTITIES if (made := _drawing(course, quantity))]


def _drawing(course: Sequence[Entry], quantity: _Quantity) -> Drawing | None:
    found = {phase: _points(course, phase, quantity) for phase in _PHASES}
    values = [value for points in found.values() for _, value in points]
    if not values:
        return None
    epochs = [epoch for points in found.values() for epoch, _ in points]
    across, upright = _Scale.of(epochs), _Scale.of(values, _LEAST * max(map(abs, values)), quantity.most)
    numbers = [number for number, points in enumerate(found.values()) if points]
    curves = [
        Curve(
            *(_PHASES[phase], words.number(points[-1][1])),
            [across.unit(epoch) for epoch, _ in _drawn(points)],
            [upright.unit(value) for _, value in _drawn(points)],
        )
        for phase, points in found.items()
        if points
    ]
    made = plot(curves, quantity.up, "epoch")
    made = replace(made, across=_epochs(made, epochs, across), upright=_values(made, upright))
    return Drawing(quantity.title, quantity.about, made, tuple(zip(numbers, made.strokes, strict=True)))


def _points(course: Sequence[Entry], phase: Phase, quantity: _Quantity) -> list[tuple[float, float]]:
    """Return a phase's epochs and values; what follows the ordinary net counts on from its last epoch."""
    before = 0 if phase == "plain" else max((e.epoch for e in course if e.phase == "plain"), default=0)
    pairs = [(before + e.epoch, quantity.value(e)) for e in course if e.phase == phase]
    return [(float(epoch), float(value)) for epoch, value in pairs if value is not None and isfinite(value)]


def _drawn(points: Sequence[tuple[float, float]]) -> Sequence[tuple[float, float]]:
    """Return the points of a line; a single one twice, since a line of one point is not drawn."""
    return points if len(points) > 1 else [*points, *points]


@dataclass(frozen=True)
class _Scale:
    """An axis from ``low`` to ``high``."""

    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float], least: float = 0.0, most: float = inf) -> "_Scale":
        """Return the axis that holds all values, of a length of at least ``least`` and to no more than ``most``.

        A single value stands in the middle of a length of 1 where no other is asked for.
        """
        low, high = min(values), max(values)
        wider = max(0.0, (least or 1.0 * (low == high)) - (high - low)) / 2
        beyond = max(0.0, high + wider - most)
        return cls(low - wider - beyond, high + wider - beyond)

    def unit(self, value: float) -> float:
        """Return the place of a value, from 0 to 1."""
        return (value - self.low) / (self.high - self.low)


def _epochs(made: Plot, epochs: Sequence[float], scale: _Scale) -> tuple[Tick, ...]:
    """Return whole numbers: the first epoch, the last, and one between them."""
    low, high = min(epochs), max(epochs)
    told = sorted({low, float(round((low + high) / 2)), high})
    return tuple(Tick(round(made.left + scale.unit(e) * (made.right - made.left), 1), f"{e:.0f}") for e in told)


def _values(made: Plot, scale: _Scale) -> tuple[Tick, ...]:
    """Return the ends of the axis; the middle is left to what the axis measures."""
    lowest, _, highest = made.upright
    return replace(lowest, text=words.number(scale.low)), replace(highest, text=words.number(scale.high))
