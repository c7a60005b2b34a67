"""The tetracode: any two parts decide."""

from itertools import combinations

import pytest

from whence.creatures.code import CLASSES, LABELS, PARTS, SUFFICIENT, VARIANTS, WORDS, candidates, named


def test_there_are_nine_words_over_three_letters():
    assert CLASSES == len(set(WORDS)) == len(set(LABELS)) == 9
    assert {letter for word in WORDS for letter in word} == {0, 1, 2}


def test_two_words_differ_in_three_places():
    distances = {sum(a != b for a, b in zip(*pair, strict=True)) for pair in combinations(WORDS, 2)}
    assert distances == {3}


def test_the_code_is_linear():
    sums = {tuple((a + b) % 3 for a, b in zip(u, v, strict=True)) for u in WORDS for v in WORDS}
    assert sums == set(WORDS)


@pytest.mark.parametrize("pair", SUFFICIENT, ids="+".join)
def test_any_two_parts_leave_one_class(pair):
    for label, word in enumerate(WORDS):
        seen = {part: word[PARTS.index(part)] for part in pair}
        assert candidates(seen) == (label,)


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("variant", range(3))
def test_one_part_leaves_three_classes(part, variant):
    assert len(candidates({part: variant})) == 3


def test_nothing_seen_leaves_all_and_a_contradiction_leaves_none():
    assert candidates({}) == tuple(range(9))
    assert candidates({"beak": 0, "crest": 0, "tail": 1}) == ()


def test_a_species_is_named_after_its_beak_and_its_crest():
    for label, name in enumerate(LABELS):
        variants = named(label)
        assert name.startswith(variants["beak"])
        assert name.removeprefix(variants["beak"]) in {"bare", "spike", "ball"}
        assert all(variants[part] in VARIANTS[part] for part in PARTS)
