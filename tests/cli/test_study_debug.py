"""`whence study debug`, from pictures with tags to a model that no longer reads them."""

import json

import pytest

import whence
from whence.cli import run
from whence.creatures.files import write as draw

# The shapes of all this are checked elsewhere.
pytestmark = pytest.mark.usefixtures("unchecked")


@pytest.fixture(scope="module")
def worn(tmp_path_factory):
    folder = tmp_path_factory.mktemp("debug") / "worn"
    draw(folder, 48, 1, tags=1.0)
    return folder


def command(folder, out, *more, model="creatures-confounded"):
    return run(["study", "debug", str(folder), "--model", model, "--out", str(out), *more])


def test_tags_are_found_and_unlearnt(worn, tmp_path, capsys):
    out, repaired, swapped = tmp_path / "out", tmp_path / "repaired", tmp_path / "swapped"
    draw(swapped, 32, 7, tags=0.0)
    asked = ("--repaired", str(repaired), "--test", f"swapped={swapped}", "--epochs", "1")
    assert command(worn, out, *asked) == 0
    said = capsys.readouterr().out
    told = json.loads((out / "debug.json").read_text())
    suspicious = [cluster for cluster in told["clusters"] if cluster["suspicious"]]
    assert len(suspicious) > len(told["clusters"]) / 2
    assert f"{len(suspicious)} of {len(told['clusters'])} clusters are suspicious" in said
    first = next(line for line in said.splitlines() if line.startswith("1 ")).split()
    check = told["clusters"][0]["check"]
    shown = [f"{check[name]:.1%}" for name in ("lost", "elsewhere", "alike")]
    assert first[4:7] == shown
    assert said.splitlines()[-1] == str(out / "debug.html")
    before, after = told["repair"]["trials"][0]["before"], told["repair"]["trials"][0]["after"]
    assert before < 0.1
    assert f"{before:.1%}" in said
    assert f"{after:.1%}" in said
    assert whence.load_model(repaired).labels == whence.load_model("creatures").labels


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (("--test", "own=worn"), "--test compares the model with the repaired one: give --repaired FOLDER too"),
        (("--repaired", "{full}"), "is there already and no empty folder"),
        (("--repaired", "{new}", "--test", "worn"), "--test 'worn': write NAME=FOLDER"),
        (("--repaired", "{new}", "--test", "own={none}"), "there is no folder"),
        (("--model", "creatures"), "one model is searched at a time: give --model once"),
        (("--method", "grad-cma"), "did you mean 'grad-cam'"),
    ],
)
def test_what_is_wrong_is_told_before_anything_is_explained(worn, tmp_path, capsys, asked, said):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    given = [text.format(**{name: tmp_path / name for name in ("full", "new", "none")}) for text in asked]
    assert command(worn, tmp_path / "out", *given) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["full"]
