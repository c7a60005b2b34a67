"""Structured attention graphs on the command line: the files, what is refused, and what Ctrl-C leaves."""

import json

import networkx
import pytest
from PIL import Image

from whence.cli import run
from whence.creatures.files import write
from whence.graphs import AttentionGraph, name
from whence.methods.sag.oracle import Oracle
from whence.pictures.read import read

SMALL = "sag:grid=3,budget=60"


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("drawn") / "creatures"
    write(folder, 2, 0)
    return sorted(str(path) for path in folder.glob("*.png"))


def whence(*arguments):
    return run([str(a) for a in arguments])


@pytest.fixture(scope="module")
def report(pictures, tmp_path_factory):
    out = tmp_path_factory.mktemp("sag") / "out"
    assert whence("explain", *pictures, "--method", SMALL, "--method", f"{SMALL},style=boxes", "--out", out) == 0
    return out


def rows(out):
    result = json.loads((out / "result.json").read_text())
    return [row for picture in result["pictures"] for row in picture["explanations"]]


STEMS = ("0-sag", "0-sag~2", "1-sag", "1-sag~2")


def test_all_files_of_a_graph_are_there(report):
    assert {p.name for p in (report / "graphs").iterdir()} == {
        f"{stem}.{kind}" for stem in STEMS for kind in ("svg", "png", "graphml", "dot", "json")
    }
    assert {f"{stem}-{what}.png" for stem in STEMS for what in ("seen", "base")} <= {
        p.name for p in (report / "pictures").iterdir()
    }


def test_the_result_fits_the_published_schema_and_holds_the_graphs(report):
    jsonschema = pytest.importorskip("jsonschema")
    from whence.reports.contents import schema

    jsonschema.validate(json.loads((report / "result.json").read_text()), schema())
    assert [row["style"] for row in rows(report)] == ["tents", "boxes"] * 2
    for stem, row in zip(STEMS, rows(report), strict=True):
        graph = row["graph"]
        assert graph == json.loads((report / "graphs" / f"{stem}.json").read_text())
        assert (graph["grid"], graph["size"], graph["style"]) == (3, [64, 64], row["style"])
        assert graph["evaluations"] <= 60


def test_its_files_hold_the_same_graph(report):
    for stem, row in zip(STEMS, rows(report), strict=True):
        graph = AttentionGraph.from_json(row["graph"])
        assert graph.nodes
        made = networkx.read_graphml(report / "graphs" / f"{stem}.graphml")
        assert (len(made.nodes), len(made.edges)) == (len(graph.nodes), len(graph.edges))
        assert (report / "graphs" / f"{stem}.dot").read_text() == graph.to_dot()
        assert (report / "graphs" / f"{stem}.svg").read_text().startswith("<svg")
        with Image.open(report / "graphs" / f"{stem}.png") as figure:
            figure.verify()
        for what in ("seen", "base"):
            assert read(report / "pictures" / f"{stem}-{what}.png").rgb8().shape == (64, 64, 3)


def test_the_terminal_names_the_sets_that_suffice(pictures, tmp_path, capsys):
    assert whence("explain", pictures[0], "--method", SMALL, "--out", tmp_path / "out") == 0
    said = " ".join(capsys.readouterr().out.split())
    (row,) = rows(tmp_path / "out")
    assert row["graph"]["roots"]
    assert all(name(tuple(root["patches"])) in said for root in row["graph"]["roots"])


BAD = {
    "threshold=1.5": "threshold=1.5",
    "threshold=0": "threshold=0",
    "threshold=nan": "threshold=nan",
    "grid=0": "grid=0: give at least 1",
    "grid=500": "64 patches",
    "grid=40,refine=2": "64 patches",
    "refine=0": "refine=0: give at least 1",
    "roots=0": "roots=0: give at least 1",
    "overlap=-1": "overlap=-1: give at least 0",
    "expand=-0.1": "expand=-0.1: give at least 0",
    "expand=inf": "expand=inf",
    "budget=1": "budget=1: give at least 2",
    "batch=0": "batch=0: give at least 1",
    "style=tent": "tents",
    "criterion=top": "top1",
    "certify=least": "minimum",
    "variant=published": "reference",
    "baseline=blck": "black",
    "treshold=0.8": "threshold",
    "variant=reference,refine=2": "refine=1",
    "variant=reference,expand=0.5": "expand=0.4",
    "certify=minimum,refine=2": "refine=1",
}


@pytest.mark.parametrize("options", BAD)
def test_a_bad_option_is_one_sentence_and_leaves_nothing(options, pictures, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert whence("explain", pictures[0], "--method", f"sag:{options}") == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert len(printed.err.strip().splitlines()) == 1
    assert printed.err.startswith("error: ")
    assert BAD[options] in printed.err
    assert list(tmp_path.iterdir()) == []


# Ctrl-C


@pytest.fixture
def stopped(monkeypatch):
    """Return what lets Ctrl-C be pressed in the n-th round of questions from now."""

    def after(rounds):
        original, counted = Oracle.look, [0]

        def look(self, asked):
            counted[0] += 1
            if counted[0] == rounds:
                raise KeyboardInterrupt
            return original(self, asked)

        monkeypatch.setattr(Oracle, "look", look)

    return after


@pytest.mark.parametrize("rounds", [2, 4])
def test_ctrl_c_leaves_a_report_of_what_was_found(pictures, tmp_path, capsys, stopped, rounds):
    stopped(rounds)
    out = tmp_path / "out"
    assert whence("explain", pictures[0], "--method", "sag:grid=4", "--out", out) == 3
    (row,) = rows(out)
    assert row["graph"]["state"] == "interrupted"
    assert any("the search was interrupted" in note for note in row["notes"])
    assert "interrupted" in (out / "report.html").read_text("utf-8")
    assert (out / "graphs" / "0-sag.svg").exists()
    assert "interrupted" in capsys.readouterr().out


def test_ctrl_c_before_anything_is_found_leaves_nothing(pictures, tmp_path, stopped):
    stopped(1)
    assert whence("explain", pictures[0], "--method", SMALL, "--out", tmp_path / "out") == 1
    assert list(tmp_path.iterdir()) == []


def test_pictures_whose_turn_did_not_come_are_listed(pictures, tmp_path, capsys, stopped, monkeypatch):
    """Pictures of one size are searched side by side; here each goes alone."""
    monkeypatch.setattr("whence.batches._TOGETHER", 1)
    stopped(4)
    out = tmp_path / "out"
    assert whence("explain", *pictures, "--method", "sag:grid=4", "--out", out) == 3
    result = json.loads((out / "result.json").read_text())
    assert [picture["status"] == "ok" for picture in result["pictures"]] == [True, False]
    assert [picture["path"] for picture in result["pictures"]] == pictures
    assert result["pictures"][0]["explanations"][0]["graph"]["state"] == "interrupted"
    assert "interrupted before its turn came" in result["pictures"][1]["status"]
    told = capsys.readouterr().err
    assert told.count(f"not explained: {pictures[1]}: interrupted before its turn came") == 1


def test_pictures_of_one_size_are_interrupted_together(pictures, tmp_path, stopped):
    stopped(3)
    out = tmp_path / "out"
    assert whence("explain", *pictures, "--method", "sag:grid=4", "--out", out) == 3
    assert [row["graph"]["state"] for row in rows(out)] == ["interrupted", "interrupted"]
