"""A structured attention graph: small sets of patches that suffice for a decision, and what is left without each."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property, reduce
from importlib import import_module
from operator import and_
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import UInt8

from whence.errors import OutputError
from whence.graphs.families import family
from whence.graphs.patches import Patches, PatchGrid, bits, patches_of

Proof = Literal["minimum", "minimal", "1-minimal", "sufficient"]
Criterion = Literal["ratio", "top1", "both"]
State = Literal["complete", "budget", "interrupted"]
Measured = Literal["probability", "score"]
# What JSON holds as it is.
_PLAIN = ("baseline", "threshold", "criterion", "overlap", "expand", "measured", "whole", "empty", "state")


class Verdict(NamedTuple):
    """What the model says of a set of patches: the number measured, and whether the class is its first."""

    value: float
    top: bool


@dataclass(frozen=True)
class Node:
    """A set of patches in the graph; ``expanded`` where its children, each without one patch, stand there too."""

    patches: Patches
    value: float
    top: bool
    expanded: bool


def sufficient(verdict: Verdict | Node, whole: float, threshold: float, criterion: Criterion) -> bool:
    """Return whether a set of which the model says this suffices, beside what it says of the whole picture."""
    enough = verdict.value > threshold * whole
    return {"ratio": enough, "top1": verdict.top, "both": enough and verdict.top}[criterion]


@dataclass(frozen=True)
class SufficientSet:
    """A set of patches that suffices for the decision.

    ``proof`` is ``minimal`` where no subset suffices (all were evaluated), ``minimum`` where no smaller set of the
    grid does, ``1-minimal`` where it does not suffice without any one patch, ``sufficient`` where none of these was
    shown.
    """

    patches: Patches
    value: float
    proof: Proof


class Edge(NamedTuple):
    """From a node to the one without a patch, by their places in the graph's ``nodes``."""

    parent: int
    child: int
    patch: int


@dataclass(frozen=True, eq=False)
class AttentionGraph:
    """Small sets of patches that suffice for a decision, as a graph that says what is left without each patch.

    Attributes
    ----------
    places
        The grid of patches on the model's input.
    baseline, threshold, criterion, overlap, expand
        What stands where patches are taken away; which share of the whole picture's value a set must exceed (ratio)
        or whether the class must stay first (top1), or both; how many patches two roots may share; above which share
        a node's children are shown.
    measured
        ``probability`` of the class, or the ``score`` of a target that is no class.
    whole, empty
        The number measured of the whole picture and of none of it.
    roots
        The sets shown, smallest first; those of the published search in the order in which it found them.
    found
        All sets found that suffice and hold no other one, the roots among them, in the same order.
    nodes, edges
        The graph: equal sets are one node; roots stand first.
    evaluated
        Every set that the model was asked about, by its bits.
    spent
        How many of these each stage of the search asked about.
    state
        Whether the search went to its end, or ran out of its budget, or was interrupted.
    picture, base
        What the model sees of the picture and of the baseline, [H, W, 3]; None where not kept.
    """

    places: PatchGrid
    baseline: str
    threshold: float
    criterion: Criterion
    overlap: int
    expand: float
    measured: Measured
    whole: float
    empty: float
    roots: tuple[SufficientSet, ...]
    found: tuple[SufficientSet, ...]
    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]
    evaluated: Mapping[int, Verdict]
    spent: Mapping[str, int] = field(default_factory=dict)
    state: State = "complete"
    picture: UInt8[np.ndarray, "H W 3"] | None = field(default=None, repr=False)
    base: UInt8[np.ndarray, "H W 3"] | None = field(default=None, repr=False)

    def __repr__(self) -> str:
        """Return one line for a terminal."""
        return f"AttentionGraph({self.formula}, {len(self.nodes)} nodes, {self.evaluations} evaluations)"

    @property
    def evaluations(self) -> int:
        """How many different sets the model was asked about."""
        return len(self.evaluated)

    @property
    def formula(self) -> str:
        """The roots as a disjunctive normal form in words, as "(P9 and P18) or P2"."""
        return " or ".join(_bracketed(root.patches) for root in self.roots) or "no set of patches"

    @property
    def necessary(self) -> Patches:
        """The patches that are in all roots."""
        return tuple(sorted(reduce(and_, (set(root.patches) for root in self.roots)))) if self.roots else ()

    @property
    def sentences(self) -> tuple[str, ...]:
        """What suffices, which patches all roots share, and which one each root can spare least, for people."""
        if not self.roots:
            return (f"No set of patches was found that {self._keeps}.",)
        if not all(root.patches for root in self.roots):
            return (f"With every patch taken away the picture still {self._keeps}.",)
        told = [f"{self.formula} {self._keeps}."]
        if len(self.roots) > 1:
            held = self.necessary
            verb = "are" if len(held) > 1 else "is"
            told.append(f"{_listed(held) if held else 'No patch'} {verb} in every set shown that suffices.")
        return (*told, *filter(None, map(self._costliest, self.roots)))

    @property
    def _keeps(self) -> str:
        """What a set does that suffices."""
        enough = f"keeps more than {100 * self.threshold:g} % of the {self.measured}"
        first = "keeps the class first"
        return {"ratio": enough, "top1": first, "both": f"{enough} and {first}"}[self.criterion]

    def _costliest(self, root: SufficientSet) -> str | None:
        """Say what is left of a root without the patch that costs most; None where its children are not shown."""
        place = self.place.get(root.patches)
        children = [edge for edge in self.edges if edge.parent == place]
        if not children:
            return None
        edge = min(children, key=lambda edge: self.nodes[edge.child].value)
        left = self.nodes[edge.child].value
        verb = "falls" if left < root.value else "goes"
        change = f"{verb} from {self._said(root.value)} to {self._said(left)}"
        if len(root.patches) == 1:
            return f"Without P{edge.patch} the {self.measured} {change}."
        return f"Of {_listed(root.patches)}, without P{edge.patch} the {self.measured} {change}."

    def _said(self, value: float) -> str:
        """Return a value as it is read."""
        if self.measured == "score":
            return f"{value:.3g}"
        return f"{100 * value:.1f}".removesuffix(".0") + " %"

    @cached_property
    def place(self) -> Mapping[Patches, int]:
        """Where each set of patches stands in ``nodes``."""
        return {node.patches: number for number, node in enumerate(self.nodes)}

    def share(self, value: float) -> float:
        """Return which share of the whole picture's value a value is; 0 where that value is 0."""
        return value / self.whole if self.whole else 0.0

    def verdict(self, patches: Iterable[int]) -> Verdict | None:
        """Return what the model said of a set of patches, None where it was not asked."""
        return self.evaluated.get(bits(patches))

    def suffices(self, verdict: Verdict | Node) -> bool:
        """Return whether a set of which the model says this suffices, by the graph's criterion."""
        return sufficient(verdict, self.whole, self.threshold, self.criterion)

    def seen(self, patches: Iterable[int]) -> UInt8[np.ndarray, "H W 3"]:
        """Return what the model sees of a set of patches, base + (picture - base) U.

        Raises
        ------
        ValueError
            The graph was made without its pictures.
        """
        if self.picture is None or self.base is None:
            raise ValueError("this graph holds no pictures: whence.explain makes graphs that do")
        u = self.places.masks([bits(patches)], torch.zeros((), dtype=torch.float64))[0, 0, :, :, None].numpy()
        base = self.base.astype(np.float64)
        return np.asarray(np.rint(base + (self.picture - base) * u), np.uint8)

    def family(self, overlap: int, count: int | None = None) -> tuple[SufficientSet, ...]:
        """Return the most of the sets found, up to ``count``, of which no two share more than ``overlap`` patches."""
        by_bits = {bits(one.patches): one for one in self.found}
        chosen = family({one: held.value for one, held in by_bits.items()}, overlap, count)
        return tuple(by_bits[one] for one in chosen)

    def to_json(self) -> dict[str, Any]:
        """Return the graph as JSON can hold it, without its pictures; the inverse of ``from_json``."""
        asked = ({"patches": patches_of(one), **verdict._asdict()} for one, verdict in self.evaluated.items())
        return {
            "grid": self.places.side,
            "size": list(self.places.size),
            "style": self.places.style,
            **{key: getattr(self, key) for key in _PLAIN},
            "evaluations": self.evaluations,
            "spent": dict(self.spent),
            "formula": self.formula,
            "necessary": list(self.necessary),
            "roots": _rows(map(asdict, self.roots)),
            "found": _rows(map(asdict, self.found)),
            "nodes": _rows(map(asdict, self.nodes)),
            "edges": [edge._asdict() for edge in self.edges],
            "evaluated": _rows(asked),
        }

    @classmethod
    def from_json(
        cls,
        row: Mapping[str, Any],
        picture: UInt8[np.ndarray, "H W 3"] | None = None,
        base: UInt8[np.ndarray, "h w 3"] | None = None,
    ) -> "AttentionGraph":
        """Return the graph that ``to_json`` gave as ``row``, with its pictures where they are given.

        Raises
        ------
        OutputError
            Its sets do not lie on its grid, its edges do not remove the patches that they name, or the pictures are
            of another size.
        """
        places = PatchGrid(row["grid"], (row["size"][0], row["size"][1]), row["style"])
        _check(places, row, [pixels for pixels in (picture, base) if pixels is not None])
        return cls(
            places=places,
            **{key: row[key] for key in _PLAIN},
            roots=tuple(_set_of(one) for one in row["roots"]),
            found=tuple(_set_of(one) for one in row["found"]),
            nodes=tuple(Node(tuple(n["patches"]), n["value"], n["top"], n["expanded"]) for n in row["nodes"]),
            edges=tuple(Edge(edge["parent"], edge["child"], edge["patch"]) for edge in row["edges"]),
            evaluated={bits(one["patches"]): Verdict(one["value"], one["top"]) for one in row["evaluated"]},
            spent=row["spent"],
            picture=picture,
            base=base,
        )

    def to_networkx(self) -> Any:  # noqa: ANN401  (networkx has no types)
        """Return a ``networkx.DiGraph`` whose nodes are the sets' names, as "P9 P18".

        A node has ``patches``, ``value``, ``share``, ``root``, ``proof`` ("" where it is no root) and ``suffices``,
        an edge the ``patch`` taken away and the share ``lost``.
        """
        graph, proofs = import_module("networkx").DiGraph(), {root.patches: root.proof for root in self.roots}
        for node in self.nodes:
            facts = {"patches": node.patches, "value": node.value, "share": self.share(node.value)}
            proof = proofs.get(node.patches, "")
            graph.add_node(name(node.patches), **facts, root=bool(proof), proof=proof, suffices=self.suffices(node))
        for edge in self.edges:
            above, below = self.nodes[edge.parent], self.nodes[edge.child]
            lost = self.share(above.value) - self.share(below.value)
            graph.add_edge(name(above.patches), name(below.patches), patch=edge.patch, lost=lost)
        return graph

    def to_graphml(self) -> str:
        """Return what ``to_networkx`` gives as GraphML, with the patches as text, as "9 18"."""
        graph = self.to_networkx()
        for _, facts in graph.nodes(data=True):
            facts["patches"] = " ".join(map(str, facts["patches"]))
        return "\n".join(import_module("networkx").generate_graphml(graph)) + "\n"

    def to_dot(self) -> str:
        """Return the graph in the language of Graphviz."""
        lines = [f"graph [label={_quoted(f'{self.formula} (taken away: {self.baseline})')}]", "node [shape=box]"]
        for node in self.nodes:
            named = name(node.patches)
            lines.append(f"{_quoted(named)} [label={_quoted(f'{named}: {100 * self.share(node.value):.0f} %')}]")
        for edge in self.edges:
            ends = (name(self.nodes[end].patches) for end in (edge.parent, edge.child))
            lines.append(f"{' -> '.join(map(_quoted, ends))} [label={_quoted(f'P{edge.patch}')}]")
        return "digraph sag {\n" + "".join(f"  {line};\n" for line in lines) + "}\n"


def name(patches: Patches) -> str:
    """Return a set's name, as "P9 P18"; "nothing" for the empty set."""
    return " ".join(f"P{patch}" for patch in patches) or "nothing"


def _all_of(patches: Patches) -> str:
    return " and ".join(f"P{patch}" for patch in patches) or "nothing at all"


def _listed(patches: Patches) -> str:
    *first, last = (f"P{patch}" for patch in patches)
    return f"{', '.join(first)} and {last}" if first else last


def _bracketed(patches: Patches) -> str:
    return f"({_all_of(patches)})" if len(patches) > 1 else _all_of(patches)


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", " ")
    return f'"{escaped}"'


def _rows(sets: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [{**one, "patches": list(one["patches"])} for one in sets]


def _set_of(row: Mapping[str, Any]) -> SufficientSet:
    return SufficientSet(tuple(row["patches"]), row["value"], row["proof"])


def _check(places: PatchGrid, row: Mapping[str, Any], pictures: Iterable[np.ndarray]) -> None:
    """Refuse a row that is no graph of patches, before anything is made of its numbers."""
    if not 1 <= places.side <= min(places.size):
        raise OutputError(f"the graph is damaged: {places.side} patches a side on an input of {places.size}")
    for pixels in pictures:
        if pixels.shape != (*places.size, 3):
            raise OutputError(f"the graph is damaged: its picture is {pixels.shape}, its input {places.size}")
    for one in (one for key in ("roots", "found", "nodes", "evaluated") for one in row[key]):
        patches = one["patches"]
        if patches != sorted(set(patches)) or not all(0 <= patch < places.count for patch in patches):
            raise OutputError(f"the graph is damaged: {str(patches)[:80]} is no ascending set of its patches")
    nodes = [set(node["patches"]) for node in row["nodes"]]
    for edge in row["edges"]:
        parent, child, patch = edge["parent"], edge["child"], edge["patch"]
        known = min(parent, child) >= 0 and max(parent, child) < len(nodes) and patch in nodes[parent]
        if not known or nodes[parent] - {patch} != nodes[child]:
            raise OutputError(f"the graph is damaged: {edge} does not lead from a set to the one without that patch")
