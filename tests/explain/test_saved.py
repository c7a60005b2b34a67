"""A saved explanation comes back whole: what is saved again is what was saved."""

import json

import numpy as np
import pytest
import torch

import whence
from small_nets import SmallNet, drawn
from whence.creatures import draw
from whence.reports.folder import redraw

PIXELS = draw(0).pixels


@pytest.fixture(scope="module")
def model():
    return whence.load_model("creatures")


def result_of(folder):
    result = json.loads((folder / "result.json").read_text())
    del result["report"]
    return result


def everything(folder):
    with np.load(folder / "maps.npz") as maps:
        return result_of(folder), {name: maps[name].tolist() for name in maps.files}


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("gradient", {}),
        ("grad-cam", {}),
        ("grad-cam", {"layer": ("stem.0", "stem.2"), "relu": True}),
        ("grad-cam", {"target": "second", "truth": "hookball", "seed": 7}),
        ("lrp", {}),
        ("lrp", {"layer": "all"}),
        ("lrp", {"layer": "head"}),
        ("lrp", {"layer": "top", "keep": {"top": [3, 7]}}),
        ("igos++", {"iterations": 2}),
    ],
)
def test_loaded_and_saved_again_it_is_the_same(model, tmp_path, method, options):
    whence.explain(model, PIXELS, method, **options).save(tmp_path / "one")
    whence.Explanation.load(tmp_path / "one").save(tmp_path / "two")
    assert everything(tmp_path / "one") == everything(tmp_path / "two")
    old, new = ((tmp_path / name / "report.html").read_text("utf-8") for name in ("one", "two"))
    assert old == new


def test_the_look_comes_back_too(model, tmp_path):
    whence.explain(model, PIXELS).save(tmp_path / "one", mode="masked", sign="absolute", outlier_perc=2, bar=False)
    found = whence.Explanation.load(tmp_path / "one")
    found.save(tmp_path / "two")
    assert result_of(tmp_path / "one") == result_of(tmp_path / "two")
    assert (tmp_path / "one" / "report.html").read_text() == (tmp_path / "two" / "report.html").read_text()
    found.save(tmp_path / "three", mode="blended")
    look = {"mode": "blended", "sign": "absolute", "outlier_perc": 2, "colours": "whence", "bar": False}
    assert result_of(tmp_path / "three")["look"] == look


def test_a_tensor_without_a_picture_comes_back_too(tmp_path):
    """Float64 scores keep their digits, and a tensor has no hash."""
    jsonschema = pytest.importorskip("jsonschema")
    from whence.reports.contents import schema

    double = whence.Classifier(drawn(SmallNet()))
    x = torch.randn(3, 16, 16, generator=torch.Generator().manual_seed(0)).double()
    whence.explain(double, x, "grad-cam").save(tmp_path / "one")
    whence.Explanation.load(tmp_path / "one").save(tmp_path / "two")
    assert everything(tmp_path / "one") == everything(tmp_path / "two")
    jsonschema.validate(json.loads((tmp_path / "one" / "result.json").read_text()), schema())


def test_what_made_a_result_is_not_what_runs_today(model, tmp_path):
    whence.explain(model, PIXELS).save(tmp_path / "one")
    result = json.loads((tmp_path / "one" / "result.json").read_text())
    result |= {"whence": "0.0.1", "versions": {"torch": "2.1"}}
    result["pictures"][0]["explanations"][0] |= {"method": "gone", "title": "A method of old"}
    result["model"] |= {"device": "cuda:1", "precision": "bfloat16"}
    (tmp_path / "one" / "result.json").write_text(json.dumps(result))
    whence.Explanation.load(tmp_path / "one").save(tmp_path / "two")
    again = result_of(tmp_path / "two")
    assert (again["whence"], again["versions"], again["model"]) == ("0.0.1", {"torch": "2.1"}, result["model"])
    assert again["pictures"][0]["explanations"][0]["title"] == "A method of old"


def test_a_folder_of_an_older_whence_loads(model, tmp_path):
    """Without device, channels, layers and methods left out."""
    whence.explain(model, PIXELS).save(tmp_path / "old")
    result = json.loads((tmp_path / "old" / "result.json").read_text())
    for row, keys in (
        (result["model"], ("device", "precision")),
        (result["pictures"][0], ("left_out",)),
        (result["pictures"][0]["explanations"][0], ("channels", "channels_total", "layers", "balance")),
    ):
        for key in keys:
            del row[key]
    (tmp_path / "old" / "result.json").write_text(json.dumps(result))
    redraw(tmp_path / "old")
    found = whence.Explanation.load(tmp_path / "old")
    assert found.channels is None
    assert (found.model.device, found.subject.left_out, dict(found.attribution.layers)) == (None, (), {})
    found.save(tmp_path / "new")


def test_the_channels_and_layers_come_back(model, tmp_path):
    made = whence.explain(model, PIXELS, "grad-cam", layer=("stem.0", "stem.2"))
    made.save(tmp_path / "one")
    found = whence.Explanation.load(tmp_path / "one")
    assert found.channels.total == made.attribution.weights.shape[1]
    assert torch.equal(found.channels.index, made.attribution.channels(8).index)
    assert torch.equal(found.channels.maps, made.attribution.channels(8).maps)
    assert torch.equal(found.channels.weight.float(), made.attribution.channels(8).weight)
    assert list(found.attribution.layers) == list(made.attribution.layers) == ["stem.0", "stem.2"]
    assert all(torch.equal(a, b) for a, b in zip(found.attribution.layers.values(), made.attribution.layers.values(),
                                                 strict=True))  # fmt: skip


def test_extra_maps_and_the_options_that_ran_are_kept(model, tmp_path):
    made = whence.explain(model, PIXELS, "igos++", iterations=2)
    made.save(tmp_path / "one")
    loaded = whence.Explanation.load(tmp_path / "one")
    assert list(loaded.attribution.parts) == ["deletion", "insertion", "combined"]
    for name, values in made.attribution.parts.items():
        assert torch.equal(loaded.attribution.parts[name], values.float())
    assert {name: loaded.options[name] for name in ("iterations", "steps", "mask", "rate", "search")} == {
        "iterations": 2, "steps": 1, "mask": 28, "rate": 0.2, "search": None,
    }  # fmt: skip
    again = whence.attribute(model, torch.zeros(1, 3, 64, 64), "igos++", **loaded.options)
    assert dict(again.options) == dict(loaded.options)
