"""How well a classifier knows the creatures, also with parts missing or with a tag."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from whence.creatures.code import CLASSES
from whence.creatures.drawing import draw_many
from whence.errors import ModelError, OptionError
from whence.models.classifier import Classifier
from whence.models.session import chunk_size, move, opened
from whence.pictures.preprocess import Prepared
from whence.pictures.read import read

# Pictures in, one probability (or any other score) for each class out.
Predict = Callable[[UInt8[np.ndarray, "b h w 3"]], Float[Tensor, "b k"]]

_BATCH = 250


@dataclass(frozen=True)
class Score:
    """Shares of right answers in [0, 1], each from ``count`` pictures.

    ``whole``, ``one_missing`` and ``two_missing`` say how many of the four deciding parts were left out; two can be
    spared, since any two decide. ``classes`` are the shares in each class for whole creatures, NaN where a class was
    never drawn. ``tags`` is the share of creatures that wore their own tag, None where none wore any.
    """

    whole: float
    one_missing: float
    two_missing: float
    classes: tuple[float, ...]
    count: int
    seed: int
    tags: float | None = None


@dataclass(frozen=True)
class Answers:
    """What a classifier took creatures for, beside their classes and those of their tags, -1 for no tag."""

    labels: Int[Tensor, " n"]
    tags: Int[Tensor, " n"]
    guesses: Int[Tensor, " n"]

    @property
    def right(self) -> Bool[Tensor, " n"]:
        """Which creatures were recognised."""
        return self.guesses == self.labels


def score(predict: Predict, count: int = 2000, seed: int = 1, *, tags: float | None = None) -> Score:
    """Score a classifier on creatures of a seed that it was not trained on.

    ``tags`` is the share that wear the tag of their own class, as for :func:`~whence.creatures.drawing.draw_many`.

    Raises
    ------
    OptionError
        For a count below 1, a negative seed, and tags that are no share.
    """
    whole, one, two = (answers(predict, count, seed, missing=missing, tags=tags) for missing in range(3))
    classes = tuple(share(whole.right[whole.labels == label]) for label in range(CLASSES))
    return Score(share(whole.right), share(one.right), share(two.right), classes, count, seed, tags)


def answers(predict: Predict, count: int, seed: int, *, missing: int = 0, tags: float | None = None) -> Answers:
    """Ask a classifier about creatures, all of which lack ``missing`` of the four deciding parts.

    Raises
    ------
    OptionError
        As :func:`score`.
    """
    if count < 1:
        raise OptionError(f"cannot score on {count} creatures: give a count of 1 or more")
    creatures, known, guesses = draw_many(count, seed, missing=(missing,), tags=tags), [], []
    while batch := list(islice(creatures, _BATCH)):
        known += [(creature.label, -1 if creature.tag is None else creature.tag) for creature in batch]
        guesses.append(predict(np.stack([creature.pixels for creature in batch])).argmax(1).cpu())
    labels, worn = torch.tensor(known).unbind(1)
    return Answers(labels, worn, torch.cat(guesses))


def share(chosen: Bool[Tensor, " n"]) -> float:
    """Return which share of n is chosen, NaN where n is 0."""
    return chosen.double().mean().item()


def predictor(classifier: Classifier) -> Predict:
    """Return the function from pixels to probabilities that :func:`score` asks for; it raises as :func:`logits`."""
    return lambda pixels: classifier.scale.probabilities(logits(classifier, pixels))


def logits(classifier: Classifier, pixels: UInt8[np.ndarray, "b h w 3"]) -> Float[Tensor, "b k"]:
    """Return what a classifier says of pictures.

    Raises
    ------
    ModelError
        It has no preprocessing, or another number of classes than there are.
    """
    x = move(classifier, torch.stack([one.input for one in prepared(classifier, pixels)]))
    with opened(classifier) as session:
        said = torch.cat([session.logits(session.run(part)) for part in torch.split(x, chunk_size(x))])
        session.finite(said, "what the model says")
    if said.shape[1] != CLASSES:
        raise ModelError(
            f"{classifier.name} tells {said.shape[1]} classes apart, and there are {CLASSES} species of "
            "creatures: give a model that was trained on them, as `whence creatures train` does"
        )
    return said


def prepared(classifier: Classifier, pixels: UInt8[np.ndarray, "b h w 3"]) -> list[Prepared]:
    """Return pictures as the classifier takes them.

    Raises
    ------
    ModelError
        It has no preprocessing.
    """
    preprocess = classifier.preprocess
    if preprocess is None:
        raise ModelError(f"{classifier.name} states no preprocessing: write it into the model file's [preprocess]")
    return [preprocess(read(picture)) for picture in pixels]
