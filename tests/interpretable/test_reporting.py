"""What the page about filters is told: nets as they lie in folders, their filters, pictures and parts; bad input."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from small_nets import drawn
from whence.cli import run
from whence.errors import ModelError, OptionError, OutputError, PictureError
from whence.interpretable import interpretable
from whence.interpretable.labelled import Labelled, split
from whence.interpretable.measures import Parts, ReceptiveFields, maps_of
from whence.interpretable.reporting.active import active
from whence.interpretable.reporting.collect import Asked, collect
from whence.interpretable.reporting.folders import known, of_folder, on_input, part_maps
from whence.interpretable.reporting.looked import Subject
from whence.interpretable.reporting.nets import Nets, Training, load, read
from whence.interpretable.reporting.walks import walk
from whence.models.classifier import Classifier
from whence.models.load import load_model
from whence.models.writing import Origin, write
from whence.pictures.preprocess import Geometry, Preprocess
from whence.reports.filters import figures
from whence.reports.filters_page import html

K, C, N, SIDE = 6, 3, 12, 12
PREPROCESS = Preprocess(resize=(SIDE, SIDE), channels=1)


class Noise(Labelled):
    """Pictures of seeded noise in float64, of three classes."""

    def __init__(self, classes=("ape", "bee", "cat")):
        self.x = torch.rand(N, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        self.labels, self.classes = torch.arange(N) % len(classes), classes

    def __getitem__(self, index):
        return self.x[index], int(self.labels[index])


def net(seed, classes=C):
    layers = [nn.Conv2d(1, K, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
    made = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(K, classes))
    drawn(made, seed, (1, SIDE, SIDE))
    # So that no filter is dead.
    nn.init.ones_(layers[0].bias)
    return made


def nets(*, categories=True, ordinary=True, labels=("ape", "bee", "cat"), training=None):
    x = Noise().x
    single = len(labels) == 1
    model = net(0, len(labels))
    made = interpretable(model, x[:2], "2", classes=C if categories and not single else None)
    if made.interpretable.categories is not None:
        made.train(True)
        with made.recording() as raw, torch.no_grad():
            made(x)
        made.interpretable.categories.update(raw[0], Noise().labels)
        made.train(False)
    activation = "sigmoid" if single else "softmax"
    plain = Classifier(net(1, len(labels)), PREPROCESS, labels, "plain", activation) if ordinary else None
    return Nets(Classifier(made, PREPROCESS, labels, "net", activation), made, plain, None, training)


def parts():
    places = torch.zeros(N, 2, SIDE, SIDE, dtype=torch.bool)
    places[:, 0, :6], places[:, 1, 6:] = True, True
    landmarks = torch.full((N, 2, 2), 5.5, dtype=torch.float64)
    return Parts(("top", "bottom"), places, ("first", "second"), landmarks)


def subject(data=None, **changes):
    return replace(Subject("noise", data or Noise(), [f"picture {i}" for i in range(N)], parts()), **changes)


FIELDS = ReceptiveFields(torch.tensor([0.5, 4.5, 8.5]).double(), torch.tensor([1.0, 7.0]).double(), (3, 3))


def test_a_map_is_stretched_between_the_middles_of_its_cells():
    maps = torch.rand(2, 3, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    threshold = torch.tensor([0.4, 0.6]).double()
    rows, columns = FIELDS.rows.numpy(), FIELDS.columns.numpy()
    found = active(maps, threshold, FIELDS, (10, 9))
    for n in range(2):
        for y in range(10):
            line = [np.interp(y, rows, maps[n, :, j].numpy()) for j in range(2)]
            for x in range(9):
                assert bool(found[n, y, x]) == bool(np.interp(x, columns, line) > threshold[n])


def test_a_map_of_one_cell_is_the_same_everywhere():
    one = ReceptiveFields(torch.tensor([3.0]).double(), torch.tensor([3.0]).double(), None)
    assert active(torch.ones(1, 1, 1).double(), torch.tensor([0.5]).double(), one, (6, 6)).all()
    assert not active(torch.ones(1, 1, 1).double(), torch.tensor([1.0]).double(), one, (6, 6)).any()


def test_contributions_add_up_to_the_score_behind_a_global_mean():
    found, x = nets(), Noise().x
    made = walk(
        found, x[3], ReceptiveFields(*(torch.arange(6).double() * 2,) * 2, (4, 4)), torch.zeros(K).double(),
        [("ape", None)] * K, name="it", label=None, count=K,
    )  # fmt: skip
    logits = found.masked(x[3:4])[0].detach()
    index = int(logits.argmax())
    assert made.said == ("ape", "bee", "cat")[index]
    assert made.probability == pytest.approx(float(logits.softmax(0)[index]))
    bias = float(found.masked.model[5].bias.detach()[index])
    assert sum(step.contribution for step in made.steps) == pytest.approx(float(logits[index]) - bias, rel=1e-9)
    contributions = [step.contribution for step in made.steps]
    assert contributions == sorted(contributions, reverse=True)
    for step in made.steps:
        assert np.allclose(step.masked, step.raw * np.maximum(step.template, 0))
        assert step.raw[step.at] == step.raw.max()
        assert step.template[step.at] == 1
        assert step.template.min() == -1


def test_filters_have_their_largest_peaks_and_the_best_come_first():
    found = nets()
    report = collect(found, subject(), filters=4)
    peaks = maps_of(found.interpretable, [Noise().x]).amax((2, 3))
    plain = maps_of(found.plain, [Noise().x], "2").amax((2, 3))
    for pair in report.pairs:
        for filter_, of in ((pair.interpretable, peaks), (pair.ordinary, plain)):
            top = of[:, pair.number].sort(descending=True)
            assert [shot.peak for shot in filter_.shots] == top.values[:6].tolist()
            assert [shot.name for shot in filter_.shots] == [f"picture {i}" for i in top.indices[:6].tolist()]
    assert report.left_out == 2
    every = {p.number: p.interpretable.values["part-interpretability"] for p in collect(found, subject()).pairs}
    assert len(every) == K
    left = set(every) - {pair.number for pair in report.pairs}
    assert max(every[k] for k in left) <= min(every[p.number] for p in report.pairs)
    categories = [pair.interpretable.category for pair in report.pairs]
    assert categories == sorted(categories)
    assigned = found.masked.interpretable.categories.assigned()
    assert categories == [Noise().classes[assigned[pair.number]] for pair in report.pairs]


def test_all_nets_stand_in_the_table_and_the_mask_alone_leaves_the_peaks_where_they_are():
    report = collect(nets(), subject())
    assert [net.key for net in report.nets] == ["plain", "masked", "interpretable"]
    values = {net.key: net.values for net in report.nets}
    for name in ("location-instability", "peak-purity", "dead"):
        assert values["plain"][name] == pytest.approx(values["masked"][name])
    assert [measure.key for measure in report.measures] == [
        *("location-instability", "part-interpretability", "part-interpretability-active"),
        *("peak-purity", "category-entropy", "dead"),
    ]
    assert report.ordinary == "Ordinary net"
    both = collect(replace(nets(), control=nets().plain), subject())
    assert both.ordinary == "Control"
    assert [net.key for net in both.nets] == ["plain", "masked", "control", "interpretable"]
    assert html(both).count("<article") == K + C


def test_without_parts_categories_and_an_ordinary_net_the_rest_is_shown():
    report = collect(nets(categories=False, ordinary=False), subject(parts=None))
    assert [measure.key for measure in report.measures] == ["category-entropy", "dead"]
    assert report.ordinary is None
    assert all(pair.ordinary is None and pair.interpretable.part is None for pair in report.pairs)
    assert any("no categories" in note for note in report.notes)
    assert any("Nothing is known of parts" in note for note in report.notes)
    peaks = maps_of(nets(categories=False).interpretable, [Noise().x]).amax((2, 3))
    means = torch.stack([peaks[Noise().labels == c].mean(0) for c in range(C)])
    for pair in report.pairs:
        assert pair.interpretable.category == Noise().classes[means[:, pair.number].argmax()]
    assert json.dumps(figures(report), allow_nan=False)
    assert report.course == ()


def test_a_single_category_is_that_of_all_filters():
    report = collect(nets(labels=("bee",)), subject(known(Noise(), ("bee",))))
    assert {pair.interpretable.category for pair in report.pairs} == {"bee"}
    assert any("pictures of bee alone" in note for note in report.notes)
    assert [walk.label for walk in report.walks] == ["others", "bee"]


def test_a_dead_filter_has_no_pictures_and_no_category():
    found = nets()
    with torch.no_grad():
        found.masked.model[0].weight[2] = 0
        found.masked.model[0].bias[2] = -1
    report = collect(found, subject())
    dead = report.pairs[-1]
    assert dead.number == 2
    assert dead.interpretable.category is None
    assert dead.interpretable.shots == ()
    assert "It is active on no picture." in html(report)


def test_pictures_of_other_classes_are_refused():
    with pytest.raises(OptionError, match="stand for 3 classes and noise has 2"):
        collect(nets(), subject(Noise(("ape", "bee"))))


def test_pictures_asked_for_take_the_place_of_the_first_of_each_class():
    assert [w.name for w in collect(nets(), subject()).walks] == ["picture 0", "picture 1", "picture 2"]
    asked = [Asked("mine.png", None, Noise().x[7])]
    assert [(w.name, w.label) for w in collect(nets(), subject(), asked).walks] == [("mine.png", None)]
    with pytest.raises(OptionError, match=r"mine.png makes an input of \[1, 8, 8\]"):
        collect(nets(), subject(), [Asked("mine.png", None, torch.zeros(1, 8, 8).double())])


def test_the_model_s_classes_are_found_by_their_names():
    data = Noise(("cat", "ape"))
    made = known(data, ("ape", "bee", "cat"))
    assert made.labels.tolist() == [2, 0] * (N // 2)
    assert made.classes == ("ape", "bee", "cat")
    assert known(data, None) is known(data, ("cat", "ape")) is data
    with pytest.raises(OptionError, match="knows no class 'cat'"):
        known(data, ("ape", "bee"))


COURSE = {"phase": "plain", "epoch": 1, "accuracy": 0.5, "task": 1.0}
TOLD = {
    "schema": 1,
    "recipe": {
        "loss": "all-positive",
        "plan.rate": 0.001,
        "layer": None,
        "options": {"gain": 8},
        "plain.epochs": 0,
        "plan.frozen": [],
    },
    "data": {"name": "noise", "pictures": 9, "held_out": 3, "classes": ["a"]},
    "course": [COURSE, {**COURSE, "phase": "interpretable", "spatial": 0.25, "changed": 4, "categories": [0]}],
    "accuracy": {"plain": 0.5, "control": None},
}


def test_the_file_about_a_training_is_read(tmp_path):
    (tmp_path / "training.json").write_text(json.dumps(TOLD))
    found = read(tmp_path / "training.json")
    assert isinstance(found, Training)
    assert found.recipe == {"loss": "all-positive", "plan.rate": "0.001", "options": "gain 8"}
    assert found.accuracy == {"plain": 0.5}
    assert found.data == {"name": "noise", "pictures": "9", "held_out": "3"}
    assert [(e.phase, e.spatial, e.changed) for e in found.course] == [
        ("plain", None, None),
        ("interpretable", 0.25, 4),
    ]
    assert read(tmp_path / "other.json") is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("nothing", "cannot be read"),
        ("[]", "schema None"),
        (json.dumps({**TOLD, "schema": 2}), "schema 2"),
        (json.dumps({"schema": 1}), "damaged"),
        (json.dumps({**TOLD, "course": [{**COURSE, "phase": "other"}]}), "no phase 'other'"),
        (json.dumps({**TOLD, "course": [{**COURSE, "task": None}]}), "damaged"),
        (json.dumps({**TOLD, "course": [{**COURSE, "task": "much"}]}), "damaged"),
        (json.dumps({**TOLD, "accuracy": [1]}), "damaged"),
    ],
)
def test_a_damaged_file_about_a_training_is_refused(tmp_path, text, said):
    (tmp_path / "training.json").write_text(text)
    with pytest.raises(OutputError, match=said):
        read(tmp_path / "training.json")


@pytest.fixture
def folder(tmp_path):
    """Pictures of two classes of 9 x 6 pixels, with parts: the left third and the rest of the upper half."""
    for label in ("ape", "bee"):
        for number in range(5):
            (tmp_path / "data" / label).mkdir(parents=True, exist_ok=True)
            (tmp_path / "parts" / label).mkdir(parents=True, exist_ok=True)
            Image.new("L", (9, 6), 10 * number).save(tmp_path / "data" / label / f"{number}.png")
            index = np.zeros((6, 9), np.uint8)
            index[:3, :3], index[:3, 3:] = 1, 2
            Image.fromarray(index).save(tmp_path / "parts" / label / f"{number}.png")
    (tmp_path / "parts" / "parts.txt").write_text("head\ntail\n")
    return tmp_path


def test_the_pictures_that_the_training_held_out_are_found_again(folder):
    found = nets(labels=("ape", "bee"), categories=False)
    made = of_folder(folder / "data", found, held_out=0.4, seed=3, parts=folder / "parts")
    whole = of_folder(folder / "data", found, held_out=1.0)
    held = split(whole.data, 0.4, 3)[1]
    assert made.names == [whole.names[row] for row in held.rows.tolist()]
    assert torch.equal(torch.stack([x for x, _ in made.data]), torch.stack([x for x, _ in held]))
    assert made.parts.names == ("head", "tail")
    assert len(whole.data) == 10
    assert len(of_folder(folder / "data", found, held_out=1.0, count=4).data.labels.unique()) == 2
    told = Training({}, {"name": "x", "pictures": "8", "held_out": "2"}, (), {})
    with pytest.raises(OptionError, match="held out 2 of 10 pictures, and here it would be 4"):
        of_folder(folder / "data", replace(found, training=told), held_out=0.4)
    assert len(of_folder(folder / "data", replace(found, training=told), held_out=1.0).data) == 10


def test_parts_lie_on_the_model_s_input(folder):
    made = part_maps(folder / "parts", folder / "data", ["ape/0.png"], PREPROCESS)
    head, tail = made.places[0]
    assert head[:6, :4].all()
    assert int(head.sum()) == 24
    assert tail[:6, 4:].all()
    assert int(tail.sum()) == 48
    assert made.landmarks[0].tolist() == [[2.5, 1.5], [2.5, 7.5]]


def test_a_crop_cuts_parts_and_padding_shows_none():
    index = torch.arange(24, dtype=torch.uint8).reshape(4, 6)
    inner = on_input(index, Geometry((4, 6), (2, 2), (1.0, 2.0, 3.0, 4.0)))
    assert torch.equal(inner, index[1:3, 2:4])
    wide = on_input(index, Geometry((4, 6), (6, 8), (-1.0, -1.0, 5.0, 7.0)))
    assert torch.equal(wide[1:5, 1:7], index)
    assert int(wide.long().sum()) == int(index.long().sum())
    flipped = on_input(index, Geometry((4, 6), (4, 6), (0.0, 6.0, 4.0, 0.0)))
    assert torch.equal(flipped, index.flip(1))


@pytest.mark.parametrize(
    ("spoil", "error", "said"),
    [
        (lambda parts: (parts / "parts.txt").unlink(), OptionError, "cannot be read"),
        (lambda parts: (parts / "parts.txt").write_text("head\n\ntail"), OptionError, "empty line"),
        (lambda parts: (parts / "parts.txt").write_text("head"), PictureError, "holds the number 2"),
        (lambda parts: (parts / "ape" / "0.png").unlink(), PictureError, "there is no file"),
        (lambda parts: Image.new("L", (9, 7)).save(parts / "ape" / "0.png"), PictureError, "9 x 6 pixels"),
        (lambda parts: Image.new("RGB", (9, 6)).save(parts / "ape" / "0.png"), PictureError, "no map of parts"),
    ],
)
def test_bad_maps_of_parts_are_refused(folder, spoil, error, said):
    spoil(folder / "parts")
    with pytest.raises(error, match=said):
        part_maps(folder / "parts", folder / "data", ["ape/0.png"], PREPROCESS)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder as a training writes it, of the creatures' net with a mask that nothing was trained with."""
    out = tmp_path_factory.mktemp("trained")
    creatures = load_model("creatures")
    origin, told = Origin("whence:creature_net"), {"labels": creatures.labels, "preprocess": creatures.preprocess}
    write(out, interpretable(creatures.module, torch.zeros(1, 3, 64, 64)), origin, name="masked", **told)
    (out / "plain").mkdir()
    write(out / "plain", creatures.module, origin, name="plain", **told)
    (out / "training.json").write_text(json.dumps(TOLD))
    return out


def whence(*arguments):
    return run(["interpretable", "report", *map(str, arguments)])


def test_the_command_writes_the_page_and_its_figures(trained, tmp_path, capsys):
    out = tmp_path / "page"
    assert whence(trained, "--out", out, "-n", 18, "--filters", 3, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["report"] == str(out / "filters.html")
    assert {key: value for key, value in told.items() if key != "report"} == json.loads(
        (out / "filters.json").read_text()
    )
    assert [len(told["filters"]), told["left_out"], len(told["course"])] == [3, 61, 2]
    assert list(told["measures"][0]["values"]) == ["plain", "masked", "interpretable"]
    assert load(trained).plain is not None
    assert load(trained).control is None


def test_an_ordinary_model_is_refused():
    with pytest.raises(ModelError, match=r"'creatures' is an ordinary model.*whence interpretable train"):
        load("creatures")


def test_bad_input_is_one_sentence_and_leaves_nothing(trained, tmp_path, capsys):
    full = tmp_path / "full"
    full.mkdir()
    (full / "mine.txt").write_text("mine")
    out = tmp_path / "out"
    for arguments, said in [
        (("creatures", "--out", out), "ordinary model"),
        ((tmp_path / "nowhere", "--out", out), "nowhere"),
        ((trained, "--out", full), "not empty"),
        ((trained, "--out", out, "--data", tmp_path / "nowhere"), "there is no folder"),
        ((trained, "--out", out, "--data", tmp_path, "--held-out", 0), "share of 0.0 cannot be held out"),
        ((trained, "--out", out, "--picture", tmp_path / "no.png"), "there is no file"),
        ((trained, "--out", out, "--parts", tmp_path), "--parts is for folders"),
        ((trained, "--out", out, "--filters", 0), "filters"),
    ]:
        assert whence(*arguments) == 2, arguments
        shown = capsys.readouterr()
        assert said in shown.err, (arguments, shown.err)
        assert shown.err.count("\n") == 1
        assert shown.out == ""
    assert [path.name for path in tmp_path.iterdir()] == ["full"]
    assert [path.name for path in full.iterdir()] == ["mine.txt"]
