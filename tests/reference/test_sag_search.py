"""The search for small sufficient sets on toy models, against all sets of their grids."""

from functools import cache, partial

import numpy as np
import pytest
import torch
from torch import Tensor

from sag_toys import KINDS, Toy, held, holds, is_a_graph, log_odds, minimal_sets, sizes, two_classes
from whence.graphs.graph import Verdict, sufficient
from whence.graphs.patches import PatchGrid, bits
from whence.methods.sag.oracle import Memo, run
from whence.methods.sag.refine import finer
from whence.methods.sag.search import certify, shrink
from whence.methods.sag.sufficient import Wanted, smallest


def probabilities(odds: np.ndarray) -> np.ndarray:
    return two_classes(odds).softmax(1)[:, 0].numpy()


def enough(odds: np.ndarray, threshold: float = 0.9) -> np.ndarray:
    p = probabilities(odds)
    return p > threshold * p[-1]


@cache
def toy(side: int, kind: str, seed: int) -> tuple[Tensor, np.ndarray]:
    """Return a toy's table, and which sets suffice."""
    odds = log_odds(side, kind, seed)
    return two_classes(odds), enough(odds)


def test_minimal_sets_are_those_without_a_smaller_one() -> None:
    """The reference itself, by its definition."""
    draw = np.random.default_rng(0)
    for _ in range(20):
        truth = draw.random(16) < 0.4
        least = {one for one in range(16) if truth[one] and not any(truth[p] for p in range(one) if p & one == p)}
        assert minimal_sets(truth) == least


# What is said holds


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("side", "seeds"), [(3, 12), (4, 5)])
def test_what_is_said_of_a_set_holds_over_all_sets(side: int, seeds: int, kind: str) -> None:
    for seed in range(seeds):
        table, truth = toy(side, kind, seed)
        model = Toy(table)
        (graph,) = model.explained().graphs
        assert graph.state == "complete"
        assert graph.roots
        holds(graph, truth)
        is_a_graph(graph)
        assert len(set(model.asked)) == len(model.asked) == graph.evaluations == sum(graph.spent.values())
        assert set(model.asked) == set(graph.evaluated)
        p = table.softmax(1)[:, 0]
        assert all(abs(p[one] - verdict.value) < 1e-15 for one, verdict in graph.evaluated.items())
        assert all(verdict.top == (p[one] > 0.5) for one, verdict in graph.evaluated.items())
        assert (graph.whole, graph.empty) == (graph.evaluated[2**side**2 - 1].value, graph.evaluated[0].value)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("side", "seeds"), [(3, 12), (4, 3)])
def test_a_certified_minimum_is_the_smallest_size_there_is(side: int, seeds: int, kind: str) -> None:
    for seed in range(seeds):
        table, truth = toy(side, kind, seed)
        least = min(sizes(side)[truth])
        (graph,) = Toy(table).explained(certify="minimum", budget=10**6).graphs
        holds(graph, truth)
        assert graph.state == "complete"
        assert len(graph.found[0].patches) == least
        for root in graph.roots:
            assert (root.proof == "minimum") == (len(root.patches) == least <= 8)
        # Of smaller sets than the smallest one shown all that suffice are found.
        below = {one for one in minimal_sets(truth) if one.bit_count() < len(graph.roots[0].patches)}
        assert below <= {bits(one.patches) for one in graph.found}


def test_the_sets_of_the_smallest_size_are_not_all_listed_when_the_budget_ends_before() -> None:
    """A grid of 16 x 16 has 174 million sets of four patches; nine patches in a row are needed."""
    needed = bits(range(9))

    def look(asked: list[tuple[int, int]]) -> None:
        for _, one in asked:
            memo.known[one] = Verdict(0.9 if one & needed == needed else 0.01, True)

    places = PatchGrid(16, (16, 16))
    memo = Memo(places, partial(sufficient, whole=0.9, threshold=0.9, criterion="ratio"), budget=40_000)
    look([(0, places.whole), (0, 0), (0, needed)])
    run([certify(memo, Wanted(1, 0, minimum=True))], [memo], look)
    assert memo.state == "budget"
    assert len(memo.known) == 40_000


# What is there is found


# Of so many toys of each kind in how many a set of the smallest size is found, and in how many as many sets as may be
# shown together.
FOUND = {
    (3, "planted"): (30, 30, 23),
    (3, "harmful"): (30, 30, 26),
    (3, "additive"): (30, 30, 23),
    (4, "planted"): (12, 12, 9),
    (4, "harmful"): (12, 12, 6),
    (4, "additive"): (12, 12, 8),
}


@pytest.mark.parametrize(("side", "kind"), FOUND)
def test_the_smallest_sets_are_found_in_nearly_all_toys(side: int, kind: str) -> None:
    seeds, at_least, all_shown = FOUND[side, kind]
    smallest = full = 0
    for seed in range(seeds):
        table, truth = toy(side, kind, seed)
        (graph,) = Toy(table).explained().graphs
        smallest += len(graph.found[0].patches) == min(sizes(side)[truth])
        full += len(graph.roots) == most(minimal_sets(truth), graph.overlap)
    assert smallest >= at_least
    assert full >= all_shown


def most(sets: set[int], overlap: int) -> int:
    """Return how many of some sets, up to three, share few patches two by two."""
    shown = np.array([[one >> patch & 1 for patch in range(16)] for one in sorted(sets)], np.float32)
    fit = shown @ shown.T <= overlap
    np.fill_diagonal(fit, False)
    if ((fit.astype(np.float32) @ fit > 0) & fit).any():
        return 3
    return 2 if fit.any() else min(1, len(sets))


def needing(side: int, needed: tuple[int, ...]) -> np.ndarray:
    """Return log-odds that are far below what suffices for all sets but those that hold some patches."""
    shown = held(side)
    return np.where(shown[:, needed].all(1), 4.0, -8.0) + 0.001 * shown.sum(1)


def test_a_root_too_large_to_be_reached_from_below_is_reached_from_above() -> None:
    needed = (0, 1, 3, 4, 6, 9, 10, 13, 15)
    (graph,) = Toy(two_classes(needing(4, needed))).explained().graphs
    assert [(root.patches, root.proof) for root in graph.roots] == [(needed, "1-minimal")]
    assert graph.found == graph.roots
    assert "down from all" in graph.spent
    assert graph.evaluations < 150
    # Eight patches are proven.
    odds = needing(4, needed[:8])
    (graph,) = Toy(two_classes(odds)).explained().graphs
    assert [(root.patches, root.proof) for root in graph.roots] == [(needed[:8], "minimal")]
    holds(graph, enough(odds))


def test_a_single_patch_is_a_root() -> None:
    odds = np.where(held(3)[:, [4, 7]].any(1), 4.0, -4.0)
    (graph,) = Toy(two_classes(odds)).explained().graphs
    assert {root.patches for root in graph.roots} == {(4,), (7,)}
    assert {root.proof for root in graph.roots} == {"minimum"}


@pytest.mark.parametrize("criterion", ["top1", "both"])
@pytest.mark.parametrize("seed", range(8))
def test_the_class_may_stay_first_where_it_is_worth_less(criterion: str, seed: int) -> None:
    """Three classes share what the first one does not have: its probability does not say whether it is first."""
    draw = torch.Generator().manual_seed(seed)
    table = torch.randn(512, 3, generator=draw, dtype=torch.float64)
    table[0], table[-1] = torch.tensor([-1.0, 1, 0]), torch.tensor([2.0, 0, 0])
    p = table.softmax(1)
    truth = ((p.argmax(1) == 0) & ((p[:, 0] > 0.9 * p[-1, 0]) | (criterion == "top1"))).numpy()
    (graph,) = Toy(table).explained(criterion=criterion).graphs
    holds(graph, truth)
    assert graph.state == "complete"
    assert graph.roots


def test_taking_away_ends_where_the_best_part_is_not_first_and_a_worse_one_is() -> None:
    places, asked = PatchGrid(3, (9, 9)), 0

    def suffices(verdict: Verdict) -> bool:
        nonlocal asked
        asked += 1
        assert asked < 1000, "it goes on for ever"
        return verdict.top

    def look(pairs: list[tuple[int, int]]) -> None:
        for _, one in pairs:
            memo.known[one] = Verdict(0.05 + one % 7 / 100, one == places.whole & ~1)

    memo = Memo(places, suffices, known={places.whole: Verdict(0.9, True)})
    run([shrink(memo, places.whole)], [memo], look)
    assert memo.suffices(places.whole & ~1)
    assert all(places.whole & ~1 & ~(1 << patch) in memo.known for patch in range(1, 9))


# Where nothing is to be found


@pytest.mark.parametrize(
    ("target", "options"),
    [
        ("second", {"criterion": "top1"}),
        ("second", {"criterion": "both"}),
        ("1 - 0", {}),
        (lambda output: output[:, 1] - 5, {}),
        ("second", {"criterion": "top1", "variant": "reference"}),
    ],
)
def test_where_the_whole_picture_does_not_suffice_nothing_does(target: object, options: dict[str, object]) -> None:
    """Also where a part of it would."""
    table = torch.randn(512, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    table[-1] = torch.tensor([3.0, 2.0, 0.0])
    assert (table[[1 << patch for patch in range(9)]].argmax(1) == 1).any()
    found = Toy(table).explained(target=target, **options)
    (graph,) = found.graphs
    assert (graph.roots, graph.found, graph.nodes, graph.edges) == ((), (), (), ())
    assert graph.state == "complete"
    assert any("the whole picture itself does not suffice" in note for note in found.notes[0])
    assert any("the map is zero" in note for note in found.notes[0])
    assert not found.values.any()


def test_where_the_whole_picture_does_not_suffice_there_is_nothing_to_refine() -> None:
    table = torch.randn(2**16, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    table[-1] = torch.tensor([3.0, 2.0, 0.0])
    found = Toy(table).explained(2, "second", criterion="top1", refine=2)
    assert found.graphs[0].roots == ()
    assert found.values.shape == (1, 1, 4, 4)


@pytest.mark.parametrize("options", [{}, {"variant": "reference"}, {"certify": "minimum"}])
def test_where_nothing_of_the_picture_is_needed_the_empty_set_is_the_root(options: dict[str, object]) -> None:
    odds = 4 + log_odds(3, "additive", 0) / 100
    found = Toy(two_classes(odds)).explained(**options)
    (graph,) = found.graphs
    assert [(root.patches, root.proof) for root in graph.roots] == [((), "minimum")]
    assert graph.found == graph.roots
    assert [node.patches for node in graph.nodes] == [()]
    assert any("with every patch taken away the picture still suffices" in note for note in found.notes[0])
    assert not found.values.any()


# Finer grids


@pytest.mark.parametrize("seed", range(6))
def test_roots_of_the_finer_grid_suffice_and_need_every_patch(seed: int) -> None:
    table, truth = toy(4, "planted", seed)
    model = Toy(table)
    found = model.explained(2, refine=2)
    (graph,) = found.graphs
    assert (graph.places.side, graph.state) == (4, "complete")
    assert found.values.shape == (1, 1, 4, 4)
    assert graph.roots
    holds(graph, truth)
    is_a_graph(graph)
    shares = torch.tensor([[patch in root.patches for patch in range(16)] for root in graph.roots]).double().mean(0)
    assert torch.equal(found.values.flatten(), shares)


def test_a_coarse_root_that_does_not_suffice_on_the_finer_grid_grows_beside_itself() -> None:
    """Of the coarse patch 0 the finer patch 5 is needed; what else is needed lies on the way to the far corner."""
    shown = held(4)
    odds = -4 + 2.0 * shown[:, 5] + 3.0 * shown[:, [5, 10]].all(1) + 3.0 * shown[:, [5, 10, 15]].all(1)
    truth, p = enough(odds), probabilities(odds)
    places = PatchGrid(4, (8, 8))
    memo = Memo(places, partial(sufficient, whole=float(p[-1]), threshold=0.9, criterion="ratio"))
    asked: list[int] = []

    def look(pairs: list[tuple[int, int]]) -> None:
        for _, one in pairs:
            asked.append(one)
            memo.known[one] = Verdict(float(p[one]), True)

    look([(0, places.whole), (0, 0)])
    asked.clear()
    run([finer(memo, PatchGrid(2, (8, 8)), [1], Wanted(1, 0, False))], [memo], look)
    assert smallest(memo) == [bits((5, 10, 15))] == list(minimal_sets(truth))
    block = bits((0, 1, 4, 5))
    # Beside the block lie five patches, also at its corner; beside it and patch 10 six more.
    grown = [one for one in asked if one & block == block]
    around = {block | 1 << patch for patch in (2, 6, 8, 9, 10)}
    further = {block | 1 << 10 | 1 << patch for patch in (2, 6, 7, 8, 9, 11, 13, 14, 15)}
    assert grown[0] == block
    assert set(grown[1:6]) == around
    assert set(grown[6:15]) == further
    assert memo.state == "complete"
