"""Spectral clustering of maps: SpRAy, of Lapuschkin et al., "Unmasking Clever Hans predictors" (arXiv:1902.10178).

Maps are made small, joined with their nearest neighbours to a graph, and clustered by the eigenvectors
of its Laplacian; how many clusters there are shows in a gap between its eigenvalues.
"""

import warnings
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from whence.errors import OptionError
from whence.models.extras import library

# At most so many clusters are found where their number is not asked for, and so many maps make the graph.
MOST, SAMPLE = 20, 2000
# Eigenvalues below the first are zero but for rounding; those below the second differ little from zero.
_ZERO, _NOTHING = 1e-9, 0.02
_CHUNK = 1000


@dataclass(frozen=True, eq=False)
class Clusters:
    """To which cluster each map belongs.

    Attributes
    ----------
    member
        The number of each map's cluster; -1 for a map that is zero.
    eigenvalues
        The least of the graph's normalised Laplacian, in ascending order.
    points, own
        The maps that made the graph, as ``features`` gives them, and their clusters.
    """

    member: Int[Tensor, " n"]
    eigenvalues: Float[Tensor, " e"]
    points: Float[Tensor, "m d"]
    own: Int[Tensor, " m"]

    @property
    def count(self) -> int:
        """How many clusters there are."""
        return int(self.own.max()) + 1

    def rows(self, cluster: int) -> Int[Tensor, " r"]:
        """Return which maps belong to a cluster."""
        return (self.member == cluster).nonzero().flatten()

    def nearest(self, relevance: Float[Tensor, "n g k"]) -> Int[Tensor, " n"]:
        """Return the cluster of the nearest map among those that made the graph; -1 for a map that is zero."""
        wide = features(relevance)
        if wide.shape[1] != self.points.shape[1]:
            raise OptionError(
                f"maps of {wide.shape[1]} cells cannot be compared with maps of {self.points.shape[1]}: explain all "
                "pictures by the same method and layer"
            )
        found = [self.own[torch.cdist(part, self.points).argmin(1)] for part in torch.split(wide, _CHUNK)]
        return torch.where(wide.any(1), torch.cat(found), -1)

    def ordered(self, order: list[int]) -> "Clusters":
        """Return the same clusters under other numbers: the first is the one that was number ``order[0]``."""
        places = torch.empty(len(order) + 1, dtype=torch.long)
        places[torch.tensor(order)], places[-1] = torch.arange(len(order)), -1
        return Clusters(places[self.member], self.eigenvalues, self.points, places[self.own])


def features(relevance: Float[Tensor, "n g k"]) -> Float[Tensor, "n d"]:
    """Return points whose Euclidean distance is the Hellinger distance of maps, times sqrt(2)."""
    return relevance.flatten(1).double().sqrt()


def clustered(
    relevance: Float[Tensor, "n g k"],
    count: int | None = None,
    *,
    most: int = MOST,
    sample: int = SAMPLE,
    seed: int = 0,
) -> Clusters:
    """Cluster maps by where they lie.

    Parameters
    ----------
    relevance
        Each with the sum 1, or zero: zeros belong to no cluster.
    count
        How many clusters; None for as many as the largest gap among the first ``most`` + 1 eigenvalues says.
    most
        The largest number that the gap may give.
    sample
        Above so many maps a seeded sample of them makes the graph, and the others go to the cluster of the nearest.
    seed
        Of the sample and of the clustering.

    Raises
    ------
    OptionError
        There are fewer maps than clusters, or fewer than two that are not zero.
    MissingExtraError
        scikit-learn is not installed.
    """
    wide = features(relevance)
    rows = wide.any(1).nonzero().flatten()
    if len(rows) < 2:
        raise OptionError(
            f"{len(rows)} of {len(wide)} maps show anything that speaks for the class: there is nothing to cluster, "
            "give more pictures or another method"
        )
    generator = torch.Generator().manual_seed(seed)
    drawn = rows[torch.randperm(len(rows), generator=generator)[:sample].sort().values]
    if count is not None and not 1 <= count <= len(drawn):
        raise OptionError(f"{count} clusters of {len(drawn)} maps: ask for 1 to {len(drawn)}")
    points = wide[drawn]
    affinity = neighbours(points)
    eigenvalues = torch.linalg.eigvalsh(laplacian(affinity))[: min(most, len(points) - 1) + 1]
    own = _spectral(affinity, count or eigengap(eigenvalues), seed)
    made = Clusters(own, eigenvalues, points, own)
    member = made.nearest(relevance)
    member[drawn] = own
    return replace(made, member=member)


def neighbours(points: Float[Tensor, "m d"]) -> Float[Tensor, "m m"]:
    """Return the graph in which each point is joined with its sqrt(m) / 2 nearest, two at least.

    1 where both are among the nearest of each other, 1/2 where one is. What fewer pictures have in common than that
    does not come apart from the others.
    """
    distance = torch.cdist(points, points).fill_diagonal_(torch.inf)
    near = distance.topk(min(len(points) - 1, max(2, round(len(points) ** 0.5 / 2))), largest=False).indices
    directed = torch.zeros_like(distance).scatter_(1, near, 1.0)
    return (directed + directed.T) / 2


def laplacian(affinity: Float[Tensor, "m m"]) -> Float[Tensor, "m m"]:
    """Return I - D^(-1/2) A D^(-1/2)."""
    root = affinity.sum(1).rsqrt()
    return torch.eye(len(affinity), dtype=affinity.dtype) - root[:, None] * affinity * root


def eigengap(eigenvalues: Float[Tensor, " e"]) -> int:
    """Return after how many eigenvalues, in ascending order, the largest gap lies: the largest ratio.

    A ratio, since also within a cluster, where maps change little by little, one gap is the largest. What is far
    below 0.02 is no other number than zero. Where all are zero the graph has at least as many parts as are asked
    about: all but the last.
    """
    if eigenvalues[-1] < _ZERO:
        return len(eigenvalues) - 1
    raised = eigenvalues + _NOTHING
    return int((raised[1:] / raised[:-1]).argmax()) + 1


def _spectral(affinity: Float[Tensor, "m m"], count: int, seed: int) -> Int[Tensor, " m"]:
    if count == 1:
        return torch.zeros(len(affinity), dtype=torch.long)
    made = library("sklearn.cluster", "clusters of maps").SpectralClustering(
        count, affinity="precomputed", random_state=seed
    )
    with warnings.catch_warnings():
        # Parts that nothing joins are what is looked for.
        warnings.filterwarnings("ignore", "Graph is not fully connected")
        found = torch.from_numpy(made.fit_predict(affinity.numpy())).long()
    # A cluster may have come out empty.
    numbers: Tensor = torch.unique(found, return_inverse=True)[1]
    return numbers
