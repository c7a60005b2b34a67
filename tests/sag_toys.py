"""Toy models of which every set of patches can be looked at: a table says what they return for each set.

The input has one place a patch, 1 where it is kept and 0 where it is taken away.
"""

from itertools import combinations

import numpy as np
import torch
from torch import Tensor

from small_nets import Lambda
from whence import attribute
from whence.graphs.graph import AttentionGraph
from whence.graphs.patches import bits
from whence.models.classifier import Classifier
from whence.results import Attribution

KINDS = ("planted", "harmful", "additive")


def held(side: int) -> np.ndarray:
    """Return for each set, by its bits, whether it holds each patch: [2^n, n]."""
    return np.arange(2**side**2)[:, None] >> np.arange(side**2) & 1 == 1


def log_odds(side: int, kind: str, seed: int) -> np.ndarray:
    """Return the log-odds of every set, [2^n].

    ``planted``: any of a few concepts makes the class, the more of one is shown the better; every patch adds a
    little, and noise is on everything. ``harmful``: two patches speak against it. ``additive``: no concepts.
    """
    draw, shown = np.random.default_rng([seed, KINDS.index(kind)]), held(side)
    n = side**2
    noise = draw.normal(0, 0.15, 2**n)
    if kind == "additive":
        return -4 + shown @ draw.exponential(9 / n, n) + noise
    concepts = [draw.choice(n, draw.integers(2, side + 2), replace=False) for _ in range(draw.integers(1, 5))]
    value = -4 + 7 * np.max([shown[:, concept].mean(1) for concept in concepts], 0)
    value += shown @ draw.uniform(0, 1.5 / n, n) + noise
    if kind == "harmful":
        spared = np.setdiff1d(np.arange(n), concepts[0])
        value -= 1.5 * shown[:, draw.choice(spared, 2, replace=False)].sum(1)
    return value


def two_classes(odds: np.ndarray) -> Tensor:
    """Return a table [2^n, 2] of logits whose first class has these log-odds."""
    return torch.stack([torch.tensor(odds), torch.zeros(len(odds), dtype=torch.float64)], 1)


class Toy:
    """A classifier from a table of logits [2^n, K]; ``asked`` lists the sets that it was run on.

    Ctrl-C is pressed in the ``stop``-th of them.
    """

    def __init__(self, table: Tensor, stop: int | None = None) -> None:
        self.table, self.stop, self.asked = table, stop, list[int]()
        self.side = round(np.log2(len(table)) ** 0.5)
        self.module = Lambda(self._forward)

    def _forward(self, _: object, x: Tensor) -> Tensor:
        numbers = ((x[:, 0].flatten(1) > 0.5) * 2 ** torch.arange(self.side**2)).sum(1)
        for number in numbers.tolist():
            self.asked.append(number)
            if len(self.asked) == self.stop:
                raise KeyboardInterrupt("stop")
        # The published search needs gradients, which are zero.
        return self.table[numbers] + 0 * x.sum((1, 2, 3))[:, None]

    def explained(
        self, grid: int | None = None, target: object = 0, pictures: int = 1, **options: object
    ) -> Attribution:
        """Return what sag says of the whole picture, or of several that are the same."""
        x = torch.ones(pictures, 1, self.side, self.side, dtype=torch.float64)
        own = {"grid": grid or self.side, "style": "boxes", "baseline": "zeros"}
        return attribute(Classifier(self.module), x, "sag", target=target, **own, **options)


def minimal_sets(enough: np.ndarray) -> set[int]:
    """Return the sets that suffice and hold no smaller set that does, of a truth value a set, [2^n]."""
    within, without = enough.copy(), np.zeros(len(enough), bool)
    patches = range(round(np.log2(len(enough))))
    # On these axes a set of the second half meets the one of the first half that lacks the patch.
    for patch in patches:
        halves = within.reshape(-1, 2, 2**patch)
        halves[:, 1] |= halves[:, 0]
    for patch in patches:
        without.reshape(-1, 2, 2**patch)[:, 1] |= within.reshape(-1, 2, 2**patch)[:, 0]
    return set(np.flatnonzero(enough & ~without).tolist())


def sizes(side: int) -> np.ndarray:
    """Return how many patches each set holds, [2^n]."""
    return held(side).sum(1)


def holds(graph: AttentionGraph, enough: np.ndarray) -> None:
    """Check all that a graph says of its sets against what all sets do, ``enough`` [2^n]."""
    side = graph.places.side
    minimal, least = minimal_sets(enough), min(sizes(side)[enough], default=None)
    numbers = [bits(one.patches) for one in graph.found]
    for number, one in zip(numbers, graph.found, strict=True):
        assert enough[number]
        assert one.value == graph.evaluated[number].value
        assert one.proof not in ("minimum", "minimal") or number in minimal
        assert one.proof != "minimum" or len(one.patches) == least
        assert one.proof == "sufficient" or not any(enough[number & ~(1 << patch)] for patch in one.patches)
        assert needed_for(one.proof, number, side) <= graph.evaluated.keys()
    # What holds a set that suffices is never minimal.
    assert not any(a != b and a & b == a for a in numbers for b in numbers)
    assert set(graph.roots) <= set(graph.found)
    for a in graph.roots:
        assert all(a is b or len(set(a.patches) & set(b.patches)) <= graph.overlap for b in graph.roots)
        assert graph.state != "complete" or a.proof in (
            ("minimum", "minimal") if len(a.patches) <= 8 else ("1-minimal",)
        )


def needed_for(proof: str, one: int, side: int) -> set[int]:
    """Return the sets of which one must know to prove this of a set."""
    patches = [patch for patch in range(side**2) if one >> patch & 1]
    parts = {bits(part) for size in range(len(patches)) for part in combinations(patches, size)}
    return {
        "sufficient": set(),
        "1-minimal": {part for part in parts if part.bit_count() == one.bit_count() - 1},
        "minimal": parts,
        "minimum": parts | set(np.flatnonzero(sizes(side) < one.bit_count()).tolist()),
    }[proof]


def is_a_graph(graph: AttentionGraph) -> None:
    """Check that nodes and edges are what the graph's roots and what was asked about make of them."""
    nodes = [bits(node.patches) for node in graph.nodes]
    assert len(set(nodes)) == len(nodes)
    assert nodes[: len(graph.roots)] == [bits(root.patches) for root in graph.roots]
    children: dict[int, list[int]] = {number: [] for number in range(len(nodes))}
    for parent, child, patch in graph.edges:
        assert nodes[parent] >> patch & 1
        assert nodes[child] == nodes[parent] & ~(1 << patch)
        children[parent].append(patch)
    assert len(set(graph.edges)) == len(graph.edges)
    assert {edge.child for edge in graph.edges} | set(range(len(graph.roots))) == set(range(len(nodes)))
    for number, node in enumerate(graph.nodes):
        assert (node.value, node.top) == graph.evaluated[nodes[number]]
        worth = node.value > graph.expand * graph.whole
        known = all(nodes[number] & ~(1 << patch) in graph.evaluated for patch in node.patches)
        assert node.expanded == (worth and known and bool(node.patches))
        assert sorted(children[number]) == (list(node.patches) if node.expanded else [])
