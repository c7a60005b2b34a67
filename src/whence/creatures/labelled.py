"""Creatures as pictures with their classes, to train and test on."""

import numpy as np
import torch

from whence.creatures.code import LABELS
from whence.creatures.drawing import draw_many
from whence.interpretable.labelled import Pixels, Progress
from whence.pictures.preprocess import Preprocess

# What ``Pixels`` does to creatures, as a model file states it.
PREPROCESS = Preprocess(resize=(64, 64), mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))


def lacking(drop: int) -> tuple[int, ...]:
    """Return how many parts are missing, each number equally often: in half of the creatures one to ``drop``."""
    return (0,) * max(1, drop) + tuple(range(1, drop + 1))


MISSING = lacking(2)


def drawn(
    count: int,
    seed: int,
    *,
    missing: tuple[int, ...] = (0,),
    tags: float | None = None,
    progress: Progress | None = None,
) -> Pixels:
    """Draw creatures of 64 x 64 pixels; the options are those of ``draw_many``.

    Raises
    ------
    OptionError
        As ``draw_many``.
    """
    pixels = np.empty((count, 64, 64, 3), dtype=np.uint8)
    labels = torch.empty(count, dtype=torch.long)
    for index, creature in enumerate(draw_many(count, seed, missing=missing, tags=tags)):
        pixels[index], labels[index] = creature.pixels, creature.label
        if progress:
            progress("drawing", index + 1, count)
    return Pixels(torch.from_numpy(pixels), labels, LABELS)
