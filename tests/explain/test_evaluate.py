"""evaluate(): metrics of methods on pictures, as a user would call it."""

import csv
from dataclasses import replace
from math import isnan, nan

import numpy as np
import pytest
import torch

import whence
from small_nets import SmallNet, drawn
from whence.asking import MethodRequest, written
from whence.creatures import draw
from whence.creatures.score import predictor
from whence.errors import (
    MissingExtraError,
    OptionError,
    PictureError,
    SizeError,
    UnknownNameError,
    UnsupportedError,
    WhenceError,
)
from whence.evaluation.evaluate import Task, collected, methods_asked, metrics_asked, scored
from whence.evaluation.regions import region_on_grid
from whence.metrics.claim import Claim
from whence.pictures.preprocess import Geometry, Prepared, Preprocess
from whence.registry import METHODS, METRICS, MethodFacts, MetricFacts
from whence.reports.scores import Asked, Row, estimate, mean_curves, table
from whence.results import Curve, Measured, Passes

SIDE = 16
PIXELS = [draw(seed).pixels for seed in range(3)]


@pytest.fixture(scope="module")
def model():
    return whence.Classifier(
        drawn(SmallNet()).float(), Preprocess(resize=(SIDE, SIDE)), labels=["a", "b", "c", "d", "e"]
    )


@pytest.fixture
def counted(monkeypatch):
    """A metric that counts its calls: the map's mean, or NaN for a picture that it is told of."""
    METRICS.names()
    calls = []

    def count(claim: Claim, *, undefined: str = "none") -> Measured:
        calls.append(list(claim.names))
        value = claim.heat.mean((1, 2)) * (nan if undefined in claim.names[0] else 1)
        curve = Curve(torch.tensor([0.0, 1.0], dtype=torch.float64), value[:, None].expand(-1, 2))
        return Measured(value, curve, notes=tuple(("so it is",) for _ in claim.names))

    facts = MetricFacts("counted", count, "Counted", "faithfulness", "-", "map", "higher")
    monkeypatch.setitem(METRICS._entries, "counted", facts)
    return calls


@pytest.fixture
def refusing(monkeypatch):
    """A method that refuses what it is told to."""
    METHODS.names()

    def register(error, applies=lambda x: True):
        def method(model, x, target):
            if any(applies(picture) for picture in x):
                raise error
            return METHODS.facts("gradient").function(model, x, target)

        facts = MethodFacts(
            "broken", method, "Broken", "propagation", "-", "gradients", "sum", "signed",
            lambda options, model: Passes(),
        )  # fmt: skip
        monkeypatch.setitem(METHODS._entries, "broken", facts)

    return register


def test_every_number_is_the_metrics_own(model):
    made = whence.evaluate(model, PIXELS[:2], ["gradient", "grad-cam:relu=true"], ["deletion:grid=8,steps=5"])
    assert [(r.picture, r.method, r.options, r.metric) for r in made.rows] == [
        (f"picture {n}", m, o, "deletion:grid=8,steps=5")
        for n in (0, 1)
        for m, o in (("gradient", ""), ("grad-cam", "relu=true"))
    ]
    for number, pixels in enumerate(PIXELS[:2]):
        x = model.preprocess(whence.pictures.read.read(pixels)).input[None]
        answer = whence.attribute(model, x, "grad-cam", relu=True)
        alone = whence.metrics.measure(model, x, answer, "deletion", grid=8, steps=5)
        row = made.rows[2 * number + 1]
        assert row.value == pytest.approx(float(alone.value[0]), rel=1e-4)
        assert row.curve == pytest.approx(alone.curve.value[0].tolist(), rel=1e-4)
        assert row.target == model.labels[int(answer.target[0])]


def test_the_method_runs_once_for_all_metrics_and_each_metric_once_a_picture(model, counted, monkeypatch):
    runs = []
    facts = METHODS.facts("gradient")

    def spy(model, x, target):
        runs.append(len(x))
        return facts.function(model, x, target)

    monkeypatch.setitem(METHODS._entries, "gradient", replace(facts, function=spy))
    made = whence.evaluate(model, PIXELS, "gradient", ["counted", "counted:undefined=no"])
    assert runs == [3]
    assert sorted(calls[0] for calls in counted) == sorted(["picture 0", "picture 1", "picture 2"] * 2)
    assert len(made.rows) == 6
    assert {row.notes for row in made.rows} == {("so it is",)}


def test_by_itself_deletion_and_insertion_at_one_resolution(model):
    assert [r.text for r in metrics_asked(None, model)] == ["deletion:grid=16", "insertion:grid=16"]
    large = whence.Classifier(model.module, Preprocess(resize=(64, 64)))
    assert [r.text for r in metrics_asked(None, large)] == ["deletion:grid=28", "insertion:grid=28"]
    bare = whence.Classifier(model.module)
    assert metrics_asked(None, bare, [torch.zeros(3, 40, 20), torch.zeros(3, 40, 40)])[0].options == {"grid": 20}


def test_what_was_explained_is_remembered(model):
    labels = iter(["b", "a - c", "e"])
    made = whence.evaluate(
        model, PIXELS, "gradient", "deletion:steps=2,grid=4", target=["b", "a - c", lambda logits: logits[:, 0]]
    )
    assert [row.target for row in made.rows] == [next(labels), next(labels), "a function of the model's output"]
    assert whence.evaluate(model, PIXELS[0], "gradient", "deletion:steps=2", target="second").target == "second"


@pytest.mark.parametrize(
    ("target", "said"),
    [
        (None, None),
        (0, "0"),
        (np.int64(2), "2"),
        ([0, 1], "one target a picture"),
        (lambda logits: logits[:, 0], "a function of the model's output"),
    ],
)
def test_the_page_states_the_target_that_was_asked(model, counted, target, said):
    made = whence.evaluate(model, PIXELS[:2], "gradient", "counted", target=target)
    assert made.target == said
    if said is not None:
        assert "top class" not in made.html()


def test_what_is_asked_twice_in_other_words_counts_once(model, counted):
    methods = ["grad-cam:relu=true", "gradient", "grad-cam:relu=True", "gradient:"]
    made = whence.evaluate(model, PIXELS[:2], methods, ["counted", "counted:"])
    assert [(row.picture, row.label) for row in made.rows] == [
        (f"picture {n}", m) for n in (0, 1) for m in ("grad-cam:relu=true", "gradient")
    ]
    swapped = ["deletion:grid=4,steps=2", "deletion:steps=2,grid=4"]
    assert [one.text for one in metrics_asked(swapped, model)] == swapped[:1]


@pytest.mark.parametrize(("order", "better"), [("most", "lower"), ("least", "higher"), ("combined", "higher")])
def test_road_is_ranked_as_its_order_asks(model, order, better):
    (asked,) = whence.evaluate(model, PIXELS[0], "gradient", f"road:order={order},percentiles=50.0").metrics
    assert asked.better == better
    assert METRICS.facts("road").better_for({}) == "higher"


@pytest.fixture
def small():
    """A model that takes pictures of their own size, with two of them: one of 16 pixels a side, and one of 8."""
    classifier = whence.Classifier(drawn(SmallNet()).float())
    return classifier, [torch.rand(3, side, side, generator=torch.Generator().manual_seed(0)) for side in (16, 8)]


@pytest.mark.parametrize("metric", ["deletion:grid=12,steps=2", "infidelity:size=12,samples=2"])
def test_a_metric_that_does_not_fit_a_small_picture_is_left_out_of_it_alone(small, metric):
    classifier, pictures = small
    made = whence.evaluate(classifier, pictures, "gradient", [metric, "sparseness"])
    assert [(one.picture, one.metric) for one in made.skipped] == [("tensor 1", metric)]
    assert "8 x 8" in made.skipped[0].reason
    assert [row.picture for row in made.rows] == ["tensor 0", "tensor 0", "tensor 1"]
    assert [name for name, _ in whence.evaluate(classifier, pictures, "gradient", metric).failed] == ["tensor 1"]
    with pytest.raises(WhenceError, match="8 x 8"):
        whence.evaluate(classifier, pictures[1:], "gradient", metric)


def test_a_method_that_does_not_fit_a_small_picture_is_left_out_of_it_alone(small, counted, refusing):
    classifier, pictures = small
    refusing(SizeError("mask=12 on 8 x 8"), lambda x: x.shape[1] == 8)
    made = whence.evaluate(classifier, pictures, ["broken", "gradient"], "counted")
    assert [(one.picture, one.method, one.metric) for one in made.skipped] == [("tensor 1", "broken", None)]
    assert len(made.rows) == 3
    refusing(OptionError("wrong for all"), lambda x: x.shape[1] == 8)
    with pytest.raises(OptionError, match="wrong for all"):
        whence.evaluate(classifier, pictures, ["broken", "gradient"], "counted")


def test_a_curve_is_drawn_over_what_its_metric_says(model, counted, monkeypatch):
    assert "share of the area</text>" in whence.evaluate(model, PIXELS[:1], "gradient", "counted").html()
    facts = replace(METRICS.facts("counted"), along="share of the layers")
    monkeypatch.setitem(METRICS._entries, "counted", facts)
    page = whence.evaluate(model, PIXELS[:1], "gradient", "counted").html()
    assert "share of the layers</text>" in page
    assert "share of the area" not in page


def test_a_method_that_cannot_is_left_out_and_the_others_are_measured(model, counted, refusing):
    second = model.preprocess(whence.pictures.read.read(PIXELS[1])).input
    refusing(UnsupportedError("not this one"), lambda x: torch.equal(x, second))
    made = whence.evaluate(model, PIXELS, ["broken", "gradient"], "counted")
    assert [(s.picture, s.method, s.metric, s.reason) for s in made.skipped] == [
        ("picture 1", "broken", None, "not this one")
    ]
    assert [(row.picture, row.method) for row in made.rows] == [
        ("picture 0", "broken"),
        ("picture 0", "gradient"),
        ("picture 1", "gradient"),
        ("picture 2", "broken"),
        ("picture 2", "gradient"),
    ]
    assert {line.method: line.pictures for line in made.table()} == {"broken": 2, "gradient": 3}
    refusing(UnsupportedError("no"))
    with pytest.raises(WhenceError, match="no"):
        whence.evaluate(model, PIXELS, "broken", "counted")


def test_a_metric_that_cannot_is_left_out_of_that_picture(model, counted, monkeypatch):
    facts = METRICS.facts("counted")

    def picky(claim: Claim) -> Measured:
        if claim.names == ["picture 1"]:
            raise UnsupportedError("not here")
        return facts.function(claim)

    monkeypatch.setitem(METRICS._entries, "picky", replace(facts, name="picky", function=picky))
    made = whence.evaluate(model, PIXELS, "gradient", ["picky", "counted"])
    assert [(s.picture, s.method, s.metric) for s in made.skipped] == [("picture 1", "gradient", "picky")]
    assert len(made.rows) == 5


def test_a_picture_that_cannot_be_read_is_listed(model, counted, tmp_path):
    (tmp_path / "bad.png").write_bytes(b"no picture")
    made = whence.evaluate(model, [PIXELS[0], tmp_path / "bad.png"], "gradient", "counted")
    assert [name for name, _ in made.failed] == [str(tmp_path / "bad.png")]
    with pytest.raises(PictureError):
        whence.evaluate(model, [tmp_path / "bad.png"], "gradient", "counted")


@pytest.mark.parametrize(
    ("methods", "metrics", "error", "said"),
    [
        (["gradent"], ["counted"], UnknownNameError, "'gradient'"),
        (["gradient"], ["delation"], UnknownNameError, "'deletion'"),
        (["gradient"], ["deletion:gird=3"], OptionError, "'grid'"),
        (["gradient"], ["deletion:grid"], OptionError, "key=value"),
        (["gradient"], ["deletion:substrate=fog"], UnknownNameError, "fog"),
        ([], ["counted"], OptionError, "no method"),
        (["gradient"], [], OptionError, "no metric"),
        (["gradient"], ["pointing"], OptionError, "region"),
    ],
)
def test_what_is_wrong_is_said(model, counted, methods, metrics, error, said):
    with pytest.raises(error, match=said):
        whence.evaluate(model, PIXELS[0], methods, metrics)


def test_all_methods_are_those_registered():
    assert [r.method for r in methods_asked(["gradient", "all"])] == list(
        dict.fromkeys(["gradient", *METHODS.names()])
    )


@pytest.mark.parametrize("text", ["rise:samples=50,seed=3", "grad-cam:layer=a+b,relu=true", "grad-cam:layer=none"])
def test_options_are_written_as_they_are_read(text):
    assert f"{text.partition(':')[0]}:{written(MethodRequest.read(text).options)}" == text


def test_a_bootstrap_interval_is_that_of_a_loop():
    """The same resamples, drawn one after the other; the ends by linear interpolation between sorted means."""
    values = [0.1, 0.9, 0.4, nan, 0.35, 0.8]
    found = estimate(values, seed=3)
    defined = [v for v in values if not isnan(v)]
    rows = torch.randint(5, (2000, 5), generator=torch.Generator().manual_seed(3)).tolist()
    means = sorted(sum(defined[i] for i in row) / 5 for row in rows)

    def at(share):
        place = share * 1999
        low = int(place)
        return means[low] + (place - low) * (means[low + 1] - means[low])

    assert found.mean == pytest.approx(sum(defined) / 5, abs=1e-12)
    assert (found.low, found.high) == (pytest.approx(at(0.025), abs=1e-12), pytest.approx(at(0.975), abs=1e-12))
    assert (found.count, found.undefined) == (5, 1)


def test_one_picture_has_no_interval_and_none_no_mean():
    one, none = estimate([0.5]), estimate([nan, nan])
    assert one.mean == 0.5
    assert isnan(one.low)
    assert (one.count, none.count, none.undefined) == (1, 0, 2)
    assert isnan(none.mean)


def row(picture, method, metric, value, curve=(), share=(0.0, 1.0)):
    return Row(picture, method, "", "a", metric, value, share if curve else (), curve)


def test_the_table_is_in_the_order_of_its_first_metric_and_marks_the_best():
    metrics = [Asked("down", "Down", "lower"), Asked("up", "Up", "higher")]
    values = {"good": (0.1, 0.2), "bad": (0.8, 0.9), "none": (nan, 0.9)}
    rows = [
        row(f"p{n}", method, metric, value)
        for n in (0, 1)
        for method, pair in values.items()
        for metric, value in zip(("down", "up"), pair, strict=True)
    ]
    lines = table(rows, metrics)
    assert [line.method for line in lines] == ["good", "bad", "none"]
    assert [line.best for line in lines] == [("down",), ("up",), ("up",)]
    assert lines[2].estimates["down"].undefined == 2
    assert lines[0].estimates["down"].mean == pytest.approx(0.1)


def test_mean_curves_are_over_the_pictures_whose_curves_stand_alike():
    rows = [
        row("p0", "m", "d", 0.5, (1.0, 0.0)),
        row("p1", "m", "d", 0.5, (0.5, 0.25)),
        row("p2", "m", "d", 0.5, (nan, 0.0)),
        row("p3", "m", "d", 0.5, (0.0, 0.0, 0.0), (0.0, 0.5, 1.0)),
        row("p0", "m", "flat", 0.5),
    ]
    (curve,) = mean_curves(rows)
    assert (curve.method, curve.metric, curve.count) == ("m", "d", 2)
    assert curve.value == pytest.approx((0.75, 0.125))


def test_a_region_lies_where_the_preprocessing_puts_its_pixels():
    """A crop out of the middle, at half the size: each place takes the pixel under its middle."""
    geometry = Geometry((8, 12), (4, 4), (0.0, 2.0, 8.0, 10.0))
    mask = np.random.default_rng(0).random((8, 12)) > 0.5
    found, _ = region_on_grid(mask, Prepared(torch.zeros(3, 4, 4), geometry))
    expected = [[mask[int(2 * (i + 0.5))][int(2 + 2 * (j + 0.5))] for j in range(4)] for i in range(4)]
    assert found.tolist() == [[bool(v) for v in line] for line in expected]
    outside = Geometry((8, 12), (4, 4), (-8.0, -12.0, 8.0, 12.0))
    found, _ = region_on_grid(np.ones((8, 12), bool), Prepared(torch.zeros(3, 4, 4), outside))
    assert found.tolist() == [[False] * 4] * 2 + [[False, False, True, True]] * 2


def test_a_region_is_where_a_mask_is_half_as_bright_as_white_and_must_have_the_pictures_size():
    prepared = Prepared(torch.zeros(3, 4, 4), Geometry((4, 4), (4, 4), (0.0, 0.0, 4.0, 4.0)))
    pixels = np.zeros((4, 4), np.uint8)
    pixels[1, 2], pixels[0, 0] = 128, 127
    found, sha256 = region_on_grid(pixels, prepared)
    assert found.nonzero().tolist() == [[1, 2]]
    assert len(sha256) == 64
    with pytest.raises(PictureError, match="5 x 4 and the picture 4 x 4"):
        region_on_grid(np.ones((5, 4), bool), prepared)
    parts = np.zeros((4, 4), np.uint8)
    parts[1, 2], parts[3, 3] = 1, 8
    assert region_on_grid(parts, prepared)[0].nonzero().tolist() == [[1, 2], [3, 3]]
    assert not region_on_grid(np.zeros((4, 4), np.uint8), prepared)[0].any()
    with pytest.raises(PictureError, match="without an alpha channel"):
        region_on_grid(np.zeros((4, 4, 4), np.uint8), prepared)


def test_a_region_reaches_the_metric_and_a_picture_without_one_is_skipped(model, counted, monkeypatch):
    METRICS.names()
    seen = []

    def where(claim: Claim) -> Measured:
        seen.append(claim.true_region("where")[0])
        return Measured(torch.ones(1))

    facts = MetricFacts("where", where, "Where", "localisation", "-", "region", "higher")
    monkeypatch.setitem(METRICS._entries, "where", facts)
    mask = np.zeros((64, 64), bool)
    mask[:32] = True
    wrong = np.ones((3, 3), bool)
    made = whence.evaluate(model, PIXELS, "gradient", ["where", "counted"], regions=[mask, None, wrong])
    assert len(seen) == 1
    assert seen[0][:8].all()
    assert not seen[0][8:].any()
    assert made.skipped[0].reason == "the picture has no region"
    assert "3 x 3" in made.skipped[1].reason
    assert len([r for r in made.rows if r.metric == "counted"]) == 3
    with pytest.raises(OptionError, match="1 regions for 3 pictures"):
        whence.evaluate(model, PIXELS, "gradient", "where", regions=mask)


def test_what_is_known_is_not_measured_and_what_is_measured_is_kept_at_once(model, counted):
    kept = {}

    def keep(row):
        kept[row.key] = row
        if len(kept) == 3:
            raise KeyboardInterrupt

    def known(item, request, metric, region):
        return kept.get((item.name, request.method, written(request.options), metric.text))

    task = Task(
        model, methods_asked(["gradient", "grad-cam"]), metrics_asked(["counted"], model), known=known, keep=keep
    )
    with pytest.raises(KeyboardInterrupt):
        list(scored(task, PIXELS))
    assert len(kept) == len(counted) == 3
    whole = collected(task, list(scored(replace(task, keep=lambda row: None), PIXELS)))
    assert len(counted) == 6
    fresh = whence.evaluate(model, PIXELS, ["gradient", "grad-cam"], "counted")
    assert [r.key for r in whole.rows] == [r.key for r in fresh.rows]
    assert [r.value for r in whole.rows] == pytest.approx([r.value for r in fresh.rows], rel=1e-4)


@pytest.fixture
def made(model, counted):
    return whence.evaluate(model, PIXELS, ["gradient", "grad-cam:relu=true"], ["counted", "counted:undefined=1"])


def test_csv_comes_back(made, tmp_path):
    made.save(tmp_path / "scores.csv")
    with (tmp_path / "scores.csv").open(newline="") as file:
        found = list(csv.DictReader(file))
    assert list(found[0]) == ["picture", "method", "options", "target", "metric", "value"]
    assert [float(line["value"]) for line in found] == pytest.approx([r.value for r in made.rows], nan_ok=True, rel=0)
    assert [line["options"] for line in found[:4]] == ["", "", "relu=true", "relu=true"]


def test_parquet_comes_back(made, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    found = parquet.read_table(made.save(tmp_path / "scores.parquet")).to_pydict()
    assert list(found) == ["picture", "method", "options", "target", "metric", "value"]
    assert found["value"] == pytest.approx([r.value for r in made.rows], nan_ok=True, rel=0)


def test_parquet_without_its_library_and_other_suffixes_are_refused(made, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(MissingExtraError, match=r"whence\[parquet\]"):
        made.save(tmp_path / "scores.parquet")
    with pytest.raises(OptionError, match=r"\.csv or \.parquet or \.html"):
        made.save(tmp_path / "scores.xlsx")
    assert list(tmp_path.iterdir()) == []


def test_an_evaluation_says_what_it_is(made):
    assert "3 pictures, 2 methods, 2 metrics" in repr(made)
    assert [curve.count for curve in made.curves] == [3, 2, 3, 2]
    assert "<table>" in made._repr_html_()
    assert made.result()["rows"][5]["value"] is None


def test_a_score_on_creatures_keeps_to_the_chunk(monkeypatch):
    classifier, seen = whence.load_model("creatures"), []
    pixels = np.stack(PIXELS)
    whole = predictor(classifier)(pixels)
    classifier.module.register_forward_pre_hook(lambda module, inputs: seen.append(len(inputs[0])))
    monkeypatch.setattr("whence.creatures.score.chunk_size", lambda x: 2)
    torch.testing.assert_close(predictor(classifier)(pixels), whole)
    assert seen == [2, 1]
