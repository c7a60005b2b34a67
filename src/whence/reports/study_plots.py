"""Histograms as places in a drawing; no markup here."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from whence.reports import words
from whence.reports.plot import Plot, Tick
from whence.reports.study_results import Histograms, Panel


@dataclass(frozen=True)
class Drawn:
    """A histogram as the paths of its bars and of its outline, empty where there is none."""

    panel: Panel
    bars: str
    outline: str


@dataclass(frozen=True)
class Family:
    """All histograms of a quantity in one frame, on one scale."""

    histograms: Histograms
    frame: Plot
    drawn: tuple[Drawn, ...]


def family(histograms: Histograms) -> Family:
    """Return histograms as drawings; a bin is as high as its share of its group's pictures."""
    shares = [(_shares(panel.filled), _shares(panel.outlined)) for panel in histograms.panels]
    top = max((share for pair in shares for one in pair for share in one), default=0.0) or 1.0
    frame = Plot((), (), (), "share of the pictures", histograms.along)
    ends = (frame.left, (frame.left + frame.right) / 2, frame.right)
    across = tuple(Tick(float(at), said) for at, said in zip(ends, histograms.ticks, strict=True))
    upright = (Tick(float(frame.bottom), "0"), Tick(float(frame.top), words.percent(top)))
    frame = replace(frame, across=across, upright=upright)
    drawn = tuple(
        Drawn(panel, _steps(filled, top, frame), _steps(outlined, top, frame))
        for panel, (filled, outlined) in zip(histograms.panels, shares, strict=True)
    )
    return Family(histograms, frame, drawn)


def _shares(counts: Sequence[int]) -> list[float]:
    whole = sum(counts)
    return [count / whole for count in counts] if whole else []


def _steps(shares: Sequence[float], top: float, frame: Plot) -> str:
    """Return the outer edge of bars that stand side by side."""
    if not shares:
        return ""
    width = (frame.right - frame.left) / len(shares)
    steps = (
        f"V{frame.bottom - share / top * (frame.bottom - frame.top):.1f}H{frame.left + (i + 1) * width:.1f}"
        for i, share in enumerate(shares)
    )
    return f"M{frame.left} {frame.bottom}{''.join(steps)}V{frame.bottom}"
