"""Where the parts of creatures are, as the measures of interpretable filters take them."""

from collections.abc import Iterable

import numpy as np
import torch
from jaxtyping import Bool, UInt8
from torch import Tensor

from whence.creatures.drawing import NAMES, Creature
from whence.errors import OptionError
from whence.interpretable.measures.maps import Parts

# The eye belongs to the head.
_PARTS = {name: (name,) for name in ("body", "wing", "head", "beak", "crest", "tail", "feet")} | {
    "head": ("head", "eye")
}
_LANDMARKS = ("head", "tail", "feet")
_NOWHERE = (torch.nan, torch.nan)


def creature_parts(creatures: Iterable[Creature]) -> Parts:
    """Return the parts and the landmarks of creatures, in pixels of their pictures.

    The parts are what is seen of body, wing, head with eye, beak, crest, tail and feet; a creature of a species
    without crest, or one that lacks a part, does not contain it. The landmarks are the middles of head, tail and
    feet, also where something hides them; that of the feet lies between the two.

    Raises
    ------
    OptionError
        There is no creature.
    """
    truth = [
        (_places(creature.parts), [creature.centroids.get(name) for name in _LANDMARKS]) for creature in creatures
    ]
    if not truth:
        raise OptionError("there are no creatures: give at least one")
    places, centroids = zip(*truth, strict=True)
    landmarks = [[_NOWHERE if one is None else one[::-1] for one in three] for three in centroids]
    return Parts(tuple(_PARTS), torch.stack(places), _LANDMARKS, torch.tensor(landmarks, dtype=torch.float64))


def _places(parts: UInt8[np.ndarray, "size size"]) -> Bool[Tensor, "p size size"]:
    """Return which pixels show each part."""
    seen = torch.from_numpy(parts)
    groups = [[NAMES.index(name) for name in names] for names in _PARTS.values()]
    return torch.stack([torch.isin(seen, torch.tensor(group, dtype=seen.dtype)) for group in groups])
