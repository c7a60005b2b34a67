"""From what a memo knows to a graph: nothing is asked any more."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from whence.graphs.graph import AttentionGraph, Criterion, Edge, Measured, Node, SufficientSet
from whence.graphs.patches import members, patches_of
from whence.methods.sag.oracle import Memo
from whence.methods.sag.sufficient import proof


@dataclass(frozen=True)
class Terms:
    """What a set must do to suffice, and what is shown; as ``AttentionGraph`` has them."""

    baseline: str
    threshold: float
    criterion: Criterion
    overlap: int
    expand: float


def graph_of(
    memo: Memo,
    terms: Terms,
    roots: Sequence[int],
    found: Sequence[int],
    children: Callable[[int], Sequence[int]],
    measured: Measured,
) -> AttentionGraph:
    """Return the graph of some roots; ``children`` of a set are its node's, none where it is not expanded."""
    place = {root: number for number, root in enumerate(dict.fromkeys(roots))}
    edges: list[Edge] = []
    expanded = set()
    for node in (queue := list(place)):
        below = children(node)
        if below:
            expanded.add(node)
        for child in below:
            if child not in place:
                place[child] = len(place)
                queue.append(child)
            patch = next(members(node & ~child))
            edges.append(Edge(place[node], place[child], patch))
    known = memo.known

    def sets(these: Sequence[int]) -> tuple[SufficientSet, ...]:
        return tuple(SufficientSet(patches_of(one), known[one].value, proof(memo, one)) for one in these)

    return AttentionGraph(
        places=memo.places,
        **vars(terms),
        measured=measured,
        whole=known[memo.places.whole].value,
        empty=known[0].value,
        roots=sets(roots),
        found=sets(found),
        nodes=tuple(Node(patches_of(one), *known[one], one in expanded) for one in place),
        edges=tuple(edges),
        evaluated=dict(known),
        spent=dict(memo.spent),
        state=memo.state,
    )
