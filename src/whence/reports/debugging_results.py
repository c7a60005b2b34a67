"""What clusters of maps say of a data set: plain data, and how it stands in debug.json."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

SCHEMA = 1
# From this score on a cluster is called suspicious.
SUSPICIOUS = 0.1

# (top, left, bottom, right) in pixels of the model's input, the last two exclusive.
Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class Check:
    """What the model does without a cluster's region, and how alike that region's pixels are; all from 0 to 1.

    Attributes
    ----------
    pictures
        Of how many of the cluster's pictures this was asked.
    changed
        The share of them that are given another class when the region is masked.
    lost, elsewhere
        The share of them that lose their class when the region is masked, and when an equal one at a random place is:
        they are given another, or less than half of its probability is left. What a model says of a picture that
        shows it nothing may by chance be the class that it gave.
    alike
        1 - V_in / V: how much less the pixels where the maps lie differ between pictures that are given the same
        class than all pixels of these pictures do. 0 where they differ as much or more.
    """

    pictures: int
    changed: float
    lost: float
    elsewhere: float
    alike: float

    @property
    def cause(self) -> float:
        """How many more pictures lose their class with the region than with an equal one at a random place."""
        return max(0.0, self.lost - self.elsewhere)

    @property
    def score(self) -> float:
        """``cause`` times ``alike``: the same thing at the same place, and the model's reason."""
        return self.cause * self.alike

    @property
    def suspicious(self) -> bool:
        """Whether the score reaches ``SUSPICIOUS``."""
        return self.score >= SUSPICIOUS


@dataclass(frozen=True)
class Cluster:
    """Pictures with like maps.

    Attributes
    ----------
    pictures
        How many they are.
    said
        The classes that the model gives them, each with how many of them it gets, the most frequent first.
    accuracy
        The share of right ones among those whose class is known, None where none is.
    extent
        Over how much of the picture the mean map spreads: exp(H) / cells, with its entropy H; from 0 to 1.
    inside
        The mean share of a map's relevance that lies in the picture's region.
    area
        The mean share of the picture that the region covers.
    check
        What makes it suspicious, or not.
    """

    pictures: int
    said: tuple[tuple[str, int], ...]
    accuracy: float | None
    extent: float
    inside: float
    area: float
    check: Check


@dataclass(frozen=True, eq=False)
class Shot:
    """A picture as the model sees it, with its map and its region; ``truth`` is None where it is not known."""

    name: str
    said: str
    truth: str | None
    pixels: UInt8[np.ndarray, "h w 3"]
    heat: Float[np.ndarray, "g k"]
    region: Box


@dataclass(frozen=True, eq=False)
class Look:
    """What a cluster looks like: its mean map, its mean picture, and the pictures nearest to the mean map."""

    heat: Float[np.ndarray, "g k"]
    pixels: UInt8[np.ndarray, "h w 3"]
    shots: tuple[Shot, ...]


@dataclass(frozen=True)
class Trial:
    """Shares of right answers on some pictures, before the repair and after it."""

    name: str
    pictures: int
    before: float
    after: float


@dataclass(frozen=True)
class Repair:
    """How a model was trained again without the regions: facts by name, and its trials."""

    masked: int
    pictures: int
    facts: Mapping[str, str]
    trials: tuple[Trial, ...]


@dataclass(frozen=True, eq=False)
class DebuggingReport:
    """All that the page shows: clusters, the most suspicious first, each with its look."""

    whence: str
    model: str
    method: str
    pictures: int
    clustered: int
    without_map: int
    clusters: tuple[Cluster, ...]
    looks: tuple[Look, ...]
    members: tuple[tuple[tuple[str, Box], ...], ...]
    facts: Mapping[str, str]
    repair: Repair | None = None

    @property
    def suspicious(self) -> int:
        """How many clusters are suspicious."""
        return sum(cluster.check.suspicious for cluster in self.clusters)


def figures(report: DebuggingReport) -> dict[str, Any]:
    """Return what stands in debug.json: all numbers, and of each cluster all pictures with their regions."""
    return {
        "schema": SCHEMA,
        "whence": report.whence,
        "model": report.model,
        "method": report.method,
        "pictures": report.pictures,
        "clustered": report.clustered,
        "without_map": report.without_map,
        "facts": dict(report.facts),
        "threshold": SUSPICIOUS,
        "clusters": [
            {
                "cluster": number,
                **asdict(cluster),
                "said": dict(cluster.said),
                "score": cluster.check.score,
                "suspicious": cluster.check.suspicious,
                "members": [{"picture": name, "region": list(box)} for name, box in members],
            }
            for number, (cluster, members) in enumerate(zip(report.clusters, report.members, strict=True), 1)
        ],
        "repair": asdict(report.repair) if report.repair else None,
    }
