"""Does a classifier read the creature, or the tag in the corner? Asked of its answers, and of its maps."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isnan

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from whence.asking import MethodRequest
from whence.attribution import attribute_all
from whence.creatures.code import PARTS
from whence.creatures.drawing import NAMES, Creature
from whence.creatures.score import Predict, answers, predictor, prepared, share
from whence.errors import ModelError
from whence.interpretable.labelled import Progress
from whence.metrics.pointing import pointing_hits
from whence.metrics.relevance_mass import mass_inside
from whence.models.classifier import Classifier

Heat = Float[Tensor, "b h w"]
Mask = Bool[Tensor, "b h w"]


@dataclass(frozen=True)
class Accuracy:
    """Shares of right answers in [0, 1] on the same creatures with three kinds of tags.

    ``own``: each wears the tag of its own class; ``swapped``: of another class; ``none``: no tag. ``follows`` is the
    share of those with a swapped tag that were taken for the tag's class.
    """

    own: float
    swapped: float
    none: float
    follows: float


@dataclass(frozen=True)
class Aim:
    """How maps lie towards some places, as means over the maps, in [0, 1].

    ``pointing``: the share of maps whose highest place is one of them (the pointing game). ``mass``: the share of all
    that speaks for the class that lies there, None where in no map anything does.
    """

    pointing: float
    mass: float | None


@dataclass(frozen=True)
class Reading:
    """Where a method's maps lie: in the tag, and in the four parts that ought to decide."""

    tag: Aim
    parts: Aim


@dataclass(frozen=True)
class Findings:
    """What was found out about a model: its answers, and where its maps lie, by each of the methods asked for."""

    model: str
    accuracy: Accuracy
    readings: Mapping[str, Reading]

    @property
    def verdict(self) -> str:
        """A sentence with its figures; what decides is what most creatures with a swapped tag are taken for."""
        told, (method, first) = self.accuracy, next(iter(self.readings.items()))
        what = "neither the tag nor the creature alone decides"
        if max(told.follows, told.swapped) > 0.5:
            what = "the tag decides" if told.follows > told.swapped else "the creature decides"
        right = f"{told.own:.1%} right with its own tag, {told.swapped:.1%} with another's"
        return f"{what} what {self.model} says: {right}; {first.tag.pointing:.1%} of {method}'s maxima lie on the tag"


def findings(
    classifier: Classifier,
    creatures: Sequence[Creature],
    requests: Mapping[str, MethodRequest],
    count: int,
    seed: int,
    *,
    progress: Progress = lambda stage, done, total: None,
) -> Findings:
    """Ask a classifier for the classes of ``count`` creatures, and explain what it says of those given.

    Raises
    ------
    WhenceError
        As :func:`accuracy` and :func:`reading`.
    """
    told, read = accuracy(predictor(classifier), count, seed), {}
    for number, (name, request) in enumerate(requests.items(), 1):
        progress(classifier.name, number, len(requests) + 1)
        read[name] = reading(classifier, creatures, request, seed=seed)
    progress(classifier.name, len(requests) + 1, len(requests) + 1)
    return Findings(classifier.name, told, read)


def accuracy(predict: Predict, count: int, seed: int) -> Accuracy:
    """Return how often a classifier is right with the right tag, with a wrong one and with none.

    Raises
    ------
    OptionError
        For a count below 1, or a negative seed.
    """
    own, swapped, none = (answers(predict, count, seed, tags=tags) for tags in (1.0, 0.0, None))
    follows = share(swapped.guesses == swapped.tags)
    return Accuracy(share(own.right), share(swapped.right), share(none.right), follows)


def reading(
    classifier: Classifier, creatures: Sequence[Creature], request: MethodRequest, *, seed: int = 0
) -> Reading:
    """Return where the maps of the classifier's top class lie on creatures, by one method.

    Raises
    ------
    WhenceError
        The method cannot explain the model, or what the model's preprocessing does to places is not known.
    """
    ready = prepared(classifier, np.stack([creature.pixels for creature in creatures]))
    x = torch.stack([one.input for one in ready])
    (answer,) = attribute_all(classifier, x, request.method, [None], request.options, seed=seed)
    geometries = [one.geometry for one in ready if one.geometry]
    if len(geometries) < len(ready):
        raise ModelError(
            f"what the preprocessing of {classifier.name} does to places is not known: give it as a model.toml"
        )
    heat = torch.stack([g.to_picture(own) for g, own in zip(geometries, answer.heatmap().cpu(), strict=True)])
    return Reading(_aim(heat, tag_places(creatures)), _aim(heat, deciding_places(creatures)))


def tag_places(creatures: Sequence[Creature]) -> Mask:
    """Return where the tags are."""
    return _places(creatures, ["tag"])


def deciding_places(creatures: Sequence[Creature]) -> Mask:
    """Return where a part is seen that decides."""
    return _places(creatures, PARTS)


def _places(creatures: Sequence[Creature], names: Sequence[str]) -> Mask:
    parts = np.stack([creature.parts for creature in creatures])
    return torch.from_numpy(np.isin(parts, [NAMES.index(name) for name in names]))


def _aim(heat: Heat, places: Mask) -> Aim:
    mass = mass_inside(heat, places).nanmean().item()
    return Aim(pointing_hits(heat, places).mean().item(), None if isnan(mass) else mass)
