"""Where the relevance went reaches an explanation and comes back with it, and so do the maps at layers."""

import json

import numpy as np
import pytest
import torch
from torch import nn

import whence
from small_nets import Lambda, SmallNet, drawn, pictures
from whence import rows
from whence.attribution import NO_PLACES
from whence.creatures import draw
from whence.results import reduced

PIXELS = draw(0).pixels
AMOUNTS = ("start", "input", "bias", "constants", "stabiliser")


@pytest.fixture(scope="module")
def model():
    return whence.load_model("creatures")


@pytest.fixture(scope="module")
def double():
    return whence.Classifier(drawn(SmallNet()))


def test_it_is_the_method_s_own_in_plain_numbers(model):
    made = whence.explain(model, PIXELS, "lrp", layer=("stem", "head"))
    whole, told = made.attribution.balance, made.balance
    assert {name: told[name] for name in AMOUNTS} == {name: float(getattr(whole, name)) for name in AMOUNTS}
    assert told["layers"] == {name: float(t) for name, t in whole.layers.items()}
    assert set(told["layers"]) == {"stem", "head"}
    assert all(type(told[name]) is float for name in AMOUNTS)
    got = sum(told[name] for name in AMOUNTS[1:]) + sum(told["other"].values())
    assert told["start"] == pytest.approx(got, rel=1e-5)
    assert told["start"] == pytest.approx(float(made.attribution.score), rel=1e-5)
    assert told["input"] == pytest.approx(float(made.map.double().sum()), rel=1e-4)


def test_each_picture_has_its_own(model):
    both = whence.explain(model, [PIXELS, draw(1).pixels], "lrp")
    alone = whence.explain(model, draw(1).pixels, "lrp")
    for name in AMOUNTS:
        assert both[1].balance[name] == pytest.approx(alone.balance[name], rel=1e-4, abs=1e-4)
    assert both[0].balance["start"] != pytest.approx(both[1].balance["start"], rel=1e-3)


def test_other_methods_have_none(model):
    assert whence.explain(model, PIXELS, "gradient").balance is None


@pytest.mark.parametrize("options", [{}, {"layer": "all"}, {"layer": "head"}, {"keep": {"top": [3]}}])
def test_it_comes_back_with_all_its_digits(model, tmp_path, options):
    made = whence.explain(model, PIXELS, "lrp", **options)
    made.save(tmp_path / "out")
    found = whence.Explanation.load(tmp_path / "out")
    assert found.balance == made.balance
    assert torch.equal(found.map, made.map)
    assert torch.equal(found.heatmap(), made.heatmap())
    assert {name: tuple(t.shape) for name, t in found.attribution.layers.items()} == {
        name: tuple(t.shape) for name, t in made.attribution.layers.items()
    }
    assert float(found.attribution.balance.unaccounted) == float(made.attribution.balance.unaccounted)


def test_a_layer_without_places_has_an_even_map(double, tmp_path):
    x = pictures(2)
    answer = whence.attribute(double, x, "lrp", layer="head", target=1)
    heat = answer.heatmap()
    assert answer.values.ndim == 2
    assert heat.shape == (2, 16, 16)
    assert (heat == answer.values.sum(1)[:, None, None]).all()
    assert all(NO_PLACES in notes for notes in answer.notes)
    made = whence.explain(double, x[0], "lrp", layer="head", target=1)
    assert made.map.shape == (5,)
    made.save(tmp_path / "out")
    with np.load(tmp_path / "out" / "maps.npz") as maps:
        assert maps["0/lrp"].shape == (5,)
    assert made._repr_png_()[:4] == b"\x89PNG"
    assert "balance" in made._repr_html_()


def test_a_layer_whose_places_nobody_knows_is_even_too(tmp_path):
    def forward(net, x):
        return net.head(net.odd(net.conv(x).relu().mean((2, 3))).flatten(1))

    parts = {"conv": nn.Conv2d(3, 8, 3), "odd": nn.Unflatten(1, (2, 1, 2, 2)), "head": nn.Linear(8, 5)}
    net = whence.Classifier(drawn(Lambda(forward, **parts)))
    answer = whence.attribute(net, pictures(2), "lrp", layer="odd")
    assert answer.values.shape == (2, 2, 1, 2, 2)
    heat = answer.heatmap()
    assert heat.shape == (2, 16, 16)
    assert torch.allclose(heat[:, 3, 5], answer.balance.layers["odd"])
    for layer in ("odd", ("conv", "odd")):
        whence.explain(net, pictures(1)[0], "lrp", layer=layer).save(tmp_path / "out")
        whence.Explanation.load(tmp_path / "out").save(tmp_path / "again")
    with np.load(tmp_path / "again" / "maps.npz") as maps:
        assert maps["0/lrp.layer-1"].shape == (8,)


def test_evidence_of_an_even_map_takes_as_much_of_every_place(double):
    from whence.metrics.ranking import top_share

    heat = whence.attribute(double, pictures(1), "lrp", layer="head").heatmap((37, 53))
    mask = top_share(heat, 0.064)
    assert float(mask.max() - mask.min()) < 1e-12


def test_of_layers_with_many_values_one_a_place_is_kept(model, tmp_path, monkeypatch):
    made = whence.explain(model, PIXELS, "lrp", layer=("stem", "head"))
    monkeypatch.setattr(rows, "_MOST_VALUES", 1000)
    made.save(tmp_path / "out")
    layers = json.loads((tmp_path / "out" / "result.json").read_text())["pictures"][0]["explanations"][0]["layers"]
    assert layers == [{"name": "stem", "shape": [32, 32]}, {"name": "head", "shape": [1]}]
    found = whence.Explanation.load(tmp_path / "out").attribution.layers
    assert torch.equal(found["stem"][:, 0], reduced(made.attribution.layers["stem"], "sum"))
    assert float(found["head"]) == pytest.approx(made.balance["layers"]["head"], rel=1e-6)


def test_looking_at_layers_changes_nothing(double):
    """A probe is no operation of the model's: it has no rule of its own to miss."""
    x = pictures(2)
    plain, looked = (whence.attribute(double, x, "lrp", layer=layer) for layer in (None, "all"))
    assert looked.notes == plain.notes
    assert not [note for notes in looked.notes for note in notes if "without a rule" in note]
    assert float((looked.values - plain.values).abs().max()) < 1e-10 * float(plain.values.abs().max())


def test_what_is_not_kept_is_in_the_balance(double):
    answer = whence.attribute(double, pictures(2), "lrp", keep={"down": [0, 3]})
    assert set(answer.balance.other) == {"not kept"}
    assert float(answer.residual.max()) < 1e-10
    given = answer.balance.layers["down"]
    assert (answer.balance.other["not kept"].abs() > 1e-3 * given.abs()).all()


@pytest.mark.parametrize("start", ["sglrp", "clrp1"])
def test_a_start_that_cancels_out_is_measured_against_what_it_moved(double, start):
    answer = whence.attribute(double, pictures(3), "lrp", start=start, target=1)
    moved = answer.balance.input.abs() + answer.balance.bias.abs()
    assert (answer.balance.start.abs() < 1e-12).all()
    assert (answer.residual < 1e-10).all()
    assert (answer.balance.unaccounted.abs() < 1e-10 * moved).all()
    assert not [note for notes in answer.notes for note in notes if "biases" in note]


def test_most_of_the_score_in_the_biases_is_a_note_of_the_map_of_the_input(double):
    x = 0.01 * pictures(1)
    made = whence.attribute(double, x, "lrp", composite="lrp-0", target=1)
    share = float((made.balance.bias + made.balance.constants) / made.balance.start)
    assert share > 0.5
    (note,) = [note for note in made.notes[0] if "biases" in note]
    assert (f"{share:.1%}" in note) != ("more than 99.9%" in note)
    at_layer = whence.attribute(double, x, "lrp", composite="lrp-0", target=1, layer="down")
    assert not [note for note in at_layer.notes[0] if "biases" in note]


def test_a_composite_of_one_s_own_is_named_in_the_result(double, tmp_path):
    from whence.methods.lrp.composites import Composite
    from whence.methods.lrp.rules import flat

    whence.explain(double, pictures(1)[0], "lrp", composite=Composite("mine", (("first", flat()),))).save(tmp_path)
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["pictures"][0]["explanations"][0]["options"]["composite"] == "Composite mine"
