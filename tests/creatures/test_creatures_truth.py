"""What each part counts for is the model's own word, shared out by Shapley's formula."""

from itertools import combinations, permutations
from math import log

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import whence
from whence.creatures import NAMES, PARTS, Creature, draw, draw_many, named
from whence.creatures.truth import TAG, redrawing, shapley, truth
from whence.errors import ModelError

PLAYERS = (*PARTS, TAG)
SIDE, WIDTH = 64, 10


def sets(players):
    return [frozenset(own) for size in range(len(players) + 1) for own in combinations(players, size)]


games = st.lists(st.floats(-10, 10), min_size=16, max_size=16).map(lambda v: dict(zip(sets(PARTS), v, strict=True)))


def place(name):
    """Return the square in which a made-up creature has a player."""
    left = WIDTH * PLAYERS.index(name)
    where = np.zeros((SIDE, SIDE), dtype=bool)
    where[20 : 20 + WIDTH, left : left + WIDTH] = True
    return where


def made_up(players, hidden=()):
    """Return a black picture with a white square for each player, of which the hidden ones are not in the map."""
    pixels, parts = np.zeros((SIDE, SIDE, 3), np.uint8), np.zeros((SIDE, SIDE), np.uint8)
    for name in players:
        pixels[place(name)] = 255
        if name not in hidden:
            parts[place(name)] = NAMES.index(name)
    return Creature(pixels, 3, parts, {}, (0, 0, 0, 0))


class Counting(torch.nn.Module):
    """Gives the third class what its squares are worth together, and the other eight classes nothing."""

    def __init__(self, worth, together=0.0):
        super().__init__()
        self.worth, self.together = worth, together

    def forward(self, x):
        """Return 9 logits."""
        white = {name: (x[:, 0, torch.from_numpy(place(name))] > 0).double().mean(1) for name in self.worth}
        own = sum(worth * white[name] for name, worth in self.worth.items())
        own = own + self.together * white["beak"] * white["tail"]
        return torch.stack([own if label == 3 else torch.zeros_like(own) for label in range(9)], 1)


def counting(worth, together=0.0):
    return whence.Classifier(Counting(worth, together), preprocess=whence.load_model("creatures").preprocess)


@given(games)
@settings(max_examples=40)
def test_it_is_the_mean_over_all_orders(value):
    expected = dict.fromkeys(PARTS, 0.0)
    for order in permutations(PARTS):
        for n, player in enumerate(order):
            expected[player] += (value[frozenset(order[: n + 1])] - value[frozenset(order[:n])]) / 24
    assert shapley(value) == pytest.approx(expected, abs=1e-9)


@given(games)
@settings(max_examples=40)
def test_shares_sum_to_what_all_have_together(value):
    assert sum(shapley(value).values()) == pytest.approx(value[frozenset(PARTS)] - value[frozenset()], abs=1e-9)


@given(games)
@settings(max_examples=40)
def test_who_can_stand_in_for_each_other_get_the_same(value):
    turned = {"beak": "feet", "feet": "beak"}
    alike = {own: value[own] + value[frozenset(turned.get(name, name) for name in own)] for own in value}
    assert shapley(alike)["beak"] == pytest.approx(shapley(alike)["feet"], abs=1e-9)


@given(games, st.floats(-5, 5))
@settings(max_examples=40)
def test_who_changes_nothing_gets_what_it_has_alone(value, alone):
    lone = {own: value[own - {"crest"}] + alone * ("crest" in own) for own in value}
    assert shapley(lone)["crest"] == pytest.approx(alone, abs=1e-9)


def test_what_two_have_only_together_is_halved_with_five_players_too():
    value = {own: 3.0 * ({"tail", TAG} <= own) for own in sets(PLAYERS)}
    assert shapley(value) == pytest.approx({"tail": 1.5, TAG: 1.5, "beak": 0, "crest": 0, "feet": 0})


def test_the_truth_is_what_the_model_counts():
    worth = {"beak": 4.0, "crest": 1.0, "tail": 2.0, "feet": 0.5}
    told = truth(counting(worth, together=1.0), made_up)
    assert told.target == 3
    assert told.importance == pytest.approx({**worth, "beak": 4.5, "tail": 2.5})
    assert told.log_odds[frozenset()] == pytest.approx(-log(8))
    assert told.without == pytest.approx({**worth, "beak": 5.0, "tail": 3.0})
    assert list(told.log_odds) == sets(PARTS)


def test_pairs_suffice_by_what_they_keep_of_the_probability():
    worth = {"beak": 4.0, "crest": 1.0, "tail": 2.0, "feet": 0.5}
    told = truth(counting(worth), made_up)

    def p(logit):
        return np.exp(logit) / (np.exp(logit) + 8)

    for own, kept in told.kept.items():
        assert kept == pytest.approx(p(sum(worth[name] for name in own)) / p(7.5), rel=1e-5)
    assert told.pairs(p(5.5) / p(7.5)) == ({"beak", "tail"},)
    assert told.pairs(p(4.75) / p(7.5)) == ({"beak", "crest"}, {"beak", "tail"})
    assert len(told.pairs(0.0)) == 6
    assert frozenset() not in told.first
    assert {"feet"} in told.first


def test_a_class_that_needs_all_is_first_with_all_alone():
    told = truth(counting(dict.fromkeys(PARTS, -1.0)), made_up)
    assert told.target == 0
    assert frozenset(PARTS) in told.first
    assert frozenset() in told.first
    assert all(value > 0 for value in told.importance.values())


def test_the_tag_is_a_fifth_player():
    told = truth(counting({**dict.fromkeys(PARTS, 0.25), TAG: 6.0}), made_up, PLAYERS)
    assert len(told.log_odds) == 32
    assert told.importance == pytest.approx({**dict.fromkeys(PARTS, 0.25), TAG: 6.0})
    assert all(TAG in pair for pair in told.pairs(0.9))
    assert len(told.pairs(0.9)) == 4


def test_what_is_not_seen_has_no_place():
    told = truth(counting(dict.fromkeys(PARTS, 1.0)), lambda own: made_up(own, hidden={"crest"}))
    assert sorted(told.places) == ["beak", "feet", "tail"]
    for name, where in told.places.items():
        assert np.array_equal(where.numpy(), place(name))
    assert "crest" in told.importance


def test_a_crest_that_is_none_counts_for_nothing_and_has_no_place():
    seed = next(seed for seed in range(40) if named(draw(seed).label)["crest"] == "none")
    told = truth(whence.load_model("creatures"), lambda own: draw(seed, keep=own))
    assert told.importance["crest"] == pytest.approx(0, abs=1e-9)
    assert "crest" not in told.places
    assert told.target == draw(seed).label


@pytest.mark.parametrize("tags", [None, 0.5])
def test_a_creature_of_many_is_drawn_again(tags):
    for index, creature in enumerate(draw_many(4, 11, tags=tags)):
        redraw = redrawing(creature, 11, index)
        again = redraw(frozenset(PLAYERS))
        assert np.array_equal(again.pixels, creature.pixels)
        assert np.array_equal(again.parts, creature.parts)
        assert (again.label, again.tag) == (creature.label, creature.tag)
        fewer = redraw(frozenset({"beak", TAG}))
        assert fewer.missing == ("crest", "tail", "feet")
        assert fewer.tag == creature.tag
        bare = redraw(frozenset(PARTS))
        assert bare.tag is None
        assert np.array_equal(bare.pixels, list(draw_many(index + 1, 11))[index].pixels)


def test_a_model_of_other_classes_is_refused():
    ten = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * SIDE * SIDE, 10))
    classifier = whence.Classifier(ten, preprocess=whence.load_model("creatures").preprocess)
    with pytest.raises(ModelError, match="10 classes"):
        truth(classifier, made_up)
