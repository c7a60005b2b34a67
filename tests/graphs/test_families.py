"""Families of sets that share few patches, against all families that there are."""

from collections.abc import Mapping
from itertools import combinations
from math import fsum

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from whence.graphs.families import family

sets = st.dictionaries(st.integers(0, 2**6 - 1), st.sampled_from([0.25, 0.5, 0.75, 1.5, -1.0]), max_size=9)


def fits(chosen: tuple[int, ...], overlap: int) -> bool:
    return all((a & b).bit_count() <= overlap for a, b in combinations(chosen, 2))


def best(values: Mapping[int, float], overlap: int, count: int | None) -> tuple[int, list[int], float]:
    """Return how many sets the best family has, their sizes in order, and the sum of their values."""
    most = len(values) if count is None else min(count, len(values))
    for number in range(most, 0, -1):
        there = [one for one in combinations(values, number) if fits(one, overlap)]
        if there:
            ranked = (([*sorted(a.bit_count() for a in one)], -fsum(values[a] for a in one)) for one in there)
            sizes, value = min(ranked)
            return number, sizes, -value
    return 0, [], 0.0


@settings(deadline=None, max_examples=400)
@given(sets, st.integers(0, 6), st.none() | st.integers(1, 10))
def test_it_is_the_best_of_all_families(values: Mapping[int, float], overlap: int, count: int | None) -> None:
    chosen = family(values, overlap, count)
    assert len(set(chosen)) == len(chosen)
    assert set(chosen) <= set(values)
    assert fits(tuple(chosen), overlap)
    found = len(chosen), [one.bit_count() for one in chosen], fsum(values[one] for one in chosen)
    # The values are such that no sum is rounded.
    assert found == best(values, overlap, count)


def test_it_does_not_depend_on_the_order_in_which_sets_are_given_where_one_is_best() -> None:
    values = {0b11: 0.5, 0b110: 0.7, 0b1100: 0.6, 0b11000: 0.4, 0b1: 0.1}
    backward = dict(reversed(values.items()))
    assert family(values, 0) == family(backward, 0) == [0b1, 0b110, 0b11000]
    assert family(values, 0, 2) == family(backward, 0, 2) == [0b1, 0b110]
    assert family(values, 1, 2) == family(backward, 1, 2) == [0b1, 0b110]


def test_more_sets_come_before_smaller_ones_and_smaller_ones_before_better_ones() -> None:
    # One patch in the middle shares with each of the two others.
    assert family({0b0110: 9.0, 0b0011: 1.0, 0b1100: 1.0}, 0) == [0b0011, 0b1100]
    assert family({0b0110: 9.0, 0b0010: 1.0}, 0) == [0b0010]
    assert family({0b111: 9.0, 0b1000: 0.1, 0b11: 0.2}, 0) == [0b1000, 0b11]

    # The best set of all fits one poor set alone; two that are nearly as good fit each other.
    assert family({0b0011: 0.9, 0b1100: 0.1, 0b0110: 0.8, 0b1001: 0.7}, 0) == [0b0110, 0b1001]


def test_the_empty_set_shares_nothing() -> None:
    assert family({0: 0.5, 0b11: 0.5, 0b10: 0.5}, 0) == [0, 0b10]
    assert family({}, 0) == []


@pytest.mark.parametrize(("number", "overlap"), [(300, 1), (300, 0), (300, 2)])
def test_a_few_of_several_hundred_sets_are_chosen_without_looking_at_all_triples(number: int, overlap: int) -> None:
    """300 sets have 4.5 million triples; a look at each takes most of a minute."""
    triples = list(combinations(range(20), 3))[: 3 * number : 3]
    values, looked = {sum(1 << patch for patch in one): 1 / (2 + sum(one)) for one in triples}, 0

    class Counted(dict[int, float]):
        def __getitem__(self, one: int) -> float:
            nonlocal looked
            looked += 1
            assert looked < 100_000
            return super().__getitem__(one)

    chosen = family(Counted(values), overlap, 3)
    assert fits(tuple(chosen), overlap)
    assert len(chosen) == 3


def test_the_largest_family_of_a_hundred_sets_is_found_in_time() -> None:
    """Ten planted sets share nothing; the ninety others are made of their patches, crosswise."""
    planted = [0b1111 << 4 * number for number in range(10)]
    rows = [[1 << 4 * number + place for number in range(10)] for place in range(4)]
    crossed = [a | b | c | d for a in rows[0][:5] for b in rows[1][5:] for c in rows[2][:2] for d in rows[3][2:4]]
    values = dict.fromkeys([*crossed[:90], *planted], 0.5)
    assert sorted(family(values, 0)) == planted
    assert len(family(values, 0, 7)) == 7
