"""How good the maps of a study are: the numbers of evaluate(), by column, and what has no number."""

import math

import pytest
import torch

import whence
from core_samples import LABELS, net, pictures, plan
from small_nets import tiny_options
from whence.errors import NotFiniteError, OptionError, SizeError, UnsupportedError
from whence.metrics.measuring import measure
from whence.models.session import opened
from whence.pictures.read import read
from whence.registry import METRICS
from whence.studies import metrics as studied
from whence.studies.metrics import Seen, names
from whence.studies.shard import Worker

DELETION = "deletion:grid=4,steps=4"
WITHOUT_REGION = [name for name in METRICS.names() if METRICS.facts(name).needs != "region"]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return pictures(tmp_path_factory.mktemp("metrics") / "p", 3)


def quick(name):
    tiny = {key: value for key, value in tiny_options(METRICS.facts(name)).items() if key != "baseline"}
    return ":".join(filter(None, (name, ",".join(f"{key}={value}" for key, value in tiny.items()))))


@pytest.mark.parametrize("name", WITHOUT_REGION)
def test_every_column_holds_what_evaluate_says(root, name):
    """To the last bits but few: evaluate() measures one picture at a time."""
    model, text = net(), quick(name)
    rows = Worker(plan(root, model, methods=["grad-cam"], metrics=[text], seed=4), [model]).explain(0).to_pylist()
    files = [str(root / row["picture"]) for row in rows]
    expected = whence.evaluate(model, files, "grad-cam", [text], seed=4)
    assert not expected.skipped
    found = [row[text] for row in rows]
    assert found == pytest.approx([row.value for row in expected.rows], rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("name", WITHOUT_REGION)
def test_every_column_holds_to_the_bit_what_measure_says_of_the_same_batch(root, name):
    model, text = net(), quick(name)
    rows = Worker(plan(root, model, methods=["grad-cam"], metrics=[text]), [model]).explain(0)
    x = torch.stack([model.preprocess(read(root / f"{number:03d}.png")).input for number in range(3)])
    with opened(model) as session:
        x = session.arranged(x)
    options = {key: value for key, value in tiny_options(METRICS.facts(name)).items() if key != "baseline"}
    seeded = {"seed": 0} if "seed" in METRICS.facts(name).options else {}
    answer = whence.attribute(model, x, "grad-cam")
    assert rows[text].to_pylist() == measure(model, x, answer, name, **seeded, **options).value.tolist()


def test_the_target_that_was_explained_is_the_one_that_is_measured(root):
    model = net()
    columns = []
    for target in (None, "second", "ant - eel", "probability:cat"):
        rows = Worker(plan(root, model, metrics=[DELETION], target=target), [model]).explain(0)
        expected = whence.evaluate(
            model, [str(root / name) for name in rows["picture"].to_pylist()], "gradient", [DELETION], target=target
        )
        assert rows[DELETION].to_pylist() == pytest.approx([row.value for row in expected.rows], rel=1e-5)
        columns.append(rows[DELETION].to_pylist())
    assert columns[0] != columns[1]


def test_the_columns_are_named_as_asked_and_stand_in_that_order(root):
    asked = ["sparseness", DELETION, "deletion:grid=8"]
    model = net()
    job = plan(root, model, metrics=asked)
    assert names(job) == asked
    rows = Worker(job, [model]).explain(0)
    assert [name for name in rows.column_names if name in asked] == asked
    assert rows[DELETION].to_pylist() != rows["deletion:grid=8"].to_pylist()
    assert names(plan(root, model)) == []


def test_the_seed_of_the_study_is_that_of_its_metrics(root):
    model = net()
    found = [
        Worker(plan(root, model, metrics=[text], seed=seed), [model]).explain(0)[text].to_pylist()
        for text, seed in (
            ("infidelity:samples=3", 0), ("infidelity:samples=3", 1), ("infidelity:samples=3,seed=0", 1)
        )
    ]  # fmt: skip
    assert found[0] == found[2]
    assert found[0] != found[1]


def failing(error, only=None):
    real = studied.measured

    def measured(of, metric, options):
        if metric == "sparseness" and (only is None or only in of.names):
            raise error
        return real(of, metric, options)

    return measured


def test_a_metric_that_has_no_number_for_one_picture_leaves_it_null_with_a_note(root, monkeypatch):
    monkeypatch.setattr(studied, "measured", failing(NotFiniteError("no number"), "001.png"))
    model = net()
    rows = Worker(plan(root, model, metrics=["sparseness", DELETION]), [model]).explain(0).to_pylist()
    assert [row["status"] for row in rows] == ["ok"] * 3
    assert [row["sparseness"] is None for row in rows] == [False, True, False]
    assert all(not math.isnan(row[DELETION]) for row in rows)
    assert ["sparseness: no number" in row["notes"] for row in rows] == [False, True, False]


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("error", [OptionError, UnsupportedError, SizeError])
def test_a_metric_that_can_be_asked_of_no_picture_is_an_error(root, monkeypatch, error, batch):
    monkeypatch.setattr(studied, "measured", failing(error("never")))
    model = net()
    with pytest.raises(error, match="never"):
        Worker(plan(root, model, metrics=["sparseness"], batch=batch), [model]).explain(0)


def test_judges_say_what_they_think_of_every_model_s_maps(root):
    models = [net(), net(1, 20, name="two")]
    job = plan(root, *models, methods=["gradient"], metrics=[DELETION], judges=True, batch=3)
    assert names(job)[0] == DELETION
    assert len(names(job)) > 1 + len(models)
    rows = Worker(job, models).explain(0)
    assert set(rows["error"].to_pylist()) == {None}
    for name in names(job):
        assert rows[name].null_count == 0, name
        assert all(math.isfinite(value) for value in rows[name].to_pylist()), name


def test_some_pictures_of_a_batch_keep_what_belongs_to_them():
    x = torch.arange(3.0).reshape(3, 1, 1, 1)
    seen = Seen([5, 6, 7], list(LABELS[:3]), x, [None] * 3).only([2, 0])
    assert (seen.numbers, seen.names, seen.geometries) == ([7, 5], ["cat", "ant"], [None, None])
    assert seen.x.flatten().tolist() == [2.0, 0.0]
