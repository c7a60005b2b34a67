"""`whence study cross`, as a user types it."""

import json

import pytest

from whence import studies
from whence.cli import run
from whence.creatures.files import write

# The shapes of all this are checked elsewhere.
pytestmark = pytest.mark.usefixtures("unchecked")
BOTH = ("-m", "creatures", "-m", "creatures-confounded")


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cross") / "creatures"
    write(folder, 4, 0)
    return folder


def whence(*arguments):
    return run(["study", "cross", *map(str, arguments)])


def test_models_are_tested_against_each_other_and_told(drawn, tmp_path, capsys):
    out = tmp_path / "out"
    assert whence(drawn, *BOTH, "--out", out, "--grid", "4") == 0
    told = capsys.readouterr()
    assert told.out.splitlines()[-1] == str(out / "cross.html")
    assert "maps of" in told.out
    assert "on creatures" in told.out
    assert told.err == ""
    assert {path.name for path in out.iterdir()} >= {"job.json", "parts", "cross.html", "cross.json"}
    job = studies.open(out).job
    assert job.judges
    assert job.metrics == ("insertion:grid=4", "deletion:grid=4")
    assert whence(drawn, *BOTH, "--out", out, "--grid", "4", "--json") == 0
    told = capsys.readouterr()
    assert json.loads(told.out)["report"] == str(out / "cross.html")
    assert told.err == ""


def test_one_model_has_nobody_to_be_tested_against(drawn, tmp_path, capsys):
    for models in ((), ("-m", "creatures")):
        assert whence(drawn, *models, "--out", tmp_path / "out") == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line == "error: models are tested against each other: give --model twice or more"
    assert not (tmp_path / "out").exists()


def test_a_dry_run_crosses_nothing(drawn, tmp_path, capsys):
    out = tmp_path / "out"
    assert whence(drawn, *BOTH, "--out", out, "--grid", "4", "--shard", "2", "--dry-run", "--json") == 0
    assert json.loads(capsys.readouterr().out)["rows"] == 8
    assert not out.exists()


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (("--grid", "1"), "grid"),
        (("--method", "grad-cm"), "grad-cam"),
        (("--target", "zebra"), "zebra"),
    ],
)
def test_what_is_wrong_is_one_sentence(drawn, tmp_path, capsys, asked, said):
    assert whence(drawn, *BOTH, "--out", tmp_path / "out", *asked) == 2
    told = capsys.readouterr()
    assert told.out == ""
    (line,) = told.err.splitlines()
    assert said in line
    assert not (tmp_path / "out").exists()


def test_a_study_without_judges_is_another_study(drawn, tmp_path, capsys):
    out = tmp_path / "out"
    metrics = ("--metric", "insertion:grid=4", "--metric", "deletion:grid=4")
    assert run(["study", "run", str(drawn), *BOTH, "--out", str(out), *metrics]) == 0
    capsys.readouterr()
    assert whence(drawn, *BOTH, "--out", out, "--grid", "4") == 2
    assert "judges False, and True is asked" in capsys.readouterr().err
