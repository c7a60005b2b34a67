"""Sub-explanations of one picture, counted in its attention graph."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import nan
from statistics import fmean

from whence.errors import OptionError
from whence.graphs.families import family
from whence.graphs.graph import AttentionGraph, State
from whence.graphs.patches import bits
from whence.reports.counting_results import BY_THRESHOLD, KEYS, OVERLAPS, THRESHOLDS


@dataclass(frozen=True)
class Counted:
    """What is counted in the attention graph of one picture.

    M are the graph's roots, sets of patches that suffice and hold no smaller known one that does; the root without
    any patch, where the picture suffices with all taken away, is none of them. A sub-explanation from theta on is a
    non-empty proper subset T of a root, reached in the graph, with p(T) / p(whole) >= theta.

    Attributes
    ----------
    sizes
        How many patches each root has.
    compatible
        The most roots of which no two share more than 0, 1, 2 patches (exact, but for what ``family`` says of very
        many sets).
    sub, tree
        |SUB(theta)| for each theta of ``THRESHOLDS``: each subset once; and once for each way from a root to it,
        patch by patch, as often as a tree without shared nodes holds it.
    share
        |SUB_R(theta)| / (2^k - 2) of the subsets of a root R of k patches, mean over the roots of 2 patches and more
        all of whose subsets stand in the graph: their own sizes differ, so that each root is counted for itself.
        NaN where there is no such root.
    area
        The area under the mean ratio p(T) / p(whole) of the subsets with a share j / k of a root's patches, from
        none of them to all, by trapezoids; mean over the roots all of whose subsets stand in the graph, NaN where
        there is none.
    state
        As the graph's.
    opened
        Whether all subsets of all roots stand in the graph. If not, ``sub`` and ``tree`` are lower bounds.
    limited
        Whether there are as many roots as the search was to show: there may be more.
    """

    sizes: tuple[int, ...]
    compatible: tuple[int, ...]
    sub: tuple[int, ...]
    tree: tuple[int, ...]
    share: tuple[float, ...]
    area: float
    state: State
    opened: bool
    limited: bool

    @property
    def rootless(self) -> bool:
        """Whether no set of patches was found."""
        return not self.sizes

    @property
    def capped(self) -> bool:
        """Whether the search ended before its end, or found no set of patches."""
        return self.state != "complete" or self.rootless

    @property
    def values(self) -> Mapping[str, float]:
        """What is averaged over pictures, by key; all NaN where no set of patches was found."""
        if self.rootless:
            return dict.fromkeys(KEYS, nan)
        single = (len(self.sizes), *self.compatible, fmean(self.sizes), self.area)
        by_theta = {"sub": self.sub, "share": self.share, "tree": self.tree}
        found = (*single, *(value for kind in BY_THRESHOLD for value in by_theta[kind]))
        return {key: float(value) for key, value in zip(KEYS, found, strict=True)}


def count(graph: AttentionGraph, limit: int | None = None) -> Counted:
    """Return the counts of a graph; ``limit`` is how many roots its search was to show.

    All subsets of the roots of up to 8 patches stand in graphs made with ``expand=0``, in others only those below
    sets that are worth more than ``expand``.

    Raises
    ------
    OptionError
        The graph is about a score, of which there are no shares.
    """
    if graph.measured != "probability":
        raise OptionError("sub-explanations are counted by shares of a class's probability: this graph has a score")
    roots = [bits(root.patches) for root in graph.roots if root.patches]
    ratio = {bits(node.patches): graph.share(node.value) for node in graph.nodes}
    ways = _ways(graph)
    below = {root: [one for one in ways if one & root == one != root] for root in roots}
    opened = {root: parts for root, parts in below.items() if len(parts) == 2 ** root.bit_count() - 2}
    shared = [parts for parts in opened.values() if parts]
    areas = [_area(graph.share(graph.empty), root, parts, ratio) for root, parts in opened.items()]

    def reaching(parts: Iterable[int], theta: float) -> list[int]:
        return [one for one in parts if ratio[one] >= theta]

    return Counted(
        sizes=tuple(root.bit_count() for root in roots),
        compatible=tuple(len(family({root: ratio[root] for root in roots}, overlap)) for overlap in OVERLAPS),
        sub=tuple(len(reaching(ways, theta)) for theta in THRESHOLDS),
        tree=tuple(sum(ways[one] for one in reaching(ways, theta)) for theta in THRESHOLDS),
        share=tuple(_mean([len(reaching(p, theta)) / len(p) for p in shared]) for theta in THRESHOLDS),
        area=_mean(areas),
        state=graph.state,
        opened=len(opened) == len(roots),
        limited=limit is not None and len(roots) >= limit,
    )


def _ways(graph: AttentionGraph) -> dict[int, int]:
    """Return in how many ways each non-empty set is reached from a root by taking patches away one by one.

    The ways to a set are those to all the sets above it: they need not be walked, of which there may be k!.
    """
    sets = [bits(node.patches) for node in graph.nodes]
    below: dict[int, list[int]] = {}
    for edge in graph.edges:
        below.setdefault(sets[edge.parent], []).append(sets[edge.child])
    begun = {bits(root.patches) for root in graph.roots}
    ways: Counter[int] = Counter()
    for one in sorted(sets, key=int.bit_count, reverse=True):
        for part in below.get(one, ()):
            ways[part] += ways[one] + (one in begun)
    return {one: number for one, number in ways.items() if one and number}


def _area(empty: float, root: int, parts: Sequence[int], ratio: Mapping[int, float]) -> float:
    """Return the area under the mean ratio of a root's subsets over the share of its patches that they keep."""
    size = root.bit_count()
    levels = [fmean(ratio[one] for one in parts if one.bit_count() == kept) for kept in range(1, size)]
    return fmean((a + b) / 2 for a, b in pairwise((empty, *levels, ratio[root])))


def _mean(values: Sequence[float]) -> float:
    return fmean(values) if values else nan
