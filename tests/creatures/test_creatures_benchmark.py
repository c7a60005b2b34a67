"""Methods are scored by what the model itself says of each part."""

import json
from dataclasses import replace
from itertools import combinations
from math import isnan

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import whence
from whence.asking import MethodRequest
from whence.creatures import NAMES, PARTS, draw_many
from whence.creatures.benchmark import FLAT, ORACLE, WITHOUT, Case, case, leaderboard, measured, rank_agreement
from whence.creatures.truth import TAG, redrawing, truth
from whence.errors import LayerError, ModelError, NotFiniteError, UnsupportedError
from whence.pictures.preprocess import Preprocess
from whence.registry import METHODS, MethodFacts
from whence.results import Passes

SIDE = 12


def square(name):
    where = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    left = 2 * (*PARTS, TAG).index(name)
    where[3:5, left : left + 2] = True
    return where


def known(importance):
    """Return a creature of which it is made up what each player counts for; every one is seen in four places."""
    return Case(torch.zeros(3, SIDE, SIDE), {name: square(name) for name in importance}, importance, importance)


FOUR = {"beak": 3.0, "crest": 1.0, "tail": 2.0, "feet": -1.0}
values = st.lists(st.integers(-2, 2).map(float), min_size=4, max_size=4).map(
    lambda v: dict(zip(PARTS, v, strict=True))
)


@given(values, values)
@settings(max_examples=60)
def test_the_order_of_pairs_is_counted(importance, told):
    right = wrong = pairs = 0
    for one, other in combinations(PARTS, 2):
        if importance[one] == importance[other]:
            continue
        higher, lower = (one, other) if importance[one] > importance[other] else (other, one)
        pairs, right, wrong = pairs + 1, right + (told[higher] > told[lower]), wrong + (told[higher] < told[lower])
    found = rank_agreement(told, known(importance))
    assert isnan(found) if pairs == 0 else found == pytest.approx((right - wrong) / pairs)


def test_a_map_that_is_the_truth_gets_all_of_everything():
    assert measured(known(FOUR).painted(FOUR), known(FOUR)) == {"rank": 1, "first": 1, "parts": 1, "mass": 1}
    turned = measured(-known(FOUR).painted(FOUR), known(FOUR))
    assert turned == {"rank": -1, "first": 0, "parts": 1, "mass": 1}


def test_a_map_that_is_the_same_everywhere_says_nothing_of_the_order():
    found = measured(torch.full((SIDE, SIDE), 0.1), known(FOUR))
    assert found == pytest.approx({"rank": 0, "first": 4 / 144, "parts": 16 / 144, "mass": 16 / 144})


def test_a_map_of_nothing_has_no_mass():
    found = measured(torch.zeros(SIDE, SIDE), known(FOUR))
    assert found["rank"] == 0
    assert isnan(found["mass"])


def test_noise_gets_what_chance_gives():
    generator = torch.Generator().manual_seed(0)
    found = []
    for _ in range(300):
        worth = dict(zip(PARTS, torch.randn(4, generator=generator).tolist(), strict=True))
        found.append(measured(torch.randn(SIDE, SIDE, generator=generator), known(worth)))
    assert abs(np.mean([one["rank"] for one in found])) < 0.1
    assert np.mean([one["first"] for one in found]) == pytest.approx(4 / 144, abs=0.03)
    assert np.mean([one["parts"] for one in found]) == pytest.approx(16 / 144, abs=0.06)
    assert np.mean([one["mass"] for one in found]) == pytest.approx(16 / 144, abs=0.02)


def test_a_part_is_as_high_as_the_mean_of_its_place():
    heat = torch.zeros(SIDE, SIDE)
    heat[square("beak")] = 1
    heat[3, 2], heat[3, 4] = 3, 9
    small = known(FOUR)
    small = replace(small, places={**small.places, "tail": small.places["tail"] & (torch.arange(SIDE) == 4)})
    # In the mean: beak 1, crest 3/4, tail 9/2, feet 0. By the truth tail and beak are the other way round.
    assert measured(heat, small)["rank"] == pytest.approx((5 - 1) / 6)
    assert measured(heat, small)["first"] == 0
    assert measured(heat, small)["mass"] == 1


def test_the_tag_is_looked_at_where_one_is_worn():
    worn = known({**FOUR, TAG: 10.0})
    heat = torch.ones(SIDE, SIDE)
    heat[square(TAG)] = 5
    found = measured(heat, worn)
    assert (found["first"], found["tag"], found["parts"]) == (1, 1, 0)
    assert found["tag_mass"] == pytest.approx(20 / 160)
    assert found["mass"] == pytest.approx(16 / 160)


def test_what_is_not_seen_is_not_ranked():
    hidden = known(FOUR)
    hidden = replace(hidden, places={name: hidden.places[name] for name in ("crest", "tail")})
    heat = torch.zeros(SIDE, SIDE)
    heat[square("tail")] = 1
    assert measured(heat, hidden) == {"rank": 1, "first": 1, "parts": 1, "mass": 1}
    nowhere = measured(heat, replace(hidden, places={}))
    assert all(isnan(value) for value in nowhere.values())


@pytest.fixture(scope="module")
def clean():
    return whence.load_model("creatures")


def drawn_truth(classifier):
    (creature,) = draw_many(1, 5)
    return truth(classifier, redrawing(creature, 5, 0))


def test_places_lie_on_the_grid_that_the_model_sees(clean):
    told = drawn_truth(clean)
    cropped = whence.Classifier(clean.module, preprocess=Preprocess(crop=32, mean=(0.5,), std=(0.5,)))
    found = case(cropped, told)
    assert found.input.shape == (3, 32, 32)
    for name, where in told.places.items():
        inside = where[16:48, 16:48]
        assert torch.equal(found.places.get(name, torch.zeros(32, 32, dtype=torch.bool)), inside)


def test_unknown_places_are_refused(clean):
    unknown = whence.Classifier(clean.module, preprocess=lambda picture: torch.rand(3, 64, 64))
    with pytest.raises(ModelError, match="what the preprocessing"):
        case(unknown, drawn_truth(clean))


def requested(*methods):
    return [MethodRequest.read(text) for text in methods]


def test_the_lines_are_means_of_each_map_by_itself(clean, unchecked):
    board = leaderboard(clean, requested("grad-cam", "eigen-cam", "legrad"), 5, 7)
    assert {line.method for line in board.lines} == {"grad-cam", "eigen-cam", ORACLE, WITHOUT, FLAT}
    assert list(board.left_out) == ["legrad"]
    assert "no attention" in board.left_out["legrad"]
    ranks = [line.estimates["rank"].mean for line in board.lines]
    assert ranks == sorted(ranks, reverse=True)
    lines = {line.method: line for line in board.lines}
    assert {name: found.mean for name, found in lines[ORACLE].estimates.items()} == {
        "rank": 1, "first": 1, "parts": 1, "mass": 1
    }  # fmt: skip
    assert lines[FLAT].estimates["rank"].mean == 0
    assert lines["grad-cam"].passes == (1, 0, 1)
    assert (lines["eigen-cam"].class_agnostic, lines["grad-cam"].class_agnostic) == (True, False)
    hits, masses = [], []
    for creature in draw_many(5, 7):
        heat = whence.explain(clean, creature.pixels, "grad-cam").heatmap().numpy().astype(float)
        places = np.isin(creature.parts, [NAMES.index(name) for name in PARTS])
        hits.append(places.ravel()[heat.argmax()])
        masses.append(heat.clip(min=0)[places].sum() / heat.clip(min=0).sum())
    assert lines["grad-cam"].estimates["parts"].mean == pytest.approx(np.mean(hits))
    assert lines["grad-cam"].estimates["mass"].mean == pytest.approx(np.mean(masses), abs=1e-5)
    assert len(board.rows) == 5 * 5


def test_the_tag_counts_most_for_the_model_that_reads_it(unchecked):
    board = leaderboard(whence.load_model("creatures-confounded"), requested("grad-cam"), 3, 7, tags=0.0)
    players = {one.name: one for one in board.players}
    assert players[TAG].first == 1
    assert players[TAG].importance.mean > 10 * max(players[name].importance.mean for name in PARTS)
    line = next(line for line in board.lines if line.method == "grad-cam")
    assert line.estimates["tag"].mean == line.estimates["first"].mean == 1


def test_the_truth_does_not_depend_on_the_methods_and_the_count(clean, unchecked):
    few, more = leaderboard(clean, requested("gradient"), 2, 7), leaderboard(clean, requested("grad-cam"), 3, 7)
    oracle = [[row.values for row in board.rows if row.method == FLAT] for board in (few, more)]
    assert oracle[0] == oracle[1][:2]


def register(monkeypatch, name, function):
    METHODS.names()
    facts = MethodFacts(
        name, function, name, "activation", "-", "scores", "abs-max", "positive", lambda options, model: Passes(),
    )  # fmt: skip
    monkeypatch.setitem(METHODS._entries, name, facts)


def test_a_map_that_fails_is_a_row_of_its_own(clean, monkeypatch, unchecked):
    def fragile(model, x, target):
        """Fails on one of the pictures."""
        if any("creature 1" in name for name in model.names):
            raise NotFiniteError("NaN in creature 1")
        return METHODS.facts("gradient").function(model, x, target)

    register(monkeypatch, "fragile", fragile)
    board = leaderboard(clean, requested("fragile", "gradient"), 3, 7)
    assert [(row.creature, row.method, row.error) for row in board.failed] == [(1, "fragile", "NaN in creature 1")]
    lines = {line.method: line for line in board.lines}
    assert (lines["fragile"].failed, lines["fragile"].estimates["rank"].count) == (1, 2)
    assert lines["gradient"].failed == 0
    alike = [[row.values for row in board.rows if row.method == name] for name in ("fragile", "gradient")]
    for alone, together in zip(alike[0][::2], alike[1][::2], strict=True):
        assert alone == pytest.approx(together, abs=1e-4)


def test_a_method_that_always_fails_stands_last_and_without_numbers(clean, monkeypatch, unchecked):
    def broken(model, x, target):
        """Never works."""
        raise NotFiniteError("NaN everywhere")

    register(monkeypatch, "broken", broken)
    board = leaderboard(clean, requested("broken"), 2, 7)
    assert board.lines[-1].method == "broken"
    assert board.lines[-1].estimates == {}
    assert board.to_json()["lines"][-1]["seconds"] is None


def test_where_no_method_fits_there_is_no_leaderboard(clean):
    with pytest.raises(UnsupportedError, match="no attention"):
        leaderboard(clean, requested("legrad", "attention-rollout"), 1, 7)


def test_a_layer_that_does_not_exist_is_refused(clean):
    with pytest.raises(LayerError, match="nowhere"):
        leaderboard(clean, requested("grad-cam:layer=nowhere", "gradient"), 1, 7)


def test_what_is_not_defined_is_none_in_json(clean):
    told = leaderboard(clean, requested("gradient"), 1, 7).to_json()
    assert json.loads(json.dumps(told, allow_nan=False)) == told
    assert told["lines"][0]["estimates"]["rank"]["low"] is None
    assert "rows" not in told
    assert told["failed"] == []
