"""`whence creatures score`: what a model knows, and a leaderboard of methods."""

import csv
import json

import pytest

from whence.cli import run as run_all
from whence.errors import NotFiniteError
from whence.registry import METHODS, MethodFacts
from whence.results import Passes

TWO = "creatures score --count 5 --maps 2 --method grad-cam --method eigen-cam"

TEN = """
from torch import nn

def made():
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 64 * 64, 10))
"""


pytestmark = pytest.mark.usefixtures("unchecked")


def run(command):
    return run_all(command.split())


@pytest.fixture
def broken(monkeypatch):
    def function(model, x, target):
        """Never works."""
        raise NotFiniteError("NaN in the map")

    METHODS.names()
    facts = MethodFacts(
        "broken", function, "Broken", "activation", "-", "scores", "sum", "positive", lambda options, model: Passes(),
    )  # fmt: skip
    monkeypatch.setitem(METHODS._entries, "broken", facts)


def test_the_leaderboard_stands_below_the_accuracies(capsys):
    assert run(TWO) == 0
    told = capsys.readouterr()
    first, truth, board, notes = told.out.split("\n\n")
    assert first.startswith("creatures ")
    assert [line.split()[0] for line in truth.splitlines()[2:6]] == ["beak", "crest", "tail", "feet"]
    assert " of 6 pairs" in truth.splitlines()[-1]
    lines = board.splitlines()
    assert lines[2].startswith("the truth itself     1.00 [1.00, 1.00]   100% [100, 100]")
    assert {"grad-cam", "eigen-cam", "without"} <= {line.split()[0] for line in lines}
    assert "eigen-cam *" in board
    assert "* the same map for every class" in notes
    assert told.err == ""


def test_json_holds_the_fields_of_old_and_the_leaderboard(capsys):
    assert run(f"{TWO} --tags 1 --model creatures-confounded --json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["whole"] == 1
    assert {"one_missing", "two_missing", "classes", "count", "seed", "tags"} <= told.keys()
    board = told["leaderboard"]
    assert (board["count"], board["tags"], board["model"]) == (2, 1, "creatures-confounded")
    assert {"rank", "first", "parts", "mass", "tag", "tag_mass"} == board["lines"][0]["estimates"].keys()
    assert board["players"][-1]["name"] == "tag"
    assert board["players"][-1]["first"] == 1


def test_the_file_holds_a_line_for_each_map(tmp_path, capsys):
    assert run(f"{TWO} --json --out {tmp_path / 'new' / 'maps.csv'}") == 0
    board = json.loads(capsys.readouterr().out)["leaderboard"]
    with (tmp_path / "new" / "maps.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * 5
    for line in board["lines"]:
        own = [row for row in rows if row["method"] == line["method"]]
        assert [row["creature"] for row in own] == ["0", "1"]
        mean = sum(float(row["mass"]) for row in own) / 2
        assert mean == pytest.approx(line["estimates"]["mass"]["mean"])


def test_the_default_is_every_method(capsys, monkeypatch):
    monkeypatch.setattr(METHODS, "names", lambda: ("gradient", "grad-cam", "legrad"))
    assert run("creatures score --count 5 --maps 1 --json") == 0
    board = json.loads(capsys.readouterr().out)["leaderboard"]
    assert {"gradient", "grad-cam"} < {line["method"] for line in board["lines"]}
    assert list(board["left_out"]) == ["legrad"]


def test_no_maps_leave_the_accuracies_alone(capsys):
    assert run("creatures score --count 5 --maps 0") == 0
    assert len(capsys.readouterr().out.splitlines()) == 14
    assert run("creatures score --count 5 --maps 0 --json") == 0
    assert json.loads(capsys.readouterr().out)["leaderboard"] is None


def test_a_method_that_was_named_and_does_not_fit_is_said(capsys):
    assert run("creatures score --count 5 --maps 1 --method gradient --method legrad") == 3
    assert "left out: legrad: creatures has no attention" in capsys.readouterr().out


def test_maps_that_could_not_be_made_are_said(tmp_path, capsys, broken):
    out = tmp_path / "maps.csv"
    assert run(f"creatures score --count 5 --maps 2 --method gradient --method broken --out {out}") == 3
    told = capsys.readouterr()
    assert told.err.strip() == "not scored: broken on 2 of 2 creatures: NaN in the map"
    assert "\nbroken" in told.out
    with out.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["method"] == "broken"]
    assert [row["error"] for row in rows] == ["NaN in the map"] * 2
    assert rows[0]["rank"] == ""


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("--method gradcam", "grad-cam"),
        ("--method grad-cam:relu=2", "true or false"),
        ("--method grad-cam:layer=nowhere", "nowhere"),
        ("--method legrad", "no attention"),
        ("--maps -1", "--maps"),
        ("--maps 0 --method gradient", "leave out --method"),
        ("--maps 0 --out maps.csv", "leave out --method"),
        ("--out maps.txt", ".csv"),
        ("--out full.csv", "in its place"),
        ("--out full.csv/file/maps.csv", "in its place"),
        ("--tags 2", "from 0 to 1"),
        ("--model {ten} --weights random --trust", "there are 9 species"),
    ],
)
def test_bad_input_ends_with_2_and_leaves_nothing(command, said, tmp_path, capsys, monkeypatch):
    (tmp_path / "full.csv").mkdir()
    (tmp_path / "full.csv" / "file").write_text("years of work")
    ten = tmp_path / "ten.toml"
    ten.write_text('name = "ten"\nsource = "ten.py:made"\n[preprocess]\ncrop = 64\n')
    (tmp_path / "ten.py").write_text(TEN)
    monkeypatch.chdir(tmp_path)
    given = command.format(ten=ten)
    assert run(f"creatures score --count 2 {'' if '--maps' in given else '--maps 1'} {given}") == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert said in printed.err
    assert len(printed.err.strip().splitlines()) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["full.csv", "ten.py", "ten.toml"]
