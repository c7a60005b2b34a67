"""`whence evaluate`, as a user types it: tables that go on where they stopped, exit codes, one sentence an error."""

import csv
import json
import shutil
from dataclasses import replace
from math import nan

import pytest
from PIL import Image

from whence.cli import run
from whence.cli.evaluate import _said
from whence.creatures.files import write
from whence.errors import UnsupportedError
from whence.models import load
from whence.models.classifier import Classifier
from whence.registry import METHODS, METRICS, MethodFacts
from whence.reports.scores import Estimate
from whence.results import Passes

COLUMNS = ["picture", "method", "options", "target", "metric", "value"]
QUICK = "deletion:grid=4,steps=2"


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    folder = tmp_path_factory.mktemp("drawn") / "creatures"
    write(folder, 3, 0)
    return folder


@pytest.fixture
def pictures(drawn, tmp_path):
    """Three pictures that a test may change."""
    return [shutil.copy(path, tmp_path / path.name) for path in sorted(drawn.glob("*.png"))]


@pytest.fixture
def measured(monkeypatch):
    """The pictures that deletion is asked about, in order; a test may have it stop at one."""
    facts = METRICS.facts("deletion")
    calls = []

    def spy(claim, **options):
        if len(calls) == spy.stop:
            raise spy.error
        calls.append(claim.names[0])
        return facts.function(claim, **options)

    spy.stop, spy.error = -1, KeyboardInterrupt()
    spied = replace(facts, function=spy)
    vars(spied)["options"] = facts.options
    monkeypatch.setitem(METRICS._entries, "deletion", spied)
    calls_of = {"calls": calls, "spy": spy}
    return calls_of


def whence(*arguments):
    return run([str(a) for a in arguments])


def evaluated(pictures, *more, methods=("gradient",), metrics=(QUICK,)):
    asked = [part for name in methods for part in ("--method", name)]
    asked += [part for name in metrics for part in ("--metric", name)]
    return whence("evaluate", *pictures, "--model", "creatures", *asked, *more)


def lines(path):
    with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        return list(csv.DictReader(file))


def test_the_table_has_the_columns_of_the_contract(pictures, tmp_path, capsys):
    out = tmp_path / "scores.csv"
    assert evaluated(pictures, "--out", out, methods=["gradient", "grad-cam:relu=true"]) == 0
    found = lines(out)
    assert list(found[0]) == COLUMNS
    assert [(line["picture"], line["method"], line["options"], line["metric"]) for line in found] == [
        (str(p), m, o, QUICK) for p in pictures for m, o in (("gradient", ""), ("grad-cam", "relu=true"))
    ]
    assert all(0 <= float(line["value"]) <= 1 for line in found)
    told = capsys.readouterr()
    assert told.out.splitlines()[0].split() == ["method", QUICK, "pictures"]
    assert told.out.splitlines()[-1] == str(out)
    assert told.out.count("*") == 2
    assert told.err == ""


def test_json_is_all_there_is_on_stdout(pictures, tmp_path, capsys):
    assert evaluated(pictures, "--json", "--out", tmp_path / "s.csv", methods=["gradient", "attention-rollout"]) == 3
    told = capsys.readouterr()
    found = json.loads(told.out)
    assert [list(line) for line in found["rows"]] == [COLUMNS] * 3
    assert found["table"][0]["metrics"][QUICK]["count"] == 3
    assert {one["method"] for one in found["skipped"]} == {"attention-rollout"}
    assert told.err.count("left out: attention-rollout: ") == 1


def test_a_second_run_measures_only_what_is_new(pictures, measured, tmp_path):
    out = tmp_path / "scores.csv"
    assert evaluated(pictures[:2], "--out", out) == 0
    before = lines(out)
    assert evaluated(pictures, "--out", out) == 0
    assert measured["calls"] == [str(p) for p in pictures]
    assert lines(out)[:2] == before
    assert evaluated(pictures, "--out", out, methods=["grad-cam"]) == 0
    assert len(measured["calls"]) == 6
    assert [line["method"] for line in lines(out)] == ["grad-cam"] * 3 + ["gradient"] * 3
    assert evaluated(pictures, "--out", out, methods=["gradient", "grad-cam"]) == 0
    assert len(measured["calls"]) == 6
    assert evaluated(pictures, "--out", out, metrics=[QUICK, "deletion:grid=4,steps=3"]) == 0
    assert len(measured["calls"]) == 9


def test_the_numbers_of_the_file_are_those_that_stay(pictures, tmp_path, capsys):
    out = tmp_path / "scores.csv"
    evaluated(pictures, "--out", out)
    first = lines(out)[0]["value"]
    out.write_text(out.read_text().replace(first, "0.125"))
    capsys.readouterr()
    assert evaluated(pictures, "--out", out, "--json") == 0
    assert json.loads(capsys.readouterr().out)["rows"][0]["value"] == 0.125
    assert lines(out)[0]["value"] == "0.125"


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("a fault")])
def test_what_was_measured_before_an_interruption_is_kept(pictures, measured, tmp_path, error):
    out, whole = tmp_path / "scores.csv", tmp_path / "whole.csv"
    evaluated(pictures, "--out", whole)
    measured["calls"].clear()
    measured["spy"].stop, measured["spy"].error = 2, error
    assert evaluated(pictures, "--out", out, "--out", tmp_path / "page.html") == 1
    assert [line["picture"] for line in lines(out)] == [str(p) for p in pictures[:2]]
    assert not (tmp_path / "page.html").exists()
    measured["spy"].stop = -1
    assert evaluated(pictures, "--out", out, "--out", tmp_path / "page.html") == 0
    assert measured["calls"] == [str(p) for p in pictures]
    assert [line["picture"] for line in lines(out)] == [line["picture"] for line in lines(whole)]
    both = zip(lines(out), lines(whole), strict=True)
    assert all(float(a["value"]) == pytest.approx(float(b["value"]), rel=1e-4) for a, b in both)
    assert (tmp_path / "page.html").exists()


@pytest.mark.parametrize("name", ["scores.csv", "scores.jsonl"])
def test_half_a_line_is_measured_again(pictures, measured, tmp_path, name):
    out = tmp_path / "scores.csv"
    evaluated(pictures, "--out", out)
    whole = lines(out)
    path = tmp_path / name
    path.write_bytes(path.read_bytes()[:-9])
    assert evaluated(pictures, "--out", out) == 0
    assert measured["calls"] == [str(p) for p in [*pictures, pictures[2]]]
    assert [line["picture"] for line in lines(out)] == [line["picture"] for line in whole]
    assert float(lines(out)[2]["value"]) == pytest.approx(float(whole[2]["value"]), rel=1e-4)


def test_a_picture_that_has_changed_is_measured_again(pictures, measured, tmp_path):
    out = tmp_path / "scores.csv"
    evaluated(pictures, "--out", out)
    shutil.copy(pictures[0], pictures[1])
    assert evaluated(pictures, "--out", out) == 0
    assert measured["calls"] == [str(p) for p in [*pictures, pictures[1]]]
    first, second, third = (float(line["value"]) for line in lines(out))
    assert second == pytest.approx(first, rel=1e-4)
    assert third != pytest.approx(first, rel=1e-4)


@pytest.mark.parametrize(
    ("more", "said"),
    [(["--seed", "1"], "seed 0, and 1"), (["--target", "second"], "the top class, and second is")],
)
def test_other_settings_need_another_file(pictures, tmp_path, capsys, more, said):
    out = tmp_path / "scores.csv"
    evaluated(pictures, "--out", out)
    before = out.read_bytes()
    capsys.readouterr()
    assert evaluated(pictures, "--out", out, *more) == 2
    assert said in capsys.readouterr().err
    assert out.read_bytes() == before


CHANGED = {
    "preprocessing": lambda model: setattr(model, "preprocess", replace(model.preprocess, antialias=False)),
    "activation": lambda model: setattr(model, "scale", replace(model.scale, activation="sigmoid")),
    "precision": lambda model: setattr(model, "precision", "bfloat16"),
}


@pytest.mark.parametrize("what", CHANGED)
def test_another_way_to_run_the_model_needs_another_file(pictures, tmp_path, capsys, monkeypatch, what):
    out = tmp_path / "scores.csv"
    evaluated(pictures[:1], "--out", out)
    real = load.load_model

    def changed(*arguments, **options):
        model = real(*arguments, **options)
        CHANGED[what](model)
        return model

    monkeypatch.setattr(load, "load_model", changed)
    assert evaluated(pictures[:1], "--out", out) == 2
    assert f"was made with {what} " in capsys.readouterr().err


def test_a_foreign_preprocessing_is_told_without_addresses():
    def prepare(picture):
        return picture

    said = Classifier(lambda x: x, prepare).preprocessing
    assert "prepare" in said
    assert "0x" not in said


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (Estimate(3.5e-6, 2e-6, -5e-6, 3, 0), "3.5e-06 [2e-06 to -5e-06] *"),
        (Estimate(0.25, nan, nan, 1, 2), "0.250 of 1 *"),
        (None, "-"),
    ],
)
def test_a_small_number_is_told_with_its_digits(found, said):
    assert _said(found, best=True, pictures=3) == said


def test_another_model_needs_another_file(pictures, tmp_path, capsys):
    out = tmp_path / "scores.csv"
    evaluated(pictures, "--out", out)
    assert evaluated(pictures, "--out", out, "--weights", "random") == 2
    assert "was made with model" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["scores.csv", "scores.jsonl", "scores.html"])
def test_a_file_of_the_users_own_is_never_written_over(pictures, tmp_path, capsys, name):
    (tmp_path / name).write_text("mine\n")
    assert evaluated(pictures, "--out", tmp_path / "scores.html") == 2
    assert name in capsys.readouterr().err
    assert (tmp_path / name).read_text() == "mine\n"
    assert sorted(path.name for path in tmp_path.iterdir() if path.suffix != ".png") == [name]


def test_a_page_alone_has_its_numbers_beside_it(pictures, measured, tmp_path):
    page = tmp_path / "page.html"
    assert evaluated(pictures, "--out", page) == 0
    assert len(lines(tmp_path / "page.csv")) == 3
    before = page.read_text()
    assert evaluated(pictures, "--out", page) == 0
    assert page.read_text() == before
    assert len(measured["calls"]) == 3


def test_one_bad_picture_among_good_ones(pictures, tmp_path, capsys):
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no picture")
    assert evaluated([bad, *pictures], "--out", tmp_path / "scores.csv") == 3
    assert "not measured: " in capsys.readouterr().err
    assert len(lines(tmp_path / "scores.csv")) == 3
    assert evaluated([bad], "--out", tmp_path / "none.csv") == 2
    assert not (tmp_path / "none.csv").exists()


BAD_INPUT = {
    "no such picture": (["evaluate", "nowhere.png", "--method", "gradient"], "no file nowhere.png"),
    "no method": (["evaluate", "{good}"], "no method is asked for"),
    "unknown method": (["evaluate", "{good}", "--method", "gradcam"], "'grad-cam'"),
    "unknown metric": (["evaluate", "{good}", "--method", "gradient", "--metric", "deltion"], "'deletion'"),
    "unknown option": (["evaluate", "{good}", "--method", "gradient", "--metric", "deletion:gird=2"], "'grid'"),
    "a value that is none": (["evaluate", "{good}", "--method", "gradient", "--metric", "deletion:steps=x"], "steps"),
    "a grid too fine": (["evaluate", "{good}", "--method", "gradient", "--metric", "deletion:grid=65"], "grid=65"),
    "a square too large": (
        ["evaluate", "{good}", "{other}", "--method", "gradient", "--metric", "infidelity:size=65"],
        "size=65",
    ),
    "unknown suffix": (["evaluate", "{good}", "--method", "gradient", "--out", "{tmp}/scores.xlsx"], ".parquet"),
    "a folder as file": (["evaluate", "{good}", "--method", "gradient", "--out", "{tmp}/full.csv"], "full.csv"),
    "unknown label": (["evaluate", "{good}", "--method", "gradient", "--target", "lion"], "9 labels"),
    "no region": (["evaluate", "{good}", "--method", "gradient", "--metric", "pointing"], "region"),
    "no such region": (["evaluate", "{good}", "--method", "gradient", "--region", "nowhere"], "nowhere"),
    "no mask of that name": (["evaluate", "{good}", "--method", "gradient", "--region", "{tmp}/full.csv"], "mask"),
    "one mask for two": (["evaluate", "{good}", "{other}", "--method", "gradient", "--region", "{good}"], "a folder"),
    "a mask of another size": (
        ["evaluate", "{good}", "--method", "gradient", "--metric", "pointing", "--region", "{small}"],
        "3 x 3",
    ),
}


@pytest.mark.parametrize("case", BAD_INPUT)
def test_bad_input_is_one_sentence_and_nothing_written(case, pictures, tmp_path, capsys):
    (tmp_path / "full.csv").mkdir()
    Image.new("L", (3, 3), 255).save(tmp_path / "small.png")
    places = {"good": pictures[0], "other": pictures[1], "tmp": tmp_path, "small": tmp_path / "small.png"}
    arguments, said = BAD_INPUT[case]
    before = sorted(tmp_path.rglob("*"))
    assert whence(*(a.format(**places) for a in arguments), "--out", tmp_path / "fresh.csv") == 2
    told = capsys.readouterr()
    assert told.out == ""
    errors = [line for line in told.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert said in errors[0]
    assert sorted(tmp_path.rglob("*")) == before


def test_regions_are_found_by_the_pictures_names(drawn, pictures, tmp_path):
    out = tmp_path / "scores.csv"
    assert evaluated(pictures, "--region", drawn / "parts", "--out", out, metrics=["pointing"]) == 0
    assert {float(line["value"]) for line in lines(out)} <= {0.0, 1.0}
    masks = tmp_path / "masks"
    masks.mkdir()
    shutil.copy(drawn / "parts" / "00000.png", masks)
    more = ["--region", masks, "--out", tmp_path / "fewer.csv"]
    assert evaluated(pictures, *more, metrics=["pointing", QUICK]) == 3
    assert [line["metric"] for line in lines(tmp_path / "fewer.csv")] == ["pointing", QUICK, QUICK, QUICK]


def test_another_mask_is_another_question(drawn, pictures, measured, tmp_path):
    out, masks = tmp_path / "scores.csv", tmp_path / "masks"
    shutil.copytree(drawn / "parts", masks)
    more = ["--region", masks, "--out", out]
    evaluated(pictures, *more, metrics=["pointing", QUICK])
    Image.new("L", (64, 64), 0).save(masks / "00001.png")
    assert evaluated(pictures, *more, metrics=["pointing", QUICK]) == 0
    assert [line["value"] for line in lines(out) if line["metric"] == "pointing"][1] == "nan"
    assert len(measured["calls"]) == 3


def test_all_is_every_method_that_can(pictures, capsys, monkeypatch):
    monkeypatch.setattr(METHODS, "names", lambda: ("grad-cam", "gradient", "impossible"))

    def impossible(model, x, target):
        raise UnsupportedError("not this model")

    facts = MethodFacts(
        "impossible", impossible, "Impossible", "activation", "-", "attention", "sum", "positive",
        lambda options, model: Passes(),
    )  # fmt: skip
    monkeypatch.setitem(METHODS._entries, "impossible", facts)
    assert evaluated(pictures[:1], methods=["all"]) == 3
    told = capsys.readouterr()
    assert [line.split()[0] for line in told.out.splitlines()[2:4]] in (["grad-cam", "gradient"],
                                                                       ["gradient", "grad-cam"])  # fmt: skip
    assert "left out: impossible: not this model" in told.err


def test_maps_of_unlike_cells_are_not_compared_silently(pictures, capsys):
    assert evaluated(pictures[:1], methods=["gradient", "grad-cam"], metrics=["deletion:steps=2"]) == 0
    assert "--metric deletion:grid=28" in capsys.readouterr().err
    assert evaluated(pictures[:1], metrics=["deletion:steps=2"]) == 0
    assert capsys.readouterr().err == ""
