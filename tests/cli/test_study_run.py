"""`whence study run`, as a user types it: what it prints and writes, exit codes, one sentence an error."""

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from whence import cli, studies
from whence.cli import run
from whence.creatures.files import write
from whence.studies.tables import METHOD_OK

# The shapes of all this are checked elsewhere.
pytestmark = pytest.mark.usefixtures("unchecked")
QUICK = ("--method", "gradient", "--batch", "4", "--shard", "4")


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study") / "creatures"
    write(folder, 6, 0)
    return folder


@pytest.fixture
def folder(drawn, tmp_path):
    """Six pictures that a test may change."""
    return shutil.copytree(drawn, tmp_path / "p")


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


def whence(*arguments):
    return run(["study", "run", *map(str, arguments)])


def everything(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}


def test_a_study_is_run_and_told(drawn, out, capsys):
    asked = (drawn, "--out", out, *QUICK, "--method", "grad-cam", "--metric", "deletion:grid=4,steps=2")
    assert whence(*asked) == 0
    told = capsys.readouterr()
    assert told.out.splitlines()[0].startswith("6 pictures, 12 rows, 0 of them failed; ")
    assert told.out.splitlines()[-1] == str(out / "report.html")
    assert told.err == ""
    study = studies.open(out)
    assert study.complete
    assert study.job.methods == ("gradient", "grad-cam")
    assert set(study.table()["status"].to_pylist()) == {METHOD_OK}
    assert [entry.name for entry in study.job.pictures] == [f"{i:05d}.png" for i in range(6)]
    assert all(entry.truth for entry in study.job.pictures)
    assert {path.name for path in out.iterdir()} >= {"job.json", "parts", "report.html"}


def test_run_again_it_does_what_is_left(drawn, out):
    assert whence(drawn, "--out", out, *QUICK) == 0
    digest = studies.open(out).digest()
    (out / "parts" / "000001.parquet").unlink()
    kept = (out / "parts" / "000000.parquet").stat().st_mtime_ns
    assert whence(drawn, "--out", out, *QUICK) == 0
    assert studies.open(out).digest() == digest
    assert (out / "parts" / "000000.parquet").stat().st_mtime_ns == kept


def test_json_is_all_there_is_on_stdout(drawn, out, capsys):
    assert whence(drawn, "--out", out, *QUICK, "--json") == 0
    told = capsys.readouterr()
    found = json.loads(told.out)
    assert (found["pictures"], found["rows"], found["failed"], found["missing"]) == (6, 6, 0, 0)
    assert found["report"] == str(out / "report.html")
    assert found["fingerprint"] == studies.open(out).job.fingerprint
    assert told.err == ""


def test_pictures_that_fail_are_named_and_the_exit_code_says_so(folder, out, capsys):
    (folder / "00001.png").write_bytes(b"")
    (folder / "00004.png").write_bytes(b"")
    assert whence(folder, "--out", out, *QUICK, "--json") == 3
    told = capsys.readouterr()
    assert json.loads(told.out)["failed"] == 2
    (line,) = told.err.splitlines()
    assert line.startswith("failed: 00001.png, 00004.png: the picture")
    assert whence(folder, "--out", out, *QUICK) == 3
    assert capsys.readouterr().out.startswith("6 pictures, 6 rows, 2 of them failed")


def test_a_dry_run_writes_nothing(drawn, out, tmp_path, capsys):
    before = everything(tmp_path)
    assert whence(drawn, "--out", out, *QUICK, "--dry-run", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["pictures"], found["rows"], found["shards"], found["measured"]) == (6, 6, 2, 4)
    assert (found["forward"], found["backward"], found["partial"], found["failed"]) == (6, 6, 0, 0)
    assert whence(drawn, "--out", out, *QUICK, "--dry-run") == 0
    told = capsys.readouterr()
    assert "reckoned from 4 pictures that were explained just now; nothing was written" in told.out
    assert "6 in 2 shards" in told.out
    assert told.err == ""
    assert not out.exists()
    assert everything(tmp_path) == before


def test_a_dry_run_leaves_the_folder_of_a_study_alone(drawn, out):
    assert whence(drawn, "--out", out, *QUICK) == 0
    before = everything(out)
    assert whence(drawn, "--out", out, *QUICK, "--seed", "3", "--dry-run") == 0
    assert everything(out) == before


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (("--model", "no-such-model"), "names no model"),
        (("--method", "grad-cm"), "grad-cam"),
        (("--method", "grad-cam:lair=x"), "layer"),
        (("--method", "grad-cam:layer=nowhere"), "nowhere"),
        (("--method", "attention-rollout"), "attention"),
        (("--metric", "deletoin"), "deletion"),
        (("--metric", "deletion:grid=999"), "grid"),
        (("--metric", "pointing"), "whence evaluate"),
        (("--target", "zebra"), "zebra"),
        (("--target", "99"), "99"),
        (("--truth", "missing.csv"), "missing.csv"),
        (("--bits", "40"), "bits"),
        (("--device", "steam"), "steam"),
        (("--engine", "steam"), "Invalid value for '--engine': 'steam' is not one of 'local', 'processes', 'ray'"),
        (("--batch", "0"), "batch"),
        (("--maps", "int8"), "maps"),
        (("--nonsense",), "nonsense"),
    ],
)
def test_what_is_wrong_is_one_sentence_and_leaves_nothing(drawn, out, tmp_path, capsys, asked, said):
    before = everything(tmp_path)
    method = () if "--method" in asked else ("--method", "gradient")
    assert whence(drawn, "--out", out, "--batch", "4", "--shard", "4", *method, *asked) == 2
    told = capsys.readouterr()
    assert told.out == ""
    (line,) = told.err.splitlines()
    assert line.startswith("error: ")
    assert said in line
    assert not out.exists()
    assert everything(tmp_path) == before


@pytest.mark.parametrize("kind", ["missing", "empty", "other", "file"])
def test_a_folder_without_pictures_is_one_sentence(tmp_path, out, capsys, kind):
    folder = tmp_path / "p"
    if kind == "file":
        folder.write_text("no folder")
    elif kind != "missing":
        folder.mkdir()
    if kind == "other":
        (folder / "notes.txt").write_text("no picture")
    assert whence(folder, "--out", out) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert not out.exists()


def test_a_folder_of_something_else_is_refused_and_left_alone(drawn, out, capsys):
    out.mkdir()
    (out / "thesis.txt").write_text("mine")
    assert whence(drawn, "--out", out, *QUICK) == 2
    assert "no study" in capsys.readouterr().err
    assert everything(out) == {"thesis.txt": b"mine"}
    assert whence(drawn, "--out", out / "thesis.txt", *QUICK) == 2
    assert everything(out) == {"thesis.txt": b"mine"}


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (("--seed", "3"), "seed 0, and 3 is asked"),
        (("--method", "grad-cam"), "gradient, and gradient and grad-cam:layer=top is asked"),
        (("--target", "0"), "target None, and 0 is asked"),
        (("--maps", "none"), "maps float32, and none is asked"),
        (("--precision", "bfloat16"), "with other precision"),
    ],
)
def test_the_folder_of_another_study_is_refused(drawn, out, capsys, asked, said):
    assert whence(drawn, "--out", out, *QUICK) == 0
    before = everything(out)
    assert whence(drawn, "--out", out, *QUICK, *asked) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line
    assert everything(out) == before


def test_pictures_that_came_are_another_study(folder, out, capsys):
    assert whence(folder, "--out", out, *QUICK) == 0
    shutil.copy(folder / "00000.png", folder / "99999.png")
    assert whence(folder, "--out", out, *QUICK) == 2
    assert "6 pictures, not all of which are the 7 asked for" in capsys.readouterr().err


def test_a_folder_that_was_moved_is_the_same_study(folder, out, monkeypatch):
    assert whence(folder, "--out", out, *QUICK) == 0
    moved = folder.rename(folder.parent / "q")
    monkeypatch.chdir(moved.parent)
    assert whence("q", "--out", "out", *QUICK) == 0
    assert studies.open(out).job.root == moved
    monkeypatch.chdir("/")
    assert studies.open(out).picture(0).sha256 == studies.open(out).job.pictures[0].sha256


@pytest.mark.parametrize(
    ("interrupted", "said", "code"),
    [
        (
            "running.carry_out",
            "stopped at once: the shards that are done are kept. Go on with:\n  whence study run",
            3,
        ),
        ("planning.planned", "stopped by Ctrl-C\n", 1),
    ],
)
def test_a_study_that_is_stopped_at_once_says_so(drawn, out, capsys, monkeypatch, interrupted, said, code):
    def stop(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(f"whence.studies.{interrupted}", stop)
    monkeypatch.setattr("sys.argv", ["whence", "study", "run", str(drawn)])
    assert whence(drawn, "--out", out, *QUICK) == code
    assert capsys.readouterr().err.startswith(said)


def test_a_model_twice_is_two_models_with_names_of_their_own(drawn, out):
    assert whence(drawn, "--out", out, *QUICK, "-m", "creatures", "-m", "creatures") == 0
    rows = studies.open(out).table(maps=True)
    assert rows["model"].to_pylist() == ["creatures", "creatures~2"] * 6
    assert rows["score"].to_pylist()[::2] == rows["score"].to_pylist()[1::2]


def test_the_true_class_may_be_explained(drawn, out):
    assert whence(drawn, "--out", out, *QUICK, "--target", "truth", "--maps", "none") == 0
    rows = studies.open(out).table(maps=True)
    assert rows["target_label"].to_pylist() == rows["truth"].to_pylist()
    assert not [name for name in rows.column_names if name.startswith("map_")]


def test_the_options_of_all_studies_are_in_the_help():
    told = CliRunner().invoke(cli.app, ["study", "run", "--help"], env={"COLUMNS": "200", "TERM": "dumb"}).output
    options = (
        "model method metric out truth target engine workers maps loaders ray-address batch shard threads dry-run"
    )
    for option in [f"--{name}" for name in f"{options} json trust gallery".split()]:
        assert option in told
