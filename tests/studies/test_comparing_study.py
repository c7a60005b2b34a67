"""From a study of two models to what its comparison shows."""

import json
from dataclasses import replace
from math import isnan
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
import torch

import whence
from whence.creatures.files import write as draw
from whence.errors import ModelError, OptionError
from whence.pictures.read import read
from whence.reports.comparing_results import figures
from whence.studies import run
from whence.studies.comparing import comparable, from_study, write
from whence.studies.comparing.drawing import shot
from whence.studies.comparing.measures import moved, rank_correlation, shares
from whence.studies.job import ModelEntry

METHOD = "grad-cam"
ENTRY = ModelEntry(
    name="first", spec="x", weights=None, fingerprint="a" * 64, preprocessing="resize", activation="softmax",
    precision="float32", input=(3, 32, 32), labels=("cat", "dog", "owl"),
)  # fmt: skip
MODELS = (ENTRY, replace(ENTRY, name="second"))
LABELS = ENTRY.labels


class Study:
    """What stands in for a study: rows and maps, two parts of each."""

    def __init__(self, rows, maps, models=MODELS, methods=(METHOD,), target=None):
        self.rows, self.heat, count = rows, maps, max(row["number"] for row in rows) + 1
        self.job = SimpleNamespace(
            models=models, methods=methods, pictures=range(count), root=SimpleNamespace(name="pics"), target=target
        )

    def _of(self, model, method):
        return [row for row in self.rows if (row["model"], row["method"], row["status"]) == (model, method, "ok")]

    def table(self, *, columns, where):
        assert where["status"] == "ok"
        rows = self._of(where["model"], where["method"])
        return pa.Table.from_pylist([{name: row[name] for name in columns} for row in rows])

    def maps(self, model, method):
        rows = self._of(model, method)
        for part in (rows[:2], rows[2:]):
            if part:
                values = torch.stack([self.heat[model, row["number"]] for row in part])
                yield pa.Table.from_pylist([{"number": row["number"]} for row in part]), values

    def map(self, number, model, method):
        return self.heat[model, number]

    def row(self, number, model, method):
        return next(row for row in self._of(model, method) if row["number"] == number)

    def picture(self, number):
        return read(np.full((40, 48, 3), 20 * number, np.uint8))


def row(model, number, predicted, truth=None, probability=0.9, method=METHOD, target=None, **more):
    explained = predicted if target is None else target
    return {
        "number": number, "picture": f"p{number}.png", "model": model, "method": method, "status": "ok",
        "layer": "top", "graph": None, "truth": truth and LABELS[truth - 1], "predicted": predicted,
        "predicted_label": LABELS[predicted], "predicted_probability": probability, "target": explained,
        "target_label": LABELS[explained], "probability": probability,
        "correct": None if truth is None else predicted == truth - 1, **more,
    }  # fmt: skip


def maps(numbers, channels=1, cells=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {
        (model, n): torch.randn(channels, cells, cells, generator=generator)
        for model in ("first", "second")
        for n in numbers
    }


def told(truths=(1, 2, 1, 3), first=(0, 1, 1, 2), second=(0, 2, 0, 2)):
    rows = []
    for number, (truth, one, other) in enumerate(zip(truths, first, second, strict=True)):
        rows += [row("first", number, one, truth), row("second", number, other, truth, probability=0.7)]
    return rows


def test_each_picture_is_compared_with_itself():
    heat = maps(range(4))
    report = from_study(Study(told(), heat))
    assert report.models == ("first", "second")
    for pair in report.pairs:
        a, b = heat["first", pair.number], heat["second", pair.number]
        assert pair.moved == pytest.approx(float(moved(shares(a), shares(b))))
        assert pair.rank == pytest.approx(float(rank_correlation(a, b)))
    assert [pair.same for pair in report.pairs] == [True, False, False, True]
    assert [pair.agree for pair in report.pairs] == [True, False, False, True]
    assert [pair.correct for pair in report.pairs] == [(True, True), (True, False), (False, True), (True, True)]
    assert [pair.explained for pair in report.pairs][1] == ("dog", "owl")


def test_probability_changes_only_of_one_class():
    report = from_study(Study(told(), maps(range(4))))
    assert [round(pair.change, 9) for pair in report.pairs if pair.same] == [-0.2, -0.2]
    assert all(isnan(pair.change) for pair in report.pairs if not pair.same)
    every = report.groups[0]
    assert (every.change.count, every.change.undefined) == (2, 2)


def test_pictures_are_counted_apart():
    report = from_study(Study(told(), maps(range(4))))
    found = {one.title: one.pictures for one in report.groups}
    assert found == {
        "All pictures": 4,
        "One class explained on both": 2,
        "Another class explained on each": 2,
        "Right on both": 2,
        "Right, then wrong": 1,
        "Wrong, then right": 1,
    }
    by_title = {one.title: one for one in report.groups}
    assert by_title["Right, then wrong"].moved.mean == report.pairs[1].moved
    mean = (report.pairs[0].moved + report.pairs[3].moved) / 2
    assert by_title["Right on both"].moved.mean == pytest.approx(mean)
    assert report.agreement.mean == 0.5


def test_classes_are_the_true_ones_the_farthest_first():
    heat = maps(range(4))
    # Nothing moved for the owl, all for the dog.
    heat["second", 3], heat["second", 1] = heat["first", 3], -heat["first", 1]
    report = from_study(Study(told(), heat))
    assert report.known
    assert [(one.distance.title, one.distance.pictures) for one in report.classes] == [
        ("dog", 1),
        ("cat", 2),
        ("owl", 1),
    ]
    dog, cat, owl = report.classes
    assert (dog.distance.moved.mean, owl.distance.moved.mean) == (pytest.approx(1), 0)
    assert (dog.agree, cat.agree, owl.agree) == (0, 0.5, 1)
    assert (dog.right, cat.right, owl.right) == ((1, 0), (0.5, 1), (1, 1))
    a, b = heat["first", 1], heat["second", 1]
    assert np.allclose(dog.gained, (shares(b) - shares(a))[0].numpy())
    assert np.abs(owl.gained).max() == 0


def test_without_a_truth_classes_are_those_that_the_first_model_gives():
    report = from_study(Study(told(truths=(None,) * 4), maps(range(4))))
    assert not report.known
    assert {one.distance.title: one.distance.pictures for one in report.classes} == {"cat": 1, "dog": 2, "owl": 1}
    assert all(one.right is None for one in report.classes)
    assert [one.title for one in report.groups][3:] == []


def test_the_farthest_pictures_and_those_that_changed_are_shown():
    report = from_study(Study(told(), maps(range(4))))
    shown = [[shot.pair.number for shot in shots] for shots in (report.most, report.changed)]
    assert shown == [
        sorted((0, 3), key=lambda n: -report.pairs[n].moved),
        sorted((1, 2), key=lambda n: -report.pairs[n].moved),
    ]
    assert all(shot.images and not shot.missing for shot in (*report.most, *report.changed))


def test_a_map_without_evidence_is_left_out_and_shown_last():
    heat = maps(range(4))
    heat["second", 0] = -heat["second", 0].abs()
    report = from_study(Study(told(), heat))
    assert isnan(report.pairs[0].moved)
    assert not isnan(report.pairs[0].rank)
    assert (report.groups[0].moved.count, report.groups[0].moved.undefined) == (3, 1)
    assert report.where.pictures == 3
    assert [shot.pair.number for shot in report.most] == [3, 0]


def test_channels_are_reduced_as_the_method_says():
    heat = maps(range(4), channels=3)
    rows = [{**one, "method": "gradient"} for one in told()]
    report = from_study(Study(rows, heat, methods=("gradient",)))
    a, b = (heat[model, 2].abs().amax(0)[None] for model in ("first", "second"))
    assert report.pairs[2].moved == pytest.approx(float(moved(shares(a), shares(b))))


def test_pictures_that_failed_on_one_model_are_counted_and_left_out():
    rows = told()
    rows[0]["status"] = rows[3]["status"] = rows[5]["status"] = "PictureError"
    heat = maps(range(4))
    report = from_study(Study(rows, heat))
    assert [pair.number for pair in report.pairs] == [3]
    assert report.failed == (1, 2)
    assert report.pairs[0].moved == pytest.approx(float(moved(shares(heat["first", 3]), shares(heat["second", 3]))))
    for one in rows:
        one["status"] = "PictureError"
    with pytest.raises(OptionError, match="no picture has a map of both models by grad-cam"):
        from_study(Study(rows, heat))


def test_one_of_several_methods_is_named():
    rows = told() + [{**one, "method": "rise"} for one in told()]
    study = Study(rows, maps(range(4)), methods=(METHOD, "rise"))
    with pytest.raises(OptionError, match="has grad-cam and rise: name the one"):
        from_study(study)
    assert from_study(study, "rise").method == "rise"
    with pytest.raises(OptionError, match="no maps by 'cam': it has grad-cam and rise"):
        from_study(study, "cam")


def test_maps_of_other_shapes_are_refused():
    heat = maps(range(4))
    heat["second", 2] = heat["second", 3] = torch.ones(1, 5, 4)
    with pytest.raises(OptionError, match="have 4 x 4 and 5 x 4 places"):
        from_study(Study(told(), heat))
    with pytest.raises(OptionError, match="maps without places"):
        from_study(Study(told(), maps(range(4), cells=1)))


def test_maps_of_two_layers_are_warned_of():
    assert from_study(Study(told(), maps(range(4)))).notes == []
    rows = [{**one, "layer": one["model"]} for one in told()]
    (note,) = from_study(Study(rows, maps(range(4)))).notes
    assert "two layers, first and second" in note


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        ({"input": (3, 64, 64)}, ModelError, "another size of input .*whence study cross"),
        ({"preprocessing": "crop"}, ModelError, r"another preprocessing \(resize, crop\): .*whence study cross"),
        ({"labels": ("cat", "owl", "dog")}, ModelError, "other labels"),
        ({"activation": "sigmoid"}, ModelError, "other activation"),
    ],
)
def test_models_that_are_not_checkpoints_of_one_are_refused(change, error, said):
    with pytest.raises(error, match=said):
        comparable([ENTRY, replace(ENTRY, name="other", **change)])


@pytest.mark.parametrize("count", [0, 1, 3])
def test_two_models_are_compared(count):
    with pytest.raises(OptionError, match=f"two models are compared, and {count} given"):
        comparable([ENTRY] * count)


def test_loaded_models_are_told_from_each_other_too():
    first, second = (whence.load_model(name) for name in ("creatures", "creatures-confounded"))
    comparable([first, second])
    second.labels = tuple(reversed(second.labels))
    with pytest.raises(ModelError, match="other labels"):
        comparable([first, second])


def test_maps_lie_over_the_picture_where_it_is_known_how():
    heat = maps(range(4))
    rows = [{**one, "box": [4.0, 8.0, 36.0, 40.0]} for one in told()]
    study = Study(rows, heat)
    report = from_study(study)
    assert {image.size for image in report.most[0].images} == {(40, 48)}
    assert from_study(Study(told(), heat)).most[0].images[2].size == (40, 40)
    study.picture = lambda number: read(b"no picture")
    gone = shot(study, report.pairs[0], METHOD)
    assert gone.images is None
    assert gone.missing


@pytest.fixture(scope="module")
def creatures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("comparing")
    draw(folder / "pictures", 12, 0, tags=0.3)
    return folder / "pictures"


def test_two_real_checkpoints_look_at_other_places(creatures, tmp_path, unchecked):
    study = run(creatures, ["creatures", "creatures-confounded"], tmp_path / "out")
    report = from_study(study)
    assert len(report.pairs) == report.pictures == 12
    assert report.failed == (0, 0)
    assert report.groups[0].moved.low > report.anchors[0].moved.mean
    assert report.where.net > report.where.chance
    # The confounded model looks into the corners, where tags are.
    gained = report.where.second - report.where.first
    corners = sum(
        gained[rows, columns].sum() for rows in (slice(5), slice(-5, None)) for columns in (slice(5), slice(-5, None))
    )
    assert corners > 0.3
    page = write(report, study.folder)
    assert page.name == "compare.html"
    assert json.loads((study.folder / "compare.json").read_text()) == json.loads(json.dumps(figures(report)))


def test_a_model_does_not_differ_from_itself(creatures, tmp_path, unchecked):
    report = from_study(run(creatures, ["creatures", "creatures"], tmp_path / "out", target="truth"))
    assert {pair.moved for pair in report.pairs} == {0.0}
    assert [pair.rank for pair in report.pairs] == pytest.approx([1.0] * 12)
    assert {pair.change for pair in report.pairs} == {0.0}
    assert report.agreement.mean == 1
    assert report.models == ("creatures", "creatures~2")
    assert report.changed == []
    assert all(anchor.moved.mean > 0 for anchor in report.anchors)
