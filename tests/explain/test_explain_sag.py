"""An explanation by an attention graph: what the graph holds, its map and the evidence for it; saved and loaded."""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import whence
from small_nets import SmallNet, drawn
from whence.creatures import draw
from whence.graphs import PatchGrid
from whence.methods.sag.oracle import Oracle
from whence.metrics.ranking import top_share
from whence.pictures.baselines import make_baseline
from whence.pictures.preprocess import as_seen
from whence.pictures.read import read

PIXELS = [draw(seed).pixels for seed in range(3)]
SMALL = {"grid": 3, "budget": 60}


@pytest.fixture(scope="module")
def model():
    return whence.load_model("creatures")


def seen_by(model):
    """Return the first picture as the model takes it."""
    return model.preprocess(read(PIXELS[0])).input[None]


def lying(one):
    """Return an explanation's map on the model's input, stretched by its style."""
    how = {
        "tents": {"mode": "bilinear", "align_corners": True},
        "centred": {"mode": "bilinear", "align_corners": False},
        "boxes": {"mode": "nearest-exact"},
    }[one.options["style"]]
    return F.interpolate(one.map[None, None], size=(64, 64), **how)[0]


@pytest.fixture(scope="module", params=["tents", "centred", "boxes"])
def one(model, request):
    return whence.explain(model, PIXELS[0], "sag", style=request.param, **SMALL)


def test_it_has_the_graph_with_what_the_model_saw(one, model):
    graph = one.graph
    assert isinstance(graph, whence.AttentionGraph)
    assert graph.places == PatchGrid(3, (64, 64), one.options["style"])
    assert graph.whole == pytest.approx(one.probability, abs=1e-6)
    x = seen_by(model)
    base = make_baseline("black", x, model.pixels)[0]
    assert np.array_equal(graph.picture, as_seen(x[0], model.pixels))
    assert np.array_equal(graph.base, as_seen(base[0], model.pixels))
    assert not graph.base.any()
    assert np.array_equal(graph.seen(range(9)), graph.picture)


def test_a_random_baseline_is_pictured_as_it_was_drawn(model):
    first, again, other = (
        whence.explain(model, PIXELS[0], "sag", baseline="uniform", seed=seed, **SMALL) for seed in (4, 4, 5)
    )
    assert np.array_equal(first.graph.base, again.graph.base)
    assert first.graph.evaluated == again.graph.evaluated
    assert not np.array_equal(first.graph.base, other.graph.base)
    x = seen_by(model)
    drawn = make_baseline("uniform", x, model.pixels, seed=4)[0]
    assert np.array_equal(first.graph.base, as_seen(drawn[0], model.pixels))
    # What the model says of nothing is what it says of this picture.
    found = model.module.eval()(drawn).detach().softmax(1)[0, int(first.attribution.target[0])]
    assert first.graph.empty == pytest.approx(float(found), abs=1e-6)


def test_its_map_is_the_share_of_roots_that_hold_each_patch(one):
    shares = [[float(patch in root.patches) for patch in range(9)] for root in one.graph.roots]
    assert torch.equal(one.map.flatten(), torch.tensor(shares).mean(0))
    torch.testing.assert_close(one.heatmap(), lying(one)[0], rtol=0, atol=1e-6)


def test_the_evidence_takes_the_places_of_the_map_as_it_lies(one, model):
    """The pictures of the evidence are mixed by the map in its own style."""
    x = seen_by(model)
    blurred = make_baseline("blurred", x, model.pixels)[0]
    important = top_share(one.attribution.heatmap(), one.evidence.share)[:, None]
    for found, start, end in zip(one.pictures, (x, blurred), (blurred, x), strict=True):
        expected = as_seen((start * (1 - important) + end * important)[0], model.pixels).astype(int)
        assert np.abs(found.astype(int) - expected).max() <= 1


@pytest.mark.parametrize("metric", ["pointing", "relevance-mass"])
def test_metrics_take_the_map_as_it_lies(one, model, metric):
    heat, region = lying(one)[0], torch.zeros(1, 64, 64, dtype=torch.bool)
    region[0, 20:50, :30] = True
    found = float(whence.metrics.measure(model, seen_by(model), one.attribution, metric, region=region).value)
    highest = heat >= heat.max() - 1e-6
    inside = {
        "pointing": (highest & region[0]).sum() / highest.sum(),
        "relevance-mass": heat[region[0]].sum() / heat.sum(),
    }
    assert found == pytest.approx(float(inside[metric]), abs=1e-5)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"style": "centred", "criterion": "both"},
        {"style": "boxes", "baseline": "uniform", "certify": "minimum"},
        {"refine": 2},
        {"variant": "reference"},
        {"target": "second", "criterion": "top1"},
        {"target": "0 - 1"},
    ],
)
def test_loaded_and_saved_again_it_is_the_same(model, tmp_path, options):
    made = whence.explain(model, PIXELS[1], "sag", **SMALL, **options)
    made.save(tmp_path / "one")
    found = whence.Explanation.load(tmp_path / "one")
    assert found.attribution.style == made.attribution.style == options.get("style", "tents")
    assert torch.equal(found.attribution.heatmap(), made.attribution.heatmap())
    assert torch.equal(found.heatmap(), made.heatmap())
    ours, theirs = ({**vars(one.graph)} for one in (made, found))
    for key in ("picture", "base"):
        assert np.array_equal(ours.pop(key), theirs.pop(key))
    for facts in (ours, theirs):
        facts.pop("place", None)
    assert ours == theirs
    assert list(found.graph.evaluated) == list(made.graph.evaluated)
    found.save(tmp_path / "two")
    for name in ("0-sag.svg", "0-sag.png", "0-sag.graphml", "0-sag.dot", "0-sag.json"):
        first, second = (tmp_path / folder / "graphs" / name for folder in ("one", "two"))
        assert first.read_bytes() == second.read_bytes()
    first, second = (json.loads((tmp_path / folder / "result.json").read_text()) for folder in ("one", "two"))
    assert {**first, "report": ""} == {**second, "report": ""}


def test_several_pictures_have_a_graph_each(model):
    several = whence.explain(model, PIXELS, "sag", **SMALL)
    for pixels, one in zip(PIXELS, several, strict=True):
        alone = whence.explain(model, pixels, "sag", **SMALL)
        assert np.array_equal(one.graph.picture, alone.graph.picture)
        assert list(one.graph.evaluated) == list(alone.graph.evaluated)
        for patches, verdict in one.graph.evaluated.items():
            assert verdict.value == pytest.approx(alone.graph.evaluated[patches].value, abs=1e-5)
        assert [root.patches for root in one.graph.roots] == [root.patches for root in alone.graph.roots]
        assert torch.equal(one.map, alone.map)


@pytest.mark.parametrize("baseline", ["zeros", "blurred"])
def test_pictures_of_an_unknown_range_are_mixed_as_the_model_saw_them(baseline):
    net = drawn(SmallNet(), shape=(3, 16, 16))
    x = torch.randn(3, 16, 16, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    graph = whence.explain(whence.Classifier(net), x, "sag", grid=3, baseline=baseline).graph
    base = make_baseline(baseline, x[None], None)[0][0]
    kept = graph.places.masks([0b1011], x)[0]
    low, high = torch.stack([x, base]).amin(), torch.stack([x, base]).amax()
    true = (255 * (x * kept + base * (1 - kept) - low) / (high - low)).permute(1, 2, 0).numpy()
    assert abs(graph.seen([0, 1, 3]).astype(float) - true).max() <= 1.01


def test_a_search_that_ctrl_c_ends_is_measured_by_no_metric(model, monkeypatch):
    """Half a search has half a map: a table must not take it for the method's."""
    looks, run = 0, Oracle.look

    def look(self, asked):
        nonlocal looks
        looks += 1
        if looks == 4:
            raise KeyboardInterrupt
        run(self, asked)

    monkeypatch.setattr(Oracle, "look", look)
    with pytest.raises(KeyboardInterrupt):
        whence.evaluate(model, [draw(4).pixels], "sag:grid=3", "deletion")
