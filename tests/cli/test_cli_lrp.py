"""Relevance on the command line: the balance, the layers asked for, and one sentence for what does not exist."""

import json

import numpy as np
import pytest

from whence.cli import run
from whence.creatures.files import write

LAYERS = 45


@pytest.fixture(scope="module")
def creature(tmp_path_factory):
    folder = tmp_path_factory.mktemp("drawn") / "creatures"
    write(folder, 1, 0)
    return str(folder / "00000.png")


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


def explained(creature, out, *arguments):
    """Explain a creature; return the explanations and the maps."""
    assert run(["explain", creature, "--model", "creatures", *arguments, "--out", str(out)]) == 0
    (picture,) = json.loads((out / "result.json").read_text())["pictures"]
    with np.load(out / "maps.npz") as stored:
        return picture["explanations"], {name: stored[name] for name in stored.files}


def test_the_balance_is_printed_and_kept(creature, out, capsys):
    jsonschema = pytest.importorskip("jsonschema")
    from whence.reports.contents import schema

    (lrp, gradient), maps = explained(creature, out, "--method", "lrp", "--method", "gradient")
    printed = capsys.readouterr().out
    jsonschema.validate(json.loads((out / "result.json").read_text()), schema())
    assert gradient["balance"] is None
    got = lrp["balance"]
    assert got["input"] == pytest.approx(float(maps["0/lrp"].sum()), rel=1e-4)
    assert got["start"] == pytest.approx(got["input"] + got["bias"] + got["stabiliser"], rel=1e-5)
    (line,) = [line for line in printed.splitlines() if "of " in line and "biases" in line and "%," in line]
    assert line.split()[1] == "lrp"
    assert f"of {got['start']:.3g}: input {100 * got['input'] / got['start']:.1f} %, biases" in line
    assert printed.isascii()
    page = (out / "report.html").read_text("utf-8")
    assert page.count("<strong>Balance</strong>") == 1
    assert run(["report", str(out)]) == 0
    assert (out / "report.html").read_text("utf-8") == page


def test_without_relevance_nothing_is_said_of_a_balance(creature, out, capsys):
    explained(creature, out, "--method", "gradient")
    assert "balance" not in capsys.readouterr().out


@pytest.mark.parametrize("asked", [["--method", "lrp:layer=top"], ["--method", "lrp", "--layer", "top"]])
def test_one_layer_takes_the_place_of_the_picture(creature, out, capsys, asked):
    (row,), maps = explained(creature, out, *asked)
    assert (row["layer"], row["shape"], row["layers"]) == ("top", [64, 16, 16], [])
    assert set(maps) == {"0/lrp"}
    assert row["balance"]["layers"] == {"top": pytest.approx(float(maps["0/lrp"].sum()), rel=1e-4)}
    told = capsys.readouterr()
    assert "lrp at top" in told.out
    assert "% at top; in the end input" in told.out
    assert told.err == ""


@pytest.mark.parametrize("asked", [["--method", "lrp:layer=stem+head"], ["--method", "lrp", "--layer", "stem+head"]])
def test_several_layers_stand_beside_the_picture(creature, out, asked):
    (row,), maps = explained(creature, out, *asked)
    assert (row["layer"], row["shape"]) == (None, [3, 64, 64])
    assert row["layers"] == [{"name": "stem", "shape": [16, 32, 32]}, {"name": "head", "shape": [9]}]
    assert maps["0/lrp.layer-0"].shape == (16, 32, 32)
    assert maps["0/lrp.layer-1"].shape == (9,)
    for number, name in enumerate(("stem", "head")):
        assert row["balance"]["layers"][name] == pytest.approx(float(maps[f"0/lrp.layer-{number}"].sum()), rel=1e-4)


@pytest.mark.parametrize("asked", [["--method", "lrp:layer=all"], ["--method", "lrp", "--layer", "all"]])
def test_all_layers_are_kept_and_a_few_are_drawn(creature, out, asked):
    (row,), maps = explained(creature, out, *asked)
    names = [layer["name"] for layer in row["layers"]]
    assert (names[0], names[-1], len(names)) == ("stem.0", "head", LAYERS)
    assert set(row["balance"]["layers"]) == set(names)
    assert len(maps) == LAYERS + 1
    page = (out / "report.html").read_text("utf-8")
    assert f"Drawn are 9 of {LAYERS} layers" in page
    assert page.count('alt="Map at the layer') == 9
    assert run(["report", str(out)]) == 0
    assert (out / "report.html").read_text("utf-8") == page


def test_a_layer_without_places_is_explained(creature, out, capsys):
    (row,), maps = explained(creature, out, "--method", "lrp:layer=head")
    assert row["shape"] == [9]
    assert maps["0/lrp"].shape == (9,)
    assert "no places" in capsys.readouterr().out


def test_a_layer_given_to_all_is_said_to_reach_lrp_too(creature, out, capsys):
    both = ["--method", "grad-cam", "--method", "lrp", "--layer", "top"]
    rows, _ = explained(creature, out, *both)
    assert [row["layer"] for row in rows] == ["top", "top"]
    warned = capsys.readouterr().err
    assert "--layer reaches lrp too" in warned
    assert "lrp:layer=none" in warned
    rows, _ = explained(creature, out, *["lrp:layer=none" if word == "lrp" else word for word in both])
    assert [row["layer"] for row in rows] == ["top", None]
    assert capsys.readouterr().err == ""


def test_each_layer_given_is_an_explanation(creature, out):
    rows, maps = explained(creature, out, "--method", "lrp", "--layer", "top", "--layer", "stem")
    assert [(row["layer"], row["shape"]) for row in rows] == [("top", [64, 16, 16]), ("stem", [16, 32, 32])]
    assert set(maps) == {"0/lrp", "0/lrp~2"}


def test_channels_to_keep_are_read_from_text(creature, out):
    (row,), _ = explained(creature, out, "--method", "lrp:keep=top:3+7")
    assert row["options"]["keep"] == "top:3+7"
    assert row["balance"]["other"]["not kept"] != 0
    assert row["residual"] < 1e-5


@pytest.mark.parametrize("name", ["lrp-0", "epsilon-gamma-box", "epsilon-plus-flat", "preset-b-flat-until-3"])
def test_composites_go_by_name(creature, out, name):
    (row,), _ = explained(creature, out, "--method", f"lrp:composite={name}")
    assert row["options"]["composite"] == name
    assert not [note for note in row["notes"] if "auto" in note]


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("composite=epsilon-gama-box", "epsilon-gamma-box"),
        ("composite=nonsense", "no composite 'nonsense'"),
        ("start=softmax", "sglrp-two-pass"),
        ("bias=drop", "absorb or ignore or distribute"),
        ("layer=stemm", "no layer 'stemm'"),
        ("layer=stem+stemm", "no layer 'stemm'"),
        ("keep=top", "layer4:3+17"),
        ("keep=top:64", "64 channels, 0 to 63"),
        ("keep=stemm:1", "no layer 'stemm'"),
        ("epsilon=1", "no option 'epsilon'"),
    ],
)
def test_what_does_not_exist_is_one_sentence(creature, out, capsys, asked, said):
    asked = ["--method", f"lrp:{asked}", "--method", "gradient"]
    assert run(["explain", creature, "--model", "creatures", *asked, "--out", str(out)]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert len(told.err.splitlines()) == 1
    assert told.err.startswith("error: ")
    assert said in told.err
    assert not out.exists()


def test_a_start_at_a_class_refuses_another_target(creature, out, capsys):
    asked = ["--method", "lrp:start=clrp1", "--target", "0 - 1"]
    assert run(["explain", creature, "--model", "creatures", *asked, "--out", str(out)]) == 2
    assert "give a class as the target" in capsys.readouterr().err


def test_it_is_listed(capsys):
    assert run(["methods"]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("lrp ")]
    assert "composite=auto" in line
    assert "Layer-wise relevance propagation." in line
