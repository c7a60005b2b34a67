"""A guess of what the model would say of a set of patches, from what it has said of others."""

from collections.abc import Callable
from dataclasses import dataclass, field
from math import log

import torch
from jaxtyping import Float
from torch import Tensor

from whence.graphs.patches import PatchGrid
from whence.methods.sag.oracle import Memo

# How much a patch's own effect, and that of two neighbours together, are drawn towards nothing; and the spread of
# what the sum of the two leaves unsaid, in squared log-odds.
_ALONE, _TOGETHER, _UNSAID = 1.0, 4.0, 0.1
# Log-odds of probabilities nearer to 0 or 1 than this are cut.
_LEAST = 1e-9
# Sets whose value is so many log-odds below what suffices count half: little is learnt there of what would.
_FAR = 4.0
# How many sets of each size the search over guesses keeps.
_WIDTH = 48


def log_odds(probability: float) -> float:
    """Return log(p / (1 - p)), cut where p is next to 0 or 1."""
    p = min(max(probability, _LEAST), 1 - _LEAST)
    return log(p / (1 - p))


@dataclass(eq=False)
class Surrogate:
    """The sum of patches' and of neighbouring pairs' effects that fits all that is known, by ridge regression.

    ``scale`` turns a value into what is summed: log-odds for a probability. ``enough`` is the value that suffices.
    """

    memo: Memo
    scale: Callable[[float], float]
    enough: float

    _fitted: int = field(default=0, init=False)

    def _begin(self) -> None:
        """Make what grows with the square of the patches, once there is something to learn from."""
        n = self.memo.places.count
        self._pairs = neighbours(self.memo.places)
        precision = torch.tensor([_ALONE] * n + [_TOGETHER] * len(self._pairs), dtype=torch.float64)
        self._square = (_UNSAID * precision).diag()
        self._product = torch.zeros(len(precision), dtype=torch.float64)
        self.together = torch.zeros(n, n, dtype=torch.float64)

    def fit(self) -> None:
        """Learn from what was asked since the last time."""
        if not self._fitted:
            self._begin()
        new = list(self.memo.known.items())[self._fitted :]
        self._fitted = len(self.memo.known)
        # The whole picture is far from all small sets, and not on their sum.
        sets = {one: verdict.value for one, verdict in new if one != self.memo.places.whole}
        if not sets:
            return
        said = torch.tensor([self.scale(value) for value in sets.values()], dtype=torch.float64)
        below = (self.scale(self.enough) - said).clamp(min=0)
        weight = 1 / (1 + (below / _FAR) ** 2)
        features = self._features(list(sets))
        self._square += features.T @ (weight[:, None] * features)
        self._product += features.T @ (weight * (said - self.scale(self.memo.known[0].value)))
        effects = torch.linalg.solve(self._square, self._product)
        n = self.memo.places.count
        self.alone = effects[:n]
        first, second = self._pairs.T
        self.together[first, second] = self.together[second, first] = effects[n:]

    def _features(self, sets: list[int]) -> Float[Tensor, "m f"]:
        held = self.memo.places.indicators(sets)
        first, second = self._pairs.T
        return torch.cat([held, held[:, first] * held[:, second]], 1)

    def best(self, size: int, count: int, allowed: Callable[[int], bool]) -> list[int]:
        """Return the ``count`` sets of ``size`` allowed patches of which most is expected and nothing known.

        The sets grow patch by patch, the best guesses of each size first, so that ``allowed`` must hold for a set's
        parts where it holds for the set.
        """
        self.fit()
        sets, guesses = [0], torch.zeros(1, dtype=torch.float64)
        for grown in range(1, size + 1):
            held = self.memo.places.indicators(sets)
            larger = guesses[:, None] + self.alone + held @ self.together
            larger[held.bool()] = -torch.inf
            last = grown == size
            kept: dict[int, float] = {}
            for at in larger.flatten().argsort(descending=True, stable=True).tolist():
                row, patch = divmod(at, self.memo.places.count)
                one = sets[row] | 1 << patch
                if one == sets[row] or len(kept) == (count if last else _WIDTH):
                    break
                if one not in kept and not (last and one in self.memo.known) and allowed(one):
                    kept[one] = float(larger[row, patch])
            sets, guesses = list(kept), torch.tensor(list(kept.values()), dtype=torch.float64)
        return sets


def neighbours(places: PatchGrid) -> Tensor:
    """Return the pairs of patches that lie beside or above each other, [n, 2]."""
    number = torch.arange(places.count).reshape(places.side, places.side)
    beside = torch.stack([number[:, :-1].flatten(), number[:, 1:].flatten()], 1)
    above = torch.stack([number[:-1].flatten(), number[1:].flatten()], 1)
    return torch.cat([beside, above])
