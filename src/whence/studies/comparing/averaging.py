"""Two models' maps of many pictures, compared picture by picture and on average; the maps are seen once, in order."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from whence.studies.comparing.measures import coarse, moved, others, rank_correlation, shares

# So many pictures' maps are held to compare different pictures: what is known of more is hardly better known.
_HELD = 256
# So often the two maps of every picture are swapped at random.
SWAPS = 199
_CHANCE = 0.95

Pairs = Iterable[tuple[Float[Tensor, "b h w"], Float[Tensor, "b h w"]]]


@dataclass(frozen=True, eq=False)
class Distances:
    """How far maps are from each other: ``moved`` and ``rank``, NaN where not defined."""

    moved: Float[Tensor, " n"]
    rank: Float[Tensor, " n"]


@dataclass(frozen=True, eq=False)
class Means:
    """The mean shares of the first and of the second model, over the ``count`` pictures that have both.

    ``net`` is 1/2 sum |mean(q - p)|, what moves the same way in all pictures. ``chance`` is what it is below in 95 %
    of the times that the two maps of each picture are swapped at random.
    """

    first: Float[Tensor, "g k"]
    second: Float[Tensor, "g k"]
    count: int
    net: float
    chance: float


@dataclass(frozen=True, eq=False)
class Compared:
    """Two models' maps of n pictures.

    Attributes
    ----------
    distances
        Between the two models' maps of each picture.
    anchors
        Between each model's maps of different pictures.
    means
        None where no picture has a positive part on both models.
    gained
        The mean of q - p over the pictures of each class, NaN where it has none.
    """

    distances: Distances
    anchors: tuple[Distances, Distances]
    means: Means | None
    gained: Float[Tensor, "classes g k"]


def compared(pairs: Pairs, classes: Int[Tensor, " n"], seed: int = 0) -> Compared:
    """Compare two models' maps of n pictures.

    Parameters
    ----------
    pairs
        The reduced, signed maps of both, some pictures at a time.
    classes
        To which class each picture belongs, from 0; -1 for none.
    seed
        Which different pictures are compared with each other, and how maps are swapped.
    """
    generator = torch.Generator().manual_seed(seed)
    held = torch.zeros(len(classes), dtype=torch.bool)
    held[torch.randperm(len(classes), generator=generator)[:_HELD]] = True
    seen = _Seen(classes, held, generator)
    for a, b in pairs:
        seen.add(a, b)
    return seen.compared()


@dataclass(eq=False)
class _Seen:
    """What is kept of the maps seen so far: their distances, sums, and the maps of some pictures."""

    classes: Int[Tensor, " n"]
    held: Bool[Tensor, " n"]
    generator: torch.Generator
    distances: list[Distances] = field(default_factory=list)
    maps: tuple[list[Tensor], list[Tensor]] = field(default_factory=lambda: ([], []))
    sums: list[Tensor] = field(default_factory=list)
    count: int = 0

    def add(self, a: Float[Tensor, "b h w"], b: Float[Tensor, "b h w"]) -> None:
        """See the maps of the next pictures."""
        own = slice(self.count, self.count + len(a))
        p, q = shares(a), shares(b)
        distances = Distances(moved(p, q), rank_correlation(a, b))
        self.distances.append(distances)
        for kept, new in zip(self.maps, (a, b), strict=True):
            kept.append(new[self.held[own]])
        defined = distances.moved.isfinite()
        self._sum(coarse(p[defined]), coarse(q[defined]), self.classes[own][defined])
        self.count = own.stop

    def _sum(self, p: Float[Tensor, "b g k"], q: Float[Tensor, "b g k"], classes: Int[Tensor, " b"]) -> None:
        """Add shares to the sums over all pictures, over each class, and over all with random signs."""
        gained, known = q - p, classes >= 0
        signs = 2.0 * torch.randint(2, (SWAPS, len(p)), generator=self.generator).double() - 1
        by_class = gained.new_zeros(int(self.classes.max()) + 1, *p.shape[1:])
        by_class.index_add_(0, classes[known], gained[known])
        swapped = torch.einsum("sb,bgk->sgk", signs, gained)
        new = [p.sum(0), q.sum(0), by_class, swapped]
        self.sums = [old + more for old, more in zip(self.sums, new, strict=True)] if self.sums else new

    def compared(self) -> Compared:
        """Return what all maps say together."""
        distances = _joined(self.distances)
        defined = distances.moved.isfinite()
        count = int(defined.sum())
        p, q, by_class, swapped = self.sums
        counts = self.classes[defined & (self.classes >= 0)].bincount(minlength=len(by_class))
        chances = (swapped / max(1, count)).abs().sum((1, 2)) / 2
        net = float((q - p).abs().sum()) / 2 / max(1, count)
        return Compared(
            distances=distances,
            anchors=(self._anchor(self.maps[0]), self._anchor(self.maps[1])),
            means=Means(p / count, q / count, count, net, float(chances.quantile(_CHANCE))) if count else None,
            gained=by_class / counts[:, None, None],
        )

    def _anchor(self, maps: Sequence[Tensor]) -> Distances:
        """Return how far maps of different pictures are from each other."""
        own = torch.cat(list(maps))
        if len(own) < 2:
            return Distances(torch.empty(0).double(), torch.empty(0).double())
        other = own[others(len(own), self.generator)]
        return Distances(moved(shares(own), shares(other)), rank_correlation(own, other))


def _joined(pieces: Sequence[Distances]) -> Distances:
    return Distances(torch.cat([one.moved for one in pieces]), torch.cat([one.rank for one in pieces]))
