"""The two ways to a picture's graph: by the surrogate, and as published."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from whence.graphs.graph import AttentionGraph, Measured, Verdict, sufficient
from whence.graphs.patches import PatchGrid
from whence.methods.sag import reference
from whence.methods.sag.building import Terms, graph_of
from whence.methods.sag.oracle import Asking, Memo, Oracle, run
from whence.methods.sag.refine import finer
from whence.methods.sag.search import search
from whence.methods.sag.sufficient import Wanted, is_small, proof, shown, smallest, without_one
from whence.methods.sag.surrogate import Surrogate, log_odds
from whence.models.session import Session
from whence.models.targets import Fixed, TargetSpec

Variant = Literal["surrogate", "reference"]
# A score that is no probability counts like so many log-odds from nothing to the whole picture.
_SPAN = 10.0


@dataclass(frozen=True, eq=False)
class Problem:
    """What all variants are given: the pictures, what replaces them, what is measured, and what is wanted.

    ``output`` is what the model returned for the whole pictures.
    """

    model: Session
    x: Float[Tensor, "b c h w"]
    base: Float[Tensor, "b c h w"]
    output: object
    target: Sequence[TargetSpec]
    terms: Terms
    wanted: Wanted
    budget: int
    batch: int
    seed: int

    @cached_property
    def whole(self) -> list[float]:
        """The number measured of each whole picture."""
        return self.model.score(self.output, self.target).value.detach().double().tolist()

    def measured(self, row: int) -> Measured:
        """Return what kind of number is measured of a picture."""
        target = self.target[row]
        return "probability" if isinstance(target, Fixed) and target.measure == "probability" else "score"

    def scale(self, row: int) -> Callable[[float], float]:
        """Return what turns a picture's values into what patches' effects are summed in."""
        if self.measured(row) == "probability":
            return log_odds
        # By criterion top1 the whole picture's score need not be positive.
        unit = abs(self.whole[row]) or 1.0
        return lambda value: _SPAN * value / unit

    def oracle(self, places: PatchGrid, stage: str, empty: Sequence[Verdict] = ()) -> Oracle:
        """Return what asks the model about sets of a grid, with memos that know the whole pictures and none of them.

        ``stage`` is the search's first one, ``empty`` what is known of none of each picture. All that the
        model is asked about later may be interrupted.
        """
        terms = self.terms
        memos = [
            Memo(
                places,
                partial(sufficient, whole=w, threshold=terms.threshold, criterion=terms.criterion),
                self.budget,
            )
            for w in self.whole
        ]
        oracle = Oracle(self.model, self.x, self.base, self.target, memos, self.batch)
        rows = range(len(self.x))
        for memo, verdict in zip(memos, oracle.verdicts(self.output, torch.arange(len(rows))), strict=True):
            memo.stage = stage
            memo.learn(places.whole, verdict)
        if not empty:
            oracle.look([(row, 0) for row in rows])
        for memo, verdict in zip(memos, empty, strict=False):
            memo.learn(0, verdict)
        return oracle


def by_surrogate(problem: Problem, places: PatchGrid, fine: PatchGrid | None) -> list[AttentionGraph]:
    """Return each picture's graph, on the finer grid where there is one and the search came so far."""
    oracle = problem.oracle(places, "single patches")
    surrogates = [
        Surrogate(memo, problem.scale(row), problem.terms.threshold * problem.whole[row])
        for row, memo in enumerate(oracle.memos)
    ]
    run([search(s.memo, s, problem.wanted) for s in surrogates], oracle.memos, oracle.look)
    coarse = [_graph(problem, memo, row) for row, memo in enumerate(oracle.memos)]
    if fine is None:
        return coarse
    if any(memo.state == "interrupted" for memo in oracle.memos):
        return [replace(graph, state="interrupted") for graph in coarse]
    return _refined(problem, oracle.memos, coarse, fine)


def _graph(problem: Problem, memo: Memo, row: int) -> AttentionGraph:
    children = partial(_parts_shown, memo, problem.terms.expand)
    roots = shown(memo, problem.wanted)
    # What the way down left over suffices too, and is no answer beside the small sets.
    found = [one for one in smallest(memo) if one in roots or proof(memo, one) != "sufficient" or is_small(one)]
    return graph_of(memo, problem.terms, roots, found, children, problem.measured(row))


def _refined(
    problem: Problem, coarse: Sequence[Memo], graphs: Sequence[AttentionGraph], fine: PatchGrid
) -> list[AttentionGraph]:
    """Return graphs on the finer grid; where the search there is interrupted, those of the coarse one, labelled."""
    places = coarse[0].places
    # A patch that two roots share is as many patches of the finer grid.
    overlap = problem.wanted.overlap * (fine.side // places.side) ** 2
    terms, wanted = replace(problem.terms, overlap=overlap), replace(problem.wanted, overlap=overlap)
    finer_problem = replace(problem, terms=terms, wanted=wanted)
    oracle = finer_problem.oracle(fine, "finer", [memo.known[0] for memo in coarse])
    roots = [shown(memo, problem.wanted) for memo in coarse]
    searches = [finer(memo, places, own, wanted) for memo, own in zip(oracle.memos, roots, strict=True)]
    run(searches, oracle.memos, oracle.look)
    found = []
    for row, (memo, before, graph) in enumerate(zip(oracle.memos, coarse, graphs, strict=True)):
        memo.state = before.state if memo.state == "complete" else memo.state
        interrupted = memo.state == "interrupted"
        found.append(replace(graph, state=memo.state) if interrupted else _graph(finer_problem, memo, row))
    return found


def _parts_shown(memo: Memo, expand: float, one: int) -> list[int]:
    """Return a node's children: all of them, where it is worth it and they are all known."""
    worth = memo.known[one].value > expand * memo.known[memo.places.whole].value
    children = without_one(one)
    return children if worth and all(child in memo.known for child in children) else []


def by_reference(problem: Problem, places: PatchGrid, fine: PatchGrid | None) -> list[AttentionGraph]:
    """Return each picture's graph as published: roots in the order in which they were found."""
    oracle, wanted = problem.oracle(places, "published search"), problem.wanted
    guides = reference.guides(
        problem.model, problem.x, problem.base, problem.target, places.side, problem.batch, problem.seed
    )
    found: list[list[int]] = [[] for _ in oracle.memos]

    def published(memo: Memo, guide: Tensor, roots: list[int]) -> Asking[None]:
        if memo.suffices(places.whole):
            roots += yield from reference.search(memo, guide)
            yield from reference.tree(memo, reference.shown(roots, wanted.overlap, wanted.roots))

    run([published(*one) for one in zip(oracle.memos, guides, found, strict=True)], oracle.memos, oracle.look)
    graphs = []
    for row, (memo, roots) in enumerate(zip(oracle.memos, found, strict=True)):
        # A search that did not come to its end names no roots of its own.
        own, chosen = roots, reference.shown(roots, wanted.overlap, wanted.roots)
        if memo.state != "complete":
            own, chosen = smallest(memo), shown(memo, wanted)
        graphs.append(graph_of(memo, problem.terms, chosen, own, partial(_tree_shown, memo), problem.measured(row)))
    return graphs


def _tree_shown(memo: Memo, one: int) -> list[int]:
    """Return a node's children in the published tree, where they are known."""
    children = reference.children(one) if reference.expanded(memo, one) else []
    return children if all(child in memo.known for child in children) else []


SOLVERS: Mapping[Variant, Callable[[Problem, PatchGrid, PatchGrid | None], list[AttentionGraph]]] = {
    "surrogate": by_surrogate,
    "reference": by_reference,
}
