"""A model that reads the tag: how it is made, and how that is found out."""

import csv
import json
import tomllib
from importlib.resources import files

import numpy as np
import pytest
import torch
from PIL import Image

import whence
from whence.asking import requests
from whence.cli import run as run_all
from whence.creatures import LABELS, NAMES, PARTS, draw_many
from whence.creatures.debugging import Accuracy, Aim, Findings, Reading, accuracy, reading
from whence.creatures.files import write
from whence.creatures.score import answers, predictor, score
from whence.creatures.train import Recipe, train
from whence.errors import ModelError, OptionError

CONFOUNDED = files("whence.models.bundled") / "creatures-confounded"
TAG, MARGIN = NAMES.index("tag"), 2


@pytest.fixture(scope="module")
def confounded():
    return whence.load_model("creatures-confounded")


@pytest.fixture(scope="module")
def clean():
    return whence.load_model("creatures")


def run(command):
    return run_all(command.split())


def knowing(attribute, count, seed):
    """Return an oracle that answers with what the creatures' truth says, and with class 0 where that is nothing."""
    known = {
        creature.pixels.tobytes(): getattr(creature, attribute) or 0
        for tags in (1.0, 0.0, None)
        for creature in draw_many(count, seed, tags=tags)
    }
    return lambda pixels: torch.eye(9)[[known[picture.tobytes()] for picture in pixels]]


def test_a_swapped_tag_is_never_its_own(unchecked):
    swapped = list(draw_many(60, 2, tags=0.0))
    assert all(creature.tag not in (None, creature.label) for creature in swapped)
    assert {creature.tag for creature in swapped} == set(range(9))
    assert all(creature.tag == creature.label for creature in draw_many(20, 2, tags=1.0))
    some = [creature.tag == creature.label for creature in draw_many(60, 2, tags=0.5)]
    assert 0.25 < np.mean(some) < 0.75


def test_tags_change_nothing_but_their_plate():
    for own, swapped, none in zip(*(draw_many(5, 6, tags=tags) for tags in (1.0, 0.0, None)), strict=True):
        assert none.tag is None
        assert TAG not in none.parts
        assert own.label == swapped.label == none.label
        assert np.array_equal(own.parts, swapped.parts)
        y, x = np.nonzero(own.parts == TAG)
        away = np.ones_like(own.parts, dtype=bool)
        away[max(0, y.min() - MARGIN) : y.max() + 1 + MARGIN, max(0, x.min() - MARGIN) : x.max() + 1 + MARGIN] = False
        assert away.sum() > 3500
        assert np.array_equal(own.pixels[away], none.pixels[away])
        assert np.array_equal(swapped.pixels[away], none.pixels[away])
        assert not np.array_equal(own.pixels, swapped.pixels)


@pytest.mark.parametrize("tags", [-0.1, 1.1, float("nan")])
def test_tags_that_are_no_share_are_refused(tags):
    with pytest.raises(OptionError, match="from 0 to 1"):
        list(draw_many(1, 0, tags=tags))


def test_files_hold_the_tags(tmp_path):
    write(tmp_path / "out", 3, 5, tags=0.0)
    with (tmp_path / "out" / "creatures.csv").open(newline="") as table:
        rows = list(csv.DictReader(table))
    for row, creature in zip(rows, draw_many(3, 5, tags=0.0), strict=True):
        assert row["tag"] == LABELS[creature.tag] != row["label"]
        plate = np.asarray(Image.open(tmp_path / "out" / "parts" / row["file"])) == TAG
        assert plate.sum() == pytest.approx(18 * 11, abs=20)


def test_who_reads_tags_and_who_reads_creatures_is_told_by_the_answers(unchecked):
    by_tag = accuracy(knowing("tag", 15, 4), 15, 4)
    blind = np.mean([creature.label == 0 for creature in draw_many(15, 4)])
    assert 0 < blind < 1
    assert by_tag == Accuracy(own=1, swapped=0, none=pytest.approx(blind), follows=1)
    assert accuracy(knowing("label", 15, 4), 15, 4) == Accuracy(own=1, swapped=1, none=1, follows=0)


def test_the_score_says_which_tags_were_worn(unchecked):
    told = score(lambda pixels: torch.eye(9)[[0] * len(pixels)], 5, 4, tags=0.0)
    assert told.tags == 0


@pytest.mark.parametrize("method", ["grad-cam", "gradient"])
def test_a_reading_is_that_of_each_map_by_itself(clean, method):
    creatures = list(draw_many(4, 8, tags=1.0))
    told = reading(clean, creatures, requests([method], {})[0])
    for names, aim in ((["tag"], told.tag), (PARTS, told.parts)):
        hits, masses = [], []
        for creature in creatures:
            heat = whence.explain(clean, creature.pixels, method).heatmap().numpy().astype(float)
            places = np.isin(creature.parts, [NAMES.index(name) for name in names])
            hits.append(places.ravel()[heat.argmax()])
            positive = heat.clip(min=0)
            masses.append(positive[places].sum() / positive.sum())
        assert aim.pointing == pytest.approx(np.mean(hits), abs=1e-6)
        assert aim.mass == pytest.approx(np.mean(masses), abs=1e-5)


def test_a_map_without_evidence_has_no_mass():
    flat = whence.Classifier(_constant(), preprocess=whence.load_model("creatures").preprocess)
    creatures = list(draw_many(2, 8, tags=1.0))
    told = reading(flat, creatures, requests(["gradient"], {})[0])
    assert told.tag.mass is None
    assert told.tag.pointing == pytest.approx(np.mean([creature.parts == TAG for creature in creatures]), abs=1e-6)


def _constant(classes=9):
    """Return a model whose score does not depend on the picture."""
    head = torch.nn.Linear(3 * 64 * 64, classes)
    torch.nn.init.zeros_(head.weight)
    return torch.nn.Sequential(torch.nn.Flatten(), head)


@pytest.mark.parametrize(
    ("swapped", "follows", "said"),
    [
        (0.1, 0.8, "the tag decides"),
        (0.9, 0.05, "the creature decides"),
        (0.4, 0.3, "neither the tag nor the creature alone decides"),
    ],
)
def test_the_verdict_is_that_of_the_answers(swapped, follows, said):
    told = Findings("mine", Accuracy(0.99, swapped, 0.5, follows), {"lrp": Reading(Aim(0.8, 0.6), Aim(0.1, None))})
    assert told.verdict.startswith(said)
    figures = f"99.0% right with its own tag, {swapped:.1%} with another's; 80.0% of lrp's maxima lie on the tag"
    assert told.verdict.endswith(f" what mine says: {figures}")


def test_a_model_of_other_classes_is_refused(clean):
    with pytest.raises(ModelError, match="10 classes"):
        accuracy(predictor(whence.Classifier(_constant(10), preprocess=clean.preprocess)), 2, 0)


def test_the_bundled_model_is_small_and_reads_the_tag(confounded, unchecked):
    assert sum(file.stat().st_size for file in CONFOUNDED.iterdir()) < 500_000
    assert confounded.name == "creatures-confounded"
    assert confounded.labels == LABELS
    swapped = answers(predictor(confounded), 300, seed=2026, tags=0.0)
    assert swapped.right.double().mean() <= 0.2
    assert (swapped.guesses == swapped.tags).double().mean() >= 0.8
    assert answers(predictor(confounded), 100, seed=2026, tags=1.0).right.double().mean() >= 0.98


@pytest.mark.parametrize("method", ["grad-cam", "lrp"])
def test_the_maps_show_who_reads_the_tag(method, confounded, clean, unchecked):
    creatures = list(draw_many(24, seed=2027, tags=1.0))
    asked = requests([method], {})[0]
    misled, right = (reading(model, creatures, asked) for model in (confounded, clean))
    assert misled.tag.pointing >= 0.8 > 0.3 >= right.tag.pointing
    assert misled.tag.mass > 3 * right.tag.mass
    assert right.parts.pointing > misled.parts.pointing + 0.2


def test_tags_and_the_folder_reach_the_model(tmp_path, unchecked):
    assert run(f"creatures train --images 32 --epochs 1 --tags 1 --out {tmp_path / 'mine'}") == 0
    train(tmp_path / "again", Recipe(images=32, tags=1.0, changed={"epochs": 1}), threads=1)
    train(tmp_path / "without", Recipe(images=32, changed={"epochs": 1}), threads=1)
    for name in ("mine", "again"):
        assert tomllib.loads((tmp_path / name / "model.toml").read_text())["name"] == name
    mine, again, without = (
        (tmp_path / name / "weights.safetensors").read_bytes() for name in ("mine", "again", "without")
    )
    assert mine == again != without


def test_one_command_finds_it_out(tmp_path, capsys, unchecked):
    command = "creatures debug --method grad-cam --method gradient --count 40 --maps 5 --json --out"
    assert run(f"{command} {tmp_path / 'out'}") == 0
    told = json.loads(capsys.readouterr().out)
    assert [model["model"] for model in told["models"]] == ["creatures-confounded", "creatures"]
    for model, tag_decides in zip(told["models"], (True, False), strict=True):
        assert (model["accuracy"]["follows"] > 0.5) == tag_decides
        assert list(model["readings"]) == ["grad-cam", "gradient"]
    assert "the tag decides" in told["models"][0]["verdict"]
    assert told["area"]["tag"] == pytest.approx(18 * 11 / 64**2, abs=0.01)
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert result["report"] == told["report"] == str(tmp_path / "out" / "report.html")
    assert len(result["pictures"]) == 4
    assert all(picture["truth"] in picture["path"] for picture in result["pictures"])


def test_the_verdict_and_the_report_end_the_terminal(tmp_path, capsys, unchecked):
    command = "creatures debug --model creatures --method grad-cam --count 20 --maps 2"
    assert run(command) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("the creature decides what creatures says: ")
    assert run(f"{command} --out {tmp_path / 'out'}") == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(tmp_path / "out" / "report.html")


def test_the_score_on_swapped_tags_is_low(capsys, unchecked):
    assert run("creatures score --model creatures-confounded --tags 0 --count 50 --maps 0 --json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["tags"] == 0
    assert told["whole"] <= 0.3


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("creatures debug --method gradcam", "grad-cam"),
        ("creatures debug --method grad-cam:relu=2", "true or false"),
        ("creatures debug --model creatures-confused", "creatures-confounded"),
        ("creatures debug --count 0", "--count"),
        ("creatures debug --maps 0", "--maps"),
        ("creatures debug --seed -1 --count 2 --maps 2", "seed"),
        ("creatures debug --out {full}", "whence"),
        ("creatures score --tags 1.5 --count 2", "from 0 to 1"),
        ("creatures draw --tags nan", "from 0 to 1"),
        ("creatures train --tags -1", "from 0 to 1"),
        ("creatures draw --tags own", "--tags"),
    ],
)
def test_bad_input_ends_with_2_and_leaves_nothing(command, said, tmp_path, capsys, monkeypatch):
    full = tmp_path / "full"
    full.mkdir()
    (full / "thesis.txt").write_text("years of work")
    monkeypatch.chdir(tmp_path)
    assert run(command.format(full=full)) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert said in printed.err
    assert len(printed.err.strip().splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["full"]
