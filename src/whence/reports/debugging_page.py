"""The page about clusters of maps."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, UInt8

from whence.reports import words
from whence.reports.debugging_results import (
    SUSPICIOUS,
    Box,
    Check,
    Cluster,
    DebuggingReport,
    Look,
    Repair,
    Shot,
)
from whence.reports.images import Encoded, photo, resized
from whence.reports.overlay import lay, placed
from whence.reports.page import asset, policy, render

# The longer side of a picture among others, and of a cluster's mean, in pixels.
_SMALL, _LARGE = 104, 208
# Between a picture and its map.
_GAP = 4
_QUALITY = 65
_LINE, _FRAME = 2, np.array([255, 216, 77], np.uint8)
# So many of a cluster's classes are named.
_CLASSES = 10


@dataclass(frozen=True)
class Drawn:
    """An image, what is said of it by those who do not see it, and the line under it."""

    image: Encoded
    alt: str
    caption: str
    wrong: bool


@dataclass(frozen=True)
class Card:
    """One cluster as it is shown."""

    number: int
    cluster: Cluster
    reason: str
    facts: tuple[tuple[str, str], ...]
    classes: tuple[tuple[str, int, str], ...]
    more: int
    mean: Drawn
    shots: tuple[Drawn, ...]


def html(report: DebuggingReport) -> str:
    """Return a page that loads nothing from outside and runs no script."""
    style = asset("report.css", "debugging.css")
    return render(
        "debugging.html.j2",
        {
            "report": report,
            "style": style,
            "policy": policy(style),
            "verdict": verdict(report),
            "cards": list(_cards(report)),
            "repair": _repair(report.repair) if report.repair else None,
            "threshold": SUSPICIOUS,
        },
    )


def verdict(report: DebuggingReport) -> str:
    """Return in a sentence what was found."""
    guilty = [cluster.pictures for cluster in report.clusters if cluster.check.suspicious]
    if not guilty:
        return "No cluster is suspicious: nowhere do the decisions hang on one thing at one place."
    among = f"{len(guilty)} of {len(report.clusters)} clusters"
    are = "is" if len(guilty) == 1 else "are"
    return f"{among} {are} suspicious, with {sum(guilty)} of {report.pictures} pictures."


def reason(check: Check) -> str:
    """Return in words why a cluster is suspicious, or why not."""
    lost, elsewhere = words.percent(check.lost), words.percent(check.elsewhere)
    without = (
        f"With the region masked {lost} of the pictures lose their class, with an equal one elsewhere {elsewhere}"
    )
    same = f"what lies there differs {words.percent(check.alike)} less between pictures of one answer than all else"
    if check.suspicious:
        return f"{without}; and {same}: the same thing at the same place decides."
    if check.cause < SUSPICIOUS:
        return f"{without}: the decisions do not hang on this region."
    if check.alike < SUSPICIOUS:
        return f"{without}; but {same}: it is not one thing."
    return f"{without}; and {same}: together too little to be called suspicious."


def _cards(report: DebuggingReport) -> Iterator[Card]:
    for number, (cluster, look) in enumerate(zip(report.clusters, report.looks, strict=True), 1):
        named = cluster.said[:_CLASSES]
        yield Card(
            number=number,
            cluster=cluster,
            reason=reason(cluster.check),
            facts=tuple(_facts(cluster)),
            classes=tuple((label, count, f"{100 * count / cluster.pictures:.2f}") for label, count in named),
            more=len(cluster.said) - len(named),
            mean=_mean(number, look),
            shots=tuple(map(_shot, look.shots)),
        )


def _facts(cluster: Cluster) -> Iterator[tuple[str, str]]:
    check = cluster.check
    yield "Score", f"{check.score:.2f}"
    if cluster.accuracy is not None:
        yield "Accuracy", words.percent(cluster.accuracy)
    yield "Lost without the region", words.percent(check.lost)
    yield "Lost without an equal one", words.percent(check.elsewhere)
    yield "Other class given", words.percent(check.changed)
    yield "Alike in the region", words.percent(check.alike)
    yield "Relevance in the region", words.percent(cluster.inside)
    yield "Region’s share of the picture", words.percent(cluster.area)
    yield "Extent of the mean map", words.percent(cluster.extent)


def _mean(number: int, look: Look) -> Drawn:
    image = photo(mean_map(look), _QUALITY)
    return Drawn(image, f"Cluster {number}: mean map on mean picture", "Mean map on mean picture", False)


def mean_map(look: Look) -> UInt8[np.ndarray, "h w 3"]:
    """Return a cluster's mean picture under its mean map."""
    return _under(_sized(look.pixels, _LARGE), look.heat)


def _shot(shot: Shot) -> Drawn:
    """Return a picture with its region, and beside it its map."""
    pixels = _sized(shot.pixels, _SMALL)
    gap = np.full((len(pixels), _GAP, 3), 255, np.uint8)
    image = photo(np.hstack([_framed(pixels, shot), gap, _under(pixels, shot.heat)]), _QUALITY)
    wrong = shot.truth is not None and shot.truth != shot.said
    caption = f"{shot.said}, not {shot.truth}" if wrong else shot.said
    return Drawn(image, f"{shot.name}, taken for {shot.said}: the picture and its map", caption, wrong)


def _sized(pixels: UInt8[np.ndarray, "h w 3"], side: int) -> UInt8[np.ndarray, "H W 3"]:
    """Return a picture with its longer side of ``side`` pixels."""
    factor = side / max(pixels.shape[:2])
    return resized(pixels, (max(1, round(pixels.shape[0] * factor)), max(1, round(pixels.shape[1] * factor))))


def _under(pixels: UInt8[np.ndarray, "h w 3"], heat: Float[np.ndarray, "g k"]) -> UInt8[np.ndarray, "h w 3"]:
    """Return a picture under a map of its whole."""
    size = (pixels.shape[0], pixels.shape[1])
    fine = placed(None, size).to_picture(torch.from_numpy(np.array(heat, np.float32))).numpy()
    return lay(pixels, fine, "positive", placed(None, size)).blended()


def _framed(pixels: UInt8[np.ndarray, "h w 3"], shot: Shot) -> UInt8[np.ndarray, "h w 3"]:
    """Return a picture with the edge of its region drawn on it."""
    ky, kx = (a / b for a, b in zip(pixels.shape[:2], shot.pixels.shape[:2], strict=True))
    top, left, bottom, right = _scaled(shot.region, ky, kx)
    if top == bottom or left == right:
        return pixels
    drawn = pixels.copy()
    drawn[top:bottom, left:right] = _FRAME
    inner = slice(top + _LINE, bottom - _LINE), slice(left + _LINE, right - _LINE)
    drawn[inner] = pixels[inner]
    return drawn


def _scaled(box: Box, ky: float, kx: float) -> Box:
    top, left, bottom, right = box
    return round(top * ky), round(left * kx), round(bottom * ky), round(right * kx)


def _repair(repair: Repair) -> tuple[tuple[str, int, str, str, str], ...]:
    """Return the lines of the table of trials: name, pictures, before, after, and what was won."""
    return tuple(
        (
            trial.name,
            trial.pictures,
            words.percent(trial.before),
            words.percent(trial.after),
            f"{100 * (trial.after - trial.before):+.1f}".replace("-", "−"),
        )
        for trial in repair.trials
    )
