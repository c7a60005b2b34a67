"""An attention graph in layers: which node stands where, so that few of its lines cross."""

from bisect import bisect_right, insort
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import pairwise
from statistics import fmean

from whence.reports.contents import GraphRow

# More sweeps than this seldom change anything.
_SWEEPS = 12

Rows = tuple[tuple[int, ...], ...]
_Joined = Mapping[int, Sequence[int]]


def rows(graph: GraphRow) -> Rows:
    """Return the numbers of the nodes layer by layer, most patches first, each layer from left to right.

    Layers are ordered by the barycentre method, downwards and upwards in turn; the order with the fewest crossings
    is taken.
    """
    layers: dict[int, list[int]] = defaultdict(list)
    for number, node in enumerate(graph["nodes"]):
        layers[len(node["patches"])].append(number)
    below, above = defaultdict(list), defaultdict(list)
    for edge in graph["edges"]:
        below[edge["parent"]].append(edge["child"])
        above[edge["child"]].append(edge["parent"])
    order = best = tuple(tuple(layers[size]) for size in sorted(layers, reverse=True))
    for sweep in range(_SWEEPS):
        turned = sweep % 4 >= 2
        order = _swept(order, above, turned) if sweep % 2 == 0 else _swept(order[::-1], below, turned)[::-1]
        best = min(best, order, key=lambda one: crossings(one, below))
    return best


def crossings(order: Rows, below: _Joined) -> int:
    """Return how many pairs of lines between neighbouring layers cross; ``below`` joins parents to children."""
    return sum(_crossing(upper, lower, below) for upper, lower in pairwise(order))


def _crossing(upper: Sequence[int], lower: Sequence[int], below: _Joined) -> int:
    place = {node: at for at, node in enumerate(lower)}
    met: list[int] = []
    count = 0
    for node in upper:
        ends = [place[child] for child in below.get(node, ()) if child in place]
        count += sum(len(met) - bisect_right(met, end) for end in ends)
        for end in ends:
            insort(met, end)
    return count


def _swept(order: Rows, joined: _Joined, turned: bool) -> Rows:
    """Return the layers, all but the first ordered by the mean place of what they are joined to in the one before.

    Equals stay in their order or are ``turned`` round, without which a poor order may never change.
    """
    done = [order[0]] if order else []
    for layer in order[1:]:
        place = _places(done[-1]) | _places(layer)
        nodes = layer[::-1] if turned else layer
        done.append(tuple(sorted(nodes, key=partial(_barycentre, joined=joined, place=place))))
    return tuple(done)


def _places(layer: Sequence[int]) -> dict[int, float]:
    """Return where the nodes stand across the drawing, 0 to 1."""
    return {node: (at + 0.5) / len(layer) for at, node in enumerate(layer)}


def _barycentre(node: int, joined: _Joined, place: Mapping[int, float]) -> float:
    return fmean([place[other] for other in joined.get(node, ()) if other in place] or [place[node]])
