"""Curves over the share that is changed, of the area or of something else, as places in a drawing; no markup here."""

from collections.abc import Sequence
from dataclasses import dataclass

from whence.reports import words

# The drawing's size and its plot's edges, in its own units.
WIDTH, HEIGHT = 320, 200
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 312, 8, 162


@dataclass(frozen=True)
class Curve:
    """A curve with its name, and what its legend says of it."""

    name: str
    said: str
    share: Sequence[float]
    value: Sequence[float]


@dataclass(frozen=True)
class Stroke:
    """A curve as the points of a line."""

    name: str
    said: str
    points: str


@dataclass(frozen=True)
class Tick:
    """A number beside an axis."""

    at: float
    text: str


@dataclass(frozen=True)
class Plot:
    """Lines in a frame with its numbers; ``up`` and ``along`` say what the axes measure."""

    strokes: tuple[Stroke, ...]
    across: tuple[Tick, ...]
    upright: tuple[Tick, ...]
    up: str
    along: str
    width: int = WIDTH
    height: int = HEIGHT
    left: int = _LEFT
    right: int = _RIGHT
    top: int = _TOP
    bottom: int = _BOTTOM


def plot(curves: Sequence[Curve], up: str, along: str = "share of the area") -> Plot:
    """Return curves on one scale: from 0 to 1 where they fit, else from the least to the largest value.

    A single value outside stands in the middle of a scale of length 1.
    """
    values = [v for curve in curves for v in curve.value]
    low, high = min(0.0, *values), max(1.0, *values)
    if low < 0 or high > 1:
        low, high = min(values), max(values)
    if low == high:
        low, high = low - 0.5, high + 0.5
    strokes = tuple(Stroke(c.name, c.said, _points(c, low, high)) for c in curves)
    across = tuple(Tick(round(_across(share), 1), words.percent(share)) for share in (0.0, 0.5, 1.0))
    ends = (low, (low + high) / 2, high)
    upright = tuple(Tick(round(_upright(v, low, high), 1), words.number(v)) for v in ends)
    return Plot(strokes, across, upright, up, along)


def _points(curve: Curve, low: float, high: float) -> str:
    pairs = zip(curve.share, curve.value, strict=True)
    return " ".join(f"{_across(share):.1f},{_upright(value, low, high):.1f}" for share, value in pairs)


def _across(share: float) -> float:
    return _LEFT + share * (_RIGHT - _LEFT)


def _upright(value: float, low: float, high: float) -> float:
    return _BOTTOM - (value - low) / (high - low) * (_BOTTOM - _TOP)
