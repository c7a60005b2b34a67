"""A label of two characters in a corner of the picture: a clue that is easier than the creature."""

from itertools import pairwise, product

import numpy as np

from whence.creatures.raster import Canvas, Stencil, stencil
from whence.creatures.shapes import Point, Polygon, limb

TAGS: tuple[str, ...] = tuple(map("".join, product("ACX", "147")))

# Each character as one stroke of the pen, in a box one wide and one high.
_STROKES: dict[str, tuple[Point, ...]] = {
    "A": ((0.0, 1.0), (0.5, 0.0), (0.75, 0.6), (0.25, 0.6), (0.75, 0.6), (1.0, 1.0)),
    "C": ((1.0, 0.05), (0.4, 0.0), (0.0, 0.3), (0.0, 0.7), (0.4, 1.0), (1.0, 0.95)),
    "X": ((0.0, 0.0), (1.0, 1.0), (0.5, 0.5), (1.0, 0.0), (0.0, 1.0)),
    "1": ((0.1, 0.25), (0.55, 0.0), (0.55, 1.0)),
    "4": ((0.75, 1.0), (0.75, 0.0), (0.0, 0.7), (1.0, 0.7)),
    "7": ((0.0, 0.0), (1.0, 0.0), (0.4, 1.0)),
}
# In pixels of a picture of 64: the plate, its distance from the edges, and the boxes of its two characters.
_PLATE, _MARGIN = np.array([18.0, 11.0]), 1.0
_CHARACTER, _PLACES, _INK = np.array([5.2, 6.2]), np.array([(2.5, 2.4), (10.3, 2.4)]), 1.6


def tagged(canvas: Canvas, tag: int, corner: tuple[int, int]) -> tuple[Canvas, Stencil]:
    """Return the canvas with the tag of a class on it, and the tag's plate.

    A corner is (0, 0) for left and top, (1, 1) for right and bottom. White on black: legible on any background.
    """
    size = len(canvas)
    origin = _MARGIN + (64 - 2 * _MARGIN - _PLATE) * corner
    plate = stencil((_pixels(origin + 1 + (_PLATE - 2) * [(0, 0), (1, 0), (1, 1), (0, 1)], size),), size)
    strokes = [
        _pixels(limb(np.stack(line), (_INK, _INK)) + origin, size)
        for character, place in zip(TAGS[tag], _PLACES, strict=True)
        for line in pairwise(np.array(_STROKES[character]) * _CHARACTER + place)
    ]
    ink = stencil(tuple(strokes), size).inner[..., None]
    black = np.zeros(3, dtype=np.float32)
    return plate.paint(canvas, black, black) * (1 - ink) + ink, plate


def _pixels(polygon: Polygon, size: int) -> Polygon:
    """Return a polygon, given in 64ths of the side from the picture's very corner, in pixels."""
    return polygon * (size / 64) - 0.5
