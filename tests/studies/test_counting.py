import json
from itertools import combinations
from math import comb, factorial, isnan, nan

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sag_toys import KINDS, Toy, log_odds, two_classes
from small_nets import SmallNet, classifier, drawn, pictures
from whence import attribute
from whence.errors import OptionError
from whence.graphs.graph import Verdict
from whence.graphs.patches import PatchGrid, bits, members
from whence.methods.sag.building import Terms, graph_of
from whence.methods.sag.oracle import Memo
from whence.reports.counting_results import KEYS, OVERLAPS, THRESHOLDS
from whence.studies.counting import count

SIDE = 3
PATCHES = range(SIDE * SIDE)
PLACES = PatchGrid(SIDE, (9, 9))
TABLES = torch.rand(20, 512, generator=torch.Generator().manual_seed(0), dtype=torch.float64).tolist()


def graph(roots, values, expand=0.0, state="complete", measured="probability", places=PLACES):
    """The graph of some roots, given the value of each set, by ``values`` of its bits."""
    known = {places.whole: Verdict(values(places.whole), True), 0: Verdict(values(0), False)}
    known |= {part: Verdict(values(part), False) for root in roots for part in subsets(root)}
    memo = Memo(places, lambda verdict: verdict.value > 0.9 * known[places.whole].value, known=known, state=state)

    def children(one):
        worth = known[one].value > expand * known[places.whole].value
        return [one & ~(1 << patch) for patch in members(one)] if worth else []

    terms = Terms("black", 0.9, "ratio", 2, expand)
    return graph_of(memo, terms, list(roots), list(roots), children, measured)


def subsets(root):
    own = list(members(root))
    return [bits(part) for size in range(len(own) + 1) for part in combinations(own, size)]


def walked(made):
    """All sets below the roots, as often as a tree without shared nodes holds them, one step at a time."""
    found = []

    def walk(place):
        for edge in made.edges:
            if edge.parent == place:
                found.append(made.nodes[edge.child])
                walk(edge.child)

    for root in made.roots:
        walk(made.place[root.patches])
    return [node for node in found if node.patches]


SETS = [one for one in range(1, 2 ** len(PATCHES)) if one.bit_count() <= 4]
ROOTS = st.lists(st.sampled_from(SETS), max_size=4, unique=True)
CASES = {"roots": ROOTS, "table": st.integers(0, len(TABLES) - 1), "expand": st.sampled_from([0.0, 0.3, 0.6])}


def drawn_graph(roots, table, expand):
    return graph(roots, TABLES[table].__getitem__, expand)


@given(**CASES)
@settings(max_examples=40, deadline=None)
def test_the_counts_are_those_of_walking_the_tree(roots, table, expand):
    made = drawn_graph(roots, table, expand)
    counted, found = count(made), walked(made)
    for theta, sub, tree in zip(THRESHOLDS, counted.sub, counted.tree, strict=True):
        reaching = [node.patches for node in found if node.value / made.whole >= theta]
        assert (sub, tree) == (len(set(reaching)), len(reaching))


@given(**CASES)
@settings(max_examples=40, deadline=None)
def test_the_laws_of_counting(roots, table, expand):
    made = drawn_graph(roots, table, expand)
    counted = count(made)
    pairs = zip(counted.sub, counted.tree, strict=True)
    assert all(sub <= tree for sub, tree in pairs)
    for rising in (counted.sub, counted.tree):
        assert list(rising) == sorted(rising)
    assert isnan(counted.share[0]) or list(counted.share) == sorted(counted.share)
    assert all(isnan(share) or 0 <= share <= 1 for share in counted.share)
    assert list(counted.compatible) == sorted(counted.compatible)
    assert counted.compatible[-1] <= len(counted.sizes) == len(made.roots)


@given(**CASES)
@settings(max_examples=40, deadline=None)
def test_the_largest_compatible_choice_is_that_of_trying_all(roots, table, expand):
    made = drawn_graph(roots, table, expand)
    patches = [set(root.patches) for root in made.roots]
    for overlap, found in zip(OVERLAPS, count(made).compatible, strict=True):
        assert found == max(
            size
            for size in range(len(roots) + 1)
            for chosen in combinations(patches, size)
            if all(len(a & b) <= overlap for a, b in combinations(chosen, 2))
        )


@given(**CASES)
@settings(max_examples=40, deadline=None)
def test_the_share_and_the_area_are_means_over_the_whole_roots(roots, table, expand):
    made = drawn_graph(roots, table, expand)
    shares, areas = [], []
    reached = {node.patches for node in walked(made)}
    for root in made.roots:
        k = len(root.patches)
        parts = {j: list(combinations(root.patches, j)) for j in range(1, k)}
        if not all(part in reached for own in parts.values() for part in own):
            continue
        value = {part: made.evaluated[bits(part)].value / made.whole for own in parts.values() for part in own}
        if k > 1:
            shares.append([sum(v >= theta for v in value.values()) / (2**k - 2) for theta in THRESHOLDS])
        heights = [made.empty / made.whole]
        heights += [sum(value[part] for part in own) / len(own) for own in parts.values()]
        heights.append(root.value / made.whole)
        areas.append(sum((heights[j] + heights[j + 1]) / 2 / k for j in range(k)))
    counted = count(made)
    mean = torch.tensor(shares, dtype=torch.float64).mean(0) if shares else torch.full((9,), nan, dtype=torch.float64)
    torch.testing.assert_close(torch.tensor(counted.share, dtype=torch.float64), mean, equal_nan=True)
    assert counted.area == pytest.approx(sum(areas) / len(areas) if areas else nan, nan_ok=True)
    assert counted.opened == (len(areas) == len(made.roots))


def test_two_patches_by_hand():
    table = {0: 0.02, 0b01: 0.46, 0b10: 0.1, 0b11: 0.76, PLACES.whole: 0.8}
    counted = count(graph([0b11], table.__getitem__))
    # Ratios 0.575 and 0.125 of two subsets.
    assert counted.sub == (0, 0, 0, 0, 1, 1, 1, 1, 2) == counted.tree
    assert counted.share == (0, 0, 0, 0, 0.5, 0.5, 0.5, 0.5, 1)
    assert counted.area == pytest.approx((0.025 + 0.35) / 4 + (0.35 + 0.95) / 4)
    assert (counted.sizes, counted.compatible, counted.opened, counted.capped) == ((2,), (1, 1, 1), True, False)


def test_a_ratio_that_is_the_threshold_counts():
    table = {0: 0.0, 0b01: 0.45, 0b10: 0.4499, 0b11: 0.5, PLACES.whole: 0.5}
    assert count(graph([0b11], table.__getitem__)).sub[0] == 1


def test_a_subset_of_two_roots_is_one_subset_reached_twice():
    counted = count(graph([0b0011, 0b0110], lambda one: 1.0))
    assert (counted.sub[0], counted.tree[0]) == (3, 4)
    assert counted.compatible == (1, 2, 2)


def test_a_root_inside_another_counts_as_its_subset():
    counted = count(graph([0b011, 0b111], lambda one: 1.0))
    # Below 111: 3 sets of two patches, and 3 of one, in two ways each; below 011 its two again.
    assert (counted.sub[0], counted.tree[0]) == (6, 3 + 6 + 2)


@pytest.mark.parametrize("k", [1, 2, 5, 9])
def test_all_subsets_in_closed_form(k):
    counted = count(graph([(1 << k) - 1], lambda one: 1.0))
    assert counted.sub == (2**k - 2,) * 9
    assert counted.tree == (sum(comb(k, j) * factorial(k - j) for j in range(1, k)),) * 9
    assert counted.area == 1
    assert isnan(counted.share[0]) if k == 1 else counted.share == (1.0,) * 9


def test_many_ways_take_no_time():
    """A tree without shared nodes has 12! leaves here."""
    places = PatchGrid(4, (16, 16))
    counted = count(graph([(1 << 12) - 1], lambda one: 1.0 if one else 0.5, places=places))
    assert counted.tree[0] == sum(comb(12, j) * factorial(12 - j) for j in range(1, 12))


def test_what_is_not_expanded_is_a_lower_bound():
    """Below a set that is worth little stands one that is worth much."""
    table = dict.fromkeys(subsets(7), 0.1) | {0b111: 1.0, 0b001: 0.8, PLACES.whole: 1.0}
    below, whole = (count(graph([0b111], table.__getitem__, expand)) for expand in (0.4, 0.0))
    assert (below.sub[1], whole.sub[1]) == (0, 1)
    assert (below.opened, whole.opened) == (False, True)
    assert isnan(below.area)
    assert all(map(isnan, below.share))
    assert whole.share[1] == 1 / 6


@pytest.mark.parametrize("roots", [[], [0]])
def test_without_a_set_of_patches_nothing_is_defined(roots):
    counted = count(graph(roots, lambda one: 1.0))
    assert counted.rootless
    assert counted.capped
    assert counted.sizes == ()
    assert all(map(isnan, counted.values.values()))
    assert tuple(counted.values) == KEYS


def test_capped_and_limited_searches_are_marked():
    made = graph([1, 2], lambda one: 1.0, state="budget")
    assert count(made).capped
    assert [count(made, limit).limited for limit in (None, 3, 2, 1)] == [False, False, True, True]


def test_values_stand_under_their_keys():
    counted = count(graph([0b0011, 0b0110], lambda one: 0.1 + 0.9 * (one.bit_count() > 1)))
    values = counted.values
    assert tuple(values) == KEYS
    assert (values["roots"], values["size"], values["compatible:0"], values["compatible:1"]) == (2, 2, 1, 2)
    assert (values["sub:0.2"], values["sub:0.1"], values["tree:0.1"], values["share:0.1"]) == (0, 3, 4, 1)
    assert values["area"] == counted.area


def test_a_score_has_no_shares():
    with pytest.raises(OptionError, match="score"):
        count(graph([1], lambda one: 1.0, measured="score"))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(2))
def test_a_graph_searched_with_expand_0_holds_all_subsets(kind, seed):
    (made,) = Toy(two_classes(log_odds(3, kind, seed))).explained(roots=10, overlap=2, expand=0).graphs
    counted = count(made)
    roots = [bits(root.patches) for root in made.roots]
    below = {part for root in roots for part in subsets(root) if part not in (0, *roots)}
    assert counted.opened
    assert roots
    for theta, sub in zip(THRESHOLDS, counted.sub, strict=True):
        assert sub == sum(made.share(made.evaluated[part].value) >= theta for part in below)
    # They are minimal: none keeps the share that suffices.
    assert counted.sub[0] == 0 < counted.sub[-1]


def test_a_searched_graph_counts_the_same_after_a_file():
    made = attribute(classifier(drawn(SmallNet())), pictures(2), "sag", grid=3, baseline="zeros", roots=5, expand=0)
    for one in made.graphs:
        assert count(type(one).from_json(json.loads(json.dumps(one.to_json())))) == count(one)
