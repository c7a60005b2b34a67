"""A library's preprocessing in our own terms, which carry exact geometry; believed only where both agree."""

from collections.abc import Callable, Iterable
from typing import Any

import torch

from whence.pictures.foreign import ForeignPreprocess
from whence.pictures.preprocess import Prepared, Preprocess, Preprocessing
from whence.pictures.read import Picture

# Two levels of 255: libraries round to whole levels after the resize, and once more in between.
_TOLERANCE = 2 / 255


def stated_or_own(readings: Iterable[Preprocess], own: Callable[..., Any]) -> Preprocessing:
    """Return the first reading that does to a test card what the library's callable does, or else the callable."""
    card = _card()
    foreign = ForeignPreprocess(own)
    theirs = foreign(card)
    return next((reading for reading in readings if _agree(reading, theirs, card)), foreign)


def _agree(reading: Preprocess, theirs: Prepared, card: Picture) -> bool:
    ours = reading(card)
    if ours.input.shape != theirs.input.shape:
        return False
    off = reading.pixels.to_pixels(ours.input) - reading.pixels.to_pixels(theirs.input)
    return bool(off.abs().max() <= _TOLERANCE)


def _card(height: int = 300, width: int = 450) -> Picture:
    """Return a colour picture with slopes and edges.

    Its contrast is moderate: a bicubic filter overshoots at edges, and the libraries clip that between the axes.
    """
    y, x = torch.linspace(0, 1, height)[:, None], torch.linspace(0, 1, width)[None, :]
    waves = torch.stack((torch.sin(9 * x + 4 * y), torch.sin(7 * y - 5 * x), torch.cos(11 * x * y)))
    blocks = ((x * 7).floor() + (y * 5).floor()) % 2
    pixels = 0.5 + 0.15 * waves + torch.tensor([0.1, -0.1, 0.05]).reshape(3, 1, 1) * (2 * blocks - 1)
    return Picture("card", (pixels * 255).round().byte(), "", ())
