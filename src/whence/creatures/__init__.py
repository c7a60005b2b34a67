"""Drawn pictures whose true answers are known, and how the bundled models are made from them."""

from whence.creatures.code import CLASSES, LABELS, PARTS, SUFFICIENT, VARIANTS, WORDS, Part, candidates, named
from whence.creatures.drawing import NAMES, Creature, draw, draw_many

__all__ = [
    "CLASSES",
    "LABELS",
    "NAMES",
    "PARTS",
    "SUFFICIENT",
    "VARIANTS",
    "WORDS",
    "Creature",
    "Part",
    "candidates",
    "draw",
    "draw_many",
    "named",
]
