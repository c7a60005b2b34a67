"""How much each part of a creature counts for a classifier, and which suffice: asked of it with every set of them."""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from math import factorial

import numpy as np
import torch
from jaxtyping import Bool, UInt8
from torch import Tensor

from whence.creatures.code import PARTS
from whence.creatures.drawing import NAMES, Creature, draw
from whence.creatures.score import logits
from whence.models.classifier import Classifier

TAG = "tag"
# The players of the game whose outcome is the classifier's answer: deciding parts, and the tag.
Players = frozenset[str]
# Draws one creature in one scene, of the players with these alone.
Redraw = Callable[[Players], Creature]


@dataclass(frozen=True)
class Truth:
    """What a classifier says of one creature, drawn with every set of its players and all else as it is.

    Attributes
    ----------
    pixels
        The whole creature.
    target
        The class that the classifier gives the whole creature.
    log_odds
        log(p / (1 - p)) of that class with each set of players. It does not saturate as the probability does, of
        which any two parts leave nearly all, and evidence from independent sources adds up in it.
    kept
        The share of the class's probability that is left with each set.
    first
        The sets with which the class stays first.
    places
        Where each player is seen in the whole creature. What nothing is seen of has no place: a crest that is
        ``none``, a part behind an occluder.
    """

    pixels: UInt8[np.ndarray, "h w 3"]
    target: int
    log_odds: Mapping[Players, float]
    kept: Mapping[Players, float]
    first: frozenset[Players]
    places: Mapping[str, Bool[Tensor, "h w"]]

    @cached_property
    def importance(self) -> dict[str, float]:
        """How much of the whole creature's log-odds is due to each player: its Shapley value."""
        return shapley(self.log_odds)

    @property
    def without(self) -> dict[str, float]:
        """How far the whole creature's log-odds fall without each player alone."""
        whole = max(self.log_odds, key=len)
        return {one: self.log_odds[whole] - self.log_odds[whole - {one}] for one in sorted(whole)}

    def pairs(self, threshold: float) -> tuple[Players, ...]:
        """Return the pairs of players that alone keep more than a share of the probability."""
        return tuple(players for players, kept in self.kept.items() if len(players) == 2 and kept > threshold)


def shapley(value: Mapping[Players, float]) -> dict[str, float]:
    """Return each player's mean contribution over all orders in which the players may come. Shapley 1953.

    phi_i = sum over the sets S without i of |S|! (n - |S| - 1)! / n! * (v(S + i) - v(S)). ``value`` holds all sets.
    """
    everyone = max(value, key=len)
    n = len(everyone)

    def share(s: Players) -> float:
        return factorial(len(s)) * factorial(n - len(s) - 1) / factorial(n)

    return {i: sum(share(s) * (value[s | {i}] - value[s]) for s in value if i not in s) for i in sorted(everyone)}


def truth(classifier: Classifier, redraw: Redraw, players: Collection[str] = PARTS) -> Truth:
    """Ask a classifier about a creature with every set of its players.

    Raises
    ------
    ModelError
        It has no preprocessing, or another number of classes than there are.
    """
    sets = list(_sets(players))
    drawn = [redraw(own) for own in sets]
    answers = logits(classifier, np.stack([creature.pixels for creature in drawn])).cpu()
    said, target = classifier.scale.probabilities(answers), answers[-1].argmax()
    log_odds = classifier.scale.log_odds(answers.double(), target.expand(len(sets)))
    places = {name: torch.from_numpy(drawn[-1].parts == NAMES.index(name)) for name in players}
    return Truth(
        drawn[-1].pixels,
        int(target),
        dict(zip(sets, log_odds.tolist(), strict=True)),
        dict(zip(sets, (said[:, target] / said[-1, target]).tolist(), strict=True)),
        frozenset(own for own, one in zip(sets, said, strict=True) if one.argmax() == target),
        {name: where for name, where in places.items() if where.any()},
    )


def _sets(players: Collection[str]) -> Iterable[Players]:
    """Yield all sets of players, the smaller ones first."""
    for size in range(len(players) + 1):
        yield from map(frozenset, combinations(players, size))


def redrawing(creature: Creature, seed: int, index: int) -> Redraw:
    """Return what draws the ``index``-th creature that ``draw_many`` draws from a seed again, with some players."""

    def redraw(players: Players) -> Creature:
        # What draw_many itself takes from this generator does not change the creature that it then draws.
        generator = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(index,)))
        tag = creature.tag if TAG in players else None
        return draw(generator, creature.label, keep=players - {TAG}, tag=tag, size=len(creature.pixels))

    return redraw
