"""A structured attention graph on the page: what the template says of it, and what its script is given."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256

import torch

from whence.graphs.graph import AttentionGraph, Node, SufficientSet, Verdict, name
from whence.graphs.patches import PatchGrid, bits, patches_of
from whence.reports import words
from whence.reports.contents import GraphRow, Seen
from whence.reports.graph_layout import rows
from whence.reports.images import exact

# Two sets make a question where their shares differ by this much; there are no more questions than these.
_CLEAR, _MOST_QUESTIONS = 0.25, 24

_PROOFS = {
    "minimum": ("minimum", "no smaller set of this grid suffices"),
    "minimal": ("minimal", "no part of it suffices: all its subsets were tried"),
    "1-minimal": (
        "1-minimal",
        "it does not suffice without any one of its patches; smaller parts were not all tried",
    ),
    "sufficient": ("sufficient", "not shown to be minimal"),
}
_STYLES = {
    "tents": "each fades into its neighbours, the outer ones are half as wide",
    "centred": "each fades into its neighbours",
    "boxes": "with hard edges",
}
# What a set must do to suffice.
_MUST = {
    "ratio": "the {measured} must stay above {threshold} of the whole picture’s",
    "top1": "the class must stay the model’s first",
    "both": "the {measured} must stay above {threshold} of the whole picture’s, and the class the model’s first",
}


@dataclass(frozen=True)
class Root:
    """A set at the top of the graph: what the model says of it alone, and how it is known to be small."""

    patches: str
    said: str
    badge: str
    proof: str


@dataclass(frozen=True)
class Line:
    """A node in the plain table."""

    patches: str
    value: str
    share: str
    verdict: str


@dataclass(frozen=True)
class GraphView:
    """One graph on the page.

    ``pictures`` are the addresses of the two pictures that the script mixes, None where there is nothing to look at
    but words and the table; ``data`` is what the script is given.
    """

    sentences: tuple[str, ...]
    roots: tuple[Root, ...]
    lines: tuple[Line, ...]
    facts: Mapping[str, str]
    measured: str
    marks: str
    size: tuple[int, int]
    pictures: tuple[str, str] | None
    data: Mapping[str, object]


def graph_view(row: GraphRow, pictures: Seen | None, label: str) -> GraphView:
    """Return what the page says of a graph; ``pictures`` are what the model sees of the picture and the baseline."""
    graph = AttentionGraph.from_json(row)
    return GraphView(
        sentences=tuple(_sentences(graph)),
        roots=tuple(_root(graph, root) for root in graph.roots),
        lines=tuple(_line(graph, node) for node in graph.nodes),
        facts=_facts(graph),
        measured=graph.measured,
        marks=" and at ".join(map(words.percent, _marks(graph))),
        size=graph.places.size,
        pictures=(exact(pictures[0]).address, exact(pictures[1]).address) if pictures and graph.nodes else None,
        data=_data(graph, rows(row), label),
    )


def _sentences(graph: AttentionGraph) -> Iterator[str]:
    """Yield what there is to say, what suffices first."""
    yield from (sentence.replace(" %", "\N{NO-BREAK SPACE}%") for sentence in graph.sentences)
    if len(graph.found) > len(graph.roots):
        yield f"Found were {len(graph.found)} sets that suffice; shown {_shown(graph)}."
    if graph.state == "budget":
        yield f"The search was stopped by its budget after {graph.evaluations} evaluations: there may be more sets."
    elif graph.state == "interrupted":
        yield f"The search was interrupted after {graph.evaluations} evaluations: shown is what was found until then."


def _shown(graph: AttentionGraph) -> str:
    if len(graph.roots) < 2:
        return "is one of them: each other one shares too many patches with it"
    shared = f"at most {graph.overlap} patch{'es' * (graph.overlap > 1)}" if graph.overlap else "no patch"
    return f"are {len(graph.roots)} of them, any two of which share {shared}"


def _root(graph: AttentionGraph, root: SufficientSet) -> Root:
    badge, proof = _PROOFS[root.proof]
    said = (
        f"{graph.measured} {_value(graph, root.value)}, {words.share(graph.share(root.value))} of the whole picture’s"
    )
    return Root(name(root.patches), said, badge, proof)


def _line(graph: AttentionGraph, node: Node) -> Line:
    said = "suffices" if graph.suffices(node) else "does not suffice"
    return Line(name(node.patches), _value(graph, node.value), words.share(graph.share(node.value)), said)


def _facts(graph: AttentionGraph) -> dict[str, str]:
    """Return the small print, in the order in which it is shown."""
    side = graph.places.side
    return {
        "Taken away means": f"{graph.baseline} baseline",
        "Grid": f"{side} × {side} patches, {graph.places.style}: {_STYLES[graph.places.style]}",
        "To suffice": _must(graph),
        "Whole picture": _value(graph, graph.whole),
        "Baseline alone": _value(graph, graph.empty),
        "Evaluations": str(graph.evaluations),
        "Search": {"complete": "complete", "budget": "stopped by its budget"}.get(graph.state, graph.state),
    }


def _must(graph: AttentionGraph) -> str:
    return _MUST[graph.criterion].format(measured=graph.measured, threshold=words.percent(graph.threshold))


def _value(graph: AttentionGraph, value: float) -> str:
    return words.percent(value) if graph.measured == "probability" else words.number(value)


def _marks(graph: AttentionGraph) -> list[float]:
    """Return the shares that count: above which children are shown, and above which a set suffices."""
    return [graph.expand] if graph.criterion == "top1" else [graph.expand, graph.threshold]


def _data(graph: AttentionGraph, layers: Sequence[Sequence[int]], label: str) -> dict[str, object]:
    """Return what the script is given; each set is its patches, its value and share in words, its share, its reason.

    The reason is a place in ``reasons``, of which the first says that a set suffices.
    """
    places, threshold = graph.places, words.percent(graph.threshold)
    sets = {**graph.evaluated, **{bits(node.patches): Verdict(node.value, node.top) for node in graph.nodes}}
    place = {each: number for number, each in enumerate(sets)}
    return {
        "side": places.side,
        "lies": [_lies(places, axis) for axis in (0, 1)],
        "borders": [[round(share, 5) for share in places.edges(axis)] for axis in (0, 1)],
        "measured": graph.measured,
        "expand": graph.expand,
        "marks": _marks(graph),
        "reasons": [
            "It suffices.",
            f"It does not suffice: that is not above {threshold}.",
            "It does not suffice: another class is the model’s first.",
        ],
        "label": label,
        "must": _must(graph),
        "sets": [_set(graph, each, verdict) for each, verdict in sets.items()],
        "nodes": [place[bits(node.patches)] for node in graph.nodes],
        "layers": layers,
        "links": graph.edges,
        "roots": [place[bits(root.patches)] for root in graph.roots],
        "questions": [[place[each] for each in pair] for pair in _questions(graph)],
    }


def _lies(places: PatchGrid, axis: int) -> list[float]:
    """Return where each row or column of pixels lies among the patches: at 1.25 it shows 3/4 of 1 and 1/4 of 2.

    That is A times the patches' numbers; no pixel shows more than two patches along an axis, so it says all of A.
    """
    along = torch.arange(places.side, dtype=torch.float64)
    numbers = along[:, None] if axis == 0 else along
    spread = places.spread(numbers.expand(1, places.side, places.side))[0]
    return [round(float(place), 5) for place in spread.select(1 - axis, 0)]


def _set(graph: AttentionGraph, each: int, verdict: Verdict) -> list[object]:
    share = graph.share(verdict.value)
    enough = graph.criterion == "top1" or verdict.value > graph.threshold * graph.whole
    reason = 0 if graph.suffices(verdict) else 2 if enough else 1
    return [patches_of(each), _value(graph, verdict.value), words.share(share), round(share, 6), reason]


def _questions(graph: AttentionGraph) -> list[tuple[int, int]]:
    """Return pairs of evaluated sets of which one suffices, alike in size and patches, in an order of their own.

    Pairs of one size come alone where there are any. Order and sides hang on the sets' bits, not on chance.
    """
    asked = {each: verdict for each, verdict in graph.evaluated.items() if 0 < each.bit_count() < graph.places.count}
    enough = sorted((each for each in asked if graph.suffices(asked[each])), key=_small)[: 4 * _MOST_QUESTIONS]
    fails = [each for each in asked if not graph.suffices(asked[each])]
    pairs = [pair for each in enough for pair in _likest(graph, each, fails)]
    even = [pair for pair in pairs if pair[0].bit_count() == pair[1].bit_count()]
    drawn = sorted(even or pairs, key=_drawn)[:_MOST_QUESTIONS]
    return [pair if _drawn(pair)[0] % 2 else pair[::-1] for pair in drawn]


def _likest(graph: AttentionGraph, each: int, others: Iterable[int]) -> list[tuple[int, int]]:
    """Return a set with the one most like it whose share is clearly lower, if there is one."""
    most = graph.share(graph.evaluated[each].value) - _CLEAR
    lower = [other for other in others if graph.share(graph.evaluated[other].value) <= most]
    if not lower:
        return []
    size = each.bit_count()
    return [(each, min(lower, key=lambda other: (abs(other.bit_count() - size), (other ^ each).bit_count(), other)))]


def _small(each: int) -> tuple[int, int]:
    return each.bit_count(), each


def _drawn(pair: tuple[int, int]) -> bytes:
    return sha256(f"{pair[0]} {pair[1]}".encode()).digest()
