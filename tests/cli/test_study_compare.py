"""`whence study compare`, from pictures to the page."""

import json
import shutil
from pathlib import Path

import pytest

import whence
from whence.cli import run
from whence.cli.study_compare import _mean
from whence.creatures.files import write as draw
from whence.reports.scores import Estimate

# The shapes of all this are checked elsewhere.
pytestmark = pytest.mark.usefixtures("unchecked")
BUNDLED = Path(whence.__file__).parent / "models" / "bundled"


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compare") / "pictures"
    draw(folder, 4, 0, tags=0.0)
    return folder


def command(folder, out, *more, models=("creatures", "creatures-confounded")):
    named = [part for model in models for part in ("--model", str(model))]
    return run(["study", "compare", str(folder), *named, "--out", str(out), *more])


def test_two_models_are_compared_and_the_page_is_written(pictures, tmp_path, capsys):
    out = tmp_path / "out"
    assert command(pictures, out, "--target", "truth") == 0
    said = capsys.readouterr().out.splitlines()
    assert " ".join(said[0].split()) == "maps of pictures moved rank correlation change of probability"
    assert said[2].startswith("All pictures")
    assert any(line.startswith("Different pictures on creatures-confounded") for line in said)
    assert said[-1] == str(out / "compare.html")
    told = json.loads((out / "compare.json").read_text())
    assert told["models"] == ["creatures", "creatures-confounded"]
    assert told["facts"]["Explained"] == "each picture’s true class"
    assert all(row["same"] for row in told["rows"])
    before = (out / "compare.html").read_bytes(), (out / "parts" / "000000.parquet").stat().st_mtime_ns
    assert command(pictures, out, "--target", "truth", "--json") == 0
    again = capsys.readouterr().out
    assert json.loads(again) == {**told, "report": str(out / "compare.html")}
    assert ((out / "compare.html").read_bytes(), (out / "parts" / "000000.parquet").stat().st_mtime_ns) == before


def test_a_mean_of_fewer_pictures_says_of_how_many():
    of = Estimate(mean=0.5, low=0.25, high=0.75, count=28, undefined=2)
    assert _mean(of, 30) == "0.5 [0.25, 0.75], of 28"
    assert _mean(of, 28) == "0.5 [0.25, 0.75]"


@pytest.mark.parametrize(
    ("models", "more", "said"),
    [
        ((), (), "two models are compared, and 0 given: give --model twice"),
        (("creatures",), (), "two models are compared, and 1 given"),
        (("creatures",) * 3, (), "two models are compared, and 3 given"),
        (("creatures",) * 2, ("--maps", "none"), "--maps none keeps no maps that could be compared"),
        (("creatures",) * 2, ("--method", "grad-cma"), "did you mean 'grad-cam'"),
    ],
)
def test_what_cannot_be_compared_is_refused_before_anything_is_written(
    pictures, tmp_path, capsys, models, more, said
):
    out = tmp_path / "out"
    assert command(pictures, out, *more, models=models) == 2
    error = capsys.readouterr().err
    assert said in error
    assert len(error.splitlines()) == 1
    assert not out.exists()


def test_models_that_see_pictures_differently_are_refused(pictures, tmp_path, capsys):
    bundled, smaller, out = BUNDLED / "creatures", tmp_path / "smaller", tmp_path / "out"
    shutil.copytree(bundled, smaller)
    text = (bundled / "model.toml").read_text().replace("resize = [64, 64]", "resize = [32, 32]")
    (smaller / "model.toml").write_text(text.replace('"creatures"', '"smaller"'))
    assert command(pictures, out, models=("creatures", smaller)) == 2
    error = capsys.readouterr().err
    assert "creatures and smaller have another size of input (3 x 64 x 64, 3 x 32 x 32)" in error
    assert "whence study cross" in error
    assert not out.exists()


def test_pictures_that_failed_end_in_3_and_are_told(pictures, tmp_path, capsys):
    folder = tmp_path / "some"
    shutil.copytree(pictures, folder)
    (folder / "broken.png").write_bytes(b"no picture")
    assert command(folder, tmp_path / "out") == 3
    heard = capsys.readouterr()
    assert "failed: broken.png" in heard.err
    assert json.loads((tmp_path / "out" / "compare.json").read_text())["failed"] == [1, 1]
