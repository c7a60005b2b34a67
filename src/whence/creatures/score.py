"""How well a classifier knows the creatures, also with parts missing."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from whence.creatures.code import CLASSES
from whence.creatures.drawing import draw_many
from whence.errors import OptionError

# Pictures in, one probability (or any other score) for each class out.
Predict = Callable[[UInt8[np.ndarray, "b h w 3"]], Float[Tensor, "b k"]]

_BATCH = 250


@dataclass(frozen=True)
class Score:
    """Shares of right answers in [0, 1], each from ``count`` pictures.

    ``whole``, ``one_missing`` and ``two_missing`` say how many of the four deciding parts were left out; two can be
    spared, since any two decide. ``classes`` are the shares in each class for whole creatures, NaN where a class was
    never drawn.
    """

    whole: float
    one_missing: float
    two_missing: float
    classes: tuple[float, ...]
    count: int
    seed: int


def score(predict: Predict, count: int = 2000, seed: int = 1, *, tags: float | None = None) -> Score:
    """Score a classifier on creatures of a seed that it was not trained on.

    ``tags`` is the share that wear the tag of their own class, as for :func:`~whence.creatures.drawing.draw_many`.

    Raises
    ------
    OptionError
        For a count below 1, or a negative seed.
    """
    if count < 1:
        raise OptionError(f"cannot score on {count} creatures: give a count of 1 or more")
    (labels, whole), (_, one), (_, two) = (_answers(predict, count, seed, missing, tags) for missing in range(3))
    classes = tuple(_share(whole[labels == label]) for label in range(CLASSES))
    return Score(_share(whole), _share(one), _share(two), classes, count, seed)


def _answers(
    predict: Predict, count: int, seed: int, missing: int, tags: float | None
) -> tuple[Int[Tensor, " n"], Bool[Tensor, " n"]]:
    """Return the classes of the creatures, and whether each was recognised."""
    creatures = draw_many(count, seed, missing=(missing,), tags=tags)
    labels, guesses = [], []
    while batch := list(islice(creatures, _BATCH)):
        labels.append(torch.tensor([creature.label for creature in batch]))
        guesses.append(predict(np.stack([creature.pixels for creature in batch])).argmax(1).cpu())
    true = torch.cat(labels)
    return true, torch.cat(guesses) == true


def _share(right: Bool[Tensor, " n"]) -> float:
    return right.double().mean().item()
