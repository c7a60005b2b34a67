"""From what models say of each other's maps to the matrix of cross-testing."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from whence.reports.crossing_results import Cell
from whence.reports.scores import Asked, estimate

# Below this change of the judge's probability from nothing of the picture to the whole, a quotient by it is noise.
LEAST = 0.05


@dataclass(frozen=True, eq=False)
class Judgements:
    """What M models say of each other's maps, by one method and metric, on n pictures.

    Attributes
    ----------
    method, metric, models
        What was judged and how, and the models' names.
    auc, full, base
        [n, M, M]: of the map of one model (first M) on another: the area under its curve, the judge's probability of
        the class explained on the whole picture, and where nothing of it is left. NaN where a map was not judged.
    correct
        [n, M]: which model classifies which picture correctly; None where the truth is not known.
    """

    method: str
    metric: Asked
    models: tuple[str, ...]
    auc: Float[Tensor, "n m m"]
    full: Float[Tensor, "n m m"]
    base: Float[Tensor, "n m m"]
    correct: Bool[Tensor, "n m"] | None = None

    @property
    def missing(self) -> Bool[Tensor, "n m m"]:
        """Which maps were not judged."""
        return (self.auc + self.full + self.base).isnan()

    @property
    def small(self) -> Bool[Tensor, "n m m"]:
        """Where the judge's probability hardly changes from nothing of the picture to the whole."""
        return (self.full - self.base).abs() < LEAST

    @property
    def scores(self) -> Float[Tensor, "n m m"]:
        """S = (AUC - p(base)) / (p(full) - p(base)); NaN where a map was not judged, or the range is small."""
        return torch.where(self.small, torch.nan, (self.auc - self.base) / (self.full - self.base))

    def among_correct(self) -> "Judgements | None":
        """Return the pictures that every model classifies correctly; None where the truth is not known."""
        if self.correct is None:
            return None
        own = self.correct.all(1)
        return replace(self, auc=self.auc[own], full=self.full[own], base=self.base[own], correct=self.correct[own])


def mean(scores: Float[Tensor, "n m m"]) -> Float[Tensor, "m m"]:
    """Return the matrix: each mean over the pictures that have a number, NaN where none has."""
    return scores.nanmean(0)


def matrix(of: Judgements, seed: int = 0) -> tuple[tuple[Cell, ...], ...]:
    """Return each mean with its 95 % interval by bootstrap over pictures, and how many pictures were left out."""
    scores, missing = of.scores, of.missing.sum(0).tolist()
    small = (of.small & ~of.missing).sum(0).tolist()
    places = range(len(of.models))
    return tuple(
        tuple(Cell(estimate(scores[:, a, b].tolist(), seed), small[a][b], missing[a][b]) for b in places)
        for a in places
    )
