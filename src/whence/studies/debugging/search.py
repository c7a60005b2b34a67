"""The search for a wrong reason in a whole data set."""

from collections import Counter
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from whence.interpretable.labelled import Progress
from whence.models.classifier import Classifier
from whence.reports.debugging_results import Check, Cluster
from whence.studies.debugging.clusters import MOST, SAMPLE, Clusters, clustered
from whence.studies.debugging.explained import Explained
from whence.studies.debugging.regions import area, boxes, place
from whence.studies.debugging.suspicion import check


@dataclass(frozen=True, eq=False)
class Findings:
    """The clusters of a data set's maps, the most suspicious first.

    Attributes
    ----------
    pictures
        What was searched.
    clusters
        Which picture belongs to which.
    checks
        What makes each cluster suspicious, or not.
    """

    pictures: Explained
    clusters: Clusters
    checks: tuple[Check, ...]

    @cached_property
    def means(self) -> Float[Tensor, "c g k"]:
        """The mean map of each cluster."""
        return _means(self.pictures, self.clusters)

    @cached_property
    def boxes(self) -> Int[Tensor, "n 4"]:
        """The region of every picture, whether its cluster is suspicious or not; zeros where its map is zero."""
        return _boxes(self.pictures.relevance, self.clusters.member, self.means, self.pictures.size)

    @property
    def suspicious(self) -> Bool[Tensor, " c"]:
        """Which clusters are suspicious."""
        return torch.tensor([one.suspicious for one in self.checks])

    def regions(self, pictures: Explained) -> Int[Tensor, "n 4"]:
        """Return what is to be masked in pictures, these or others: zeros where their cluster is not suspicious.

        Each goes to the cluster of the nearest map, and its region comes from its own.

        Raises
        ------
        OptionError
            Their maps have another number of cells.
        """
        member = self.clusters.nearest(pictures.relevance)
        found = _boxes(pictures.relevance, member, self.means, pictures.size)
        guilty = torch.cat([self.suspicious, torch.tensor([False])])
        return torch.where(guilty[member][:, None], found, 0)

    def cluster(self, number: int) -> Cluster:
        """Return what is to be said of one cluster."""
        rows = self.clusters.rows(number)
        pictures, labels = self.pictures, self.pictures.data.labels[rows]
        said = Counter(pictures.said[rows].tolist()).most_common()
        known = labels >= 0
        return Cluster(
            pictures=len(rows),
            said=tuple((pictures.data.classes[label], count) for label, count in said),
            accuracy=pictures.right[rows][known].double().mean().item() if known.any() else None,
            extent=_extent(self.means[number]),
            inside=_inside(pictures.relevance[rows], self.boxes[rows], pictures.size),
            area=area(self.boxes[rows], pictures.size).mean().item(),
            check=self.checks[number],
        )


def search(
    classifier: Classifier,
    pictures: Explained,
    *,
    clusters: int | None = None,
    most: int = MOST,
    sample: int = SAMPLE,
    seed: int = 0,
    progress: Progress = lambda stage, done, total: None,
) -> Findings:
    """Cluster the maps of a data set, and ask of each cluster whether it shows a wrong reason.

    Nothing is known of what the wrong reason may be: see ``Check`` for what is asked.

    Parameters
    ----------
    clusters, most, sample
        As ``count``, ``most`` and ``sample`` of ``clustered``.
    seed
        Of the clustering, and of the random places that regions are compared with.

    Raises
    ------
    OptionError
        There are fewer maps than clusters, or hardly one that is not zero.
    MissingExtraError
        scikit-learn is not installed.
    """
    found = clustered(pictures.relevance, clusters, most=most, sample=sample, seed=seed)
    regions = _boxes(pictures.relevance, found.member, _means(pictures, found), pictures.size)
    generator, checks = torch.Generator().manual_seed(seed), []
    for number in range(found.count):
        rows = found.rows(number)
        checks.append(check(classifier, pictures, rows, regions[rows], generator))
        progress("checking", number + 1, found.count)
    order = sorted(range(found.count), key=lambda n: (-checks[n].score, -len(found.rows(n))))
    return Findings(pictures, found.ordered(order), tuple(checks[n] for n in order))


def _means(pictures: Explained, clusters: Clusters) -> Float[Tensor, "c g k"]:
    return torch.stack([pictures.relevance[clusters.rows(n)].mean(0) for n in range(clusters.count)])


def _boxes(
    relevance: Float[Tensor, "n g k"],
    member: Int[Tensor, " n"],
    means: Float[Tensor, "c g k"],
    size: tuple[int, int],
) -> Int[Tensor, "n 4"]:
    found = torch.zeros(len(relevance), 4, dtype=torch.long)
    for number, mean in enumerate(means):
        own = member == number
        found[own] = boxes(relevance[own], place(mean), size)
    return found


def _extent(mean: Float[Tensor, "g k"]) -> float:
    """Return exp(H) / cells of a map with the sum 1."""
    return float(torch.special.entr(mean.double()).sum().exp() / mean.numel())


def _inside(relevance: Float[Tensor, "n g k"], regions: Int[Tensor, "n 4"], size: tuple[int, int]) -> float:
    """Return the mean share of the maps that lies in their boxes; a cell counts by its middle."""
    middles = [
        (torch.arange(cells) + 0.5) * length / cells for cells, length in zip(relevance.shape[1:], size, strict=True)
    ]
    rows, columns = (
        (middle >= regions[:, axis, None]) & (middle < regions[:, axis + 2, None])
        for axis, middle in enumerate(middles)
    )
    return float((relevance * rows[:, :, None] * columns[:, None, :]).sum((1, 2)).mean())
