"""Small attention graphs with made-up values."""

from itertools import combinations

import numpy as np

from whence.graphs.graph import AttentionGraph, Edge, Node, SufficientSet, Verdict
from whence.graphs.patches import PatchGrid, bits


def value_of(patches):
    """A value that differs from set to set and grows with their number."""
    return 0.001 if not patches else min(0.97, 0.31 * len(patches) + sum(patches) / 997)


def pixels(size=(28, 28), seed=0):
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


def graph(roots=((9, 18), (2, 9)), side=7, size=(28, 28), expand=0.4, pictures=True, proof="minimal", **changes):
    """The graph of some roots; a set's children stand under it where its value passes ``expand``."""
    places, edges = [tuple(root) for root in roots], []
    for parent in places:
        if not parent or value_of(parent) <= expand:
            continue
        for child in reversed(tuple(combinations(parent, len(parent) - 1))):
            if child not in places:
                places.append(child)
            gone = next(iter(set(parent) - set(child)))
            edges.append(Edge(places.index(parent), places.index(child), gone))
    above = {edge.parent for edge in edges}
    found = tuple(SufficientSet(root, value_of(root), proof) for root in places[: len(roots)])
    facts = {
        "places": PatchGrid(side, size),
        "baseline": "black",
        "threshold": 0.6,
        "criterion": "ratio",
        "overlap": 1,
        "expand": expand,
        "measured": "probability",
        "whole": 0.98,
        "empty": 0.001,
        "roots": found,
        "found": found,
        "nodes": tuple(Node(p, value_of(p), len(p) > 1, n in above) for n, p in enumerate(places)),
        "edges": tuple(edges),
        "evaluated": {bits(p): Verdict(value_of(p), len(p) > 1) for p in places},
        "picture": pixels(size) if pictures else None,
        "base": pixels(size, 1) // 4 if pictures else None,
    }
    return AttentionGraph(**{**facts, **changes})
