"""A method that cannot explain a model is left out and listed, and the others' answers are kept."""

import json

import pytest

from whence.cli import run
from whence.creatures.files import write
from whence.errors import UnsupportedError
from whence.registry import METHODS, MethodFacts
from whence.results import Passes

REASON = "needs attention, and the model has <none>: take grad-cam"


def impossible(model, x, target):
    """Never works."""
    raise UnsupportedError(REASON)


@pytest.fixture(autouse=True)
def _registered(monkeypatch):
    METHODS.names()
    facts = MethodFacts(
        "impossible", impossible, "Impossible", "activation", "-", "attention", "sum", "positive",
        lambda options, model: Passes(),
    )  # fmt: skip
    monkeypatch.setitem(METHODS._entries, "impossible", facts)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("drawn") / "creatures"
    write(folder, 2, 0)
    return sorted(str(path) for path in folder.glob("*.png"))


def explained(pictures, out, *methods):
    asked = [part for method in methods for part in ("--method", method)]
    return run(["explain", *pictures, *asked, "--out", str(out)])


def test_the_others_are_explained_and_it_is_listed(pictures, tmp_path, capsys):
    assert explained(pictures, tmp_path / "out", "impossible", "gradient") == 3
    told = capsys.readouterr().err
    assert told.count("left out: impossible") == 1
    assert REASON in told
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    for picture in result["pictures"]:
        assert picture["status"] == "ok"
        assert picture["left_out"] == [{"method": "impossible", "reason": REASON}]
        assert [row["method"] for row in picture["explanations"]] == ["gradient"]
    page = (tmp_path / "out" / "report.html").read_text("utf-8")
    assert page.count("Left out") == len(pictures)
    assert "has &lt;none&gt;: take grad-cam" in page


def test_it_fits_the_published_schema_and_is_drawn_again(pictures, tmp_path):
    jsonschema = pytest.importorskip("jsonschema")
    from whence.reports.contents import schema

    explained(pictures[:1], tmp_path / "out", "impossible", "gradient")
    before = (tmp_path / "out" / "report.html").read_text("utf-8")
    assert run(["report", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out" / "report.html").read_text("utf-8") == before
    jsonschema.validate(json.loads((tmp_path / "out" / "result.json").read_text()), schema())


@pytest.mark.parametrize("methods", [["impossible"], ["impossible", "impossible"]])
def test_where_no_method_can_nothing_is_written(pictures, tmp_path, capsys, methods):
    assert explained(pictures, tmp_path / "out", *methods) == 2
    assert REASON in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_demo_leaves_it_out_and_is_done(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(METHODS, "names", lambda: ("gradient", "impossible"))
    assert run(["demo", "--out", str(tmp_path / "out")]) == 0
    told = capsys.readouterr()
    assert "left out: impossible" in told.err
    assert "no --model given" not in told.err


def test_a_model_that_nobody_chose_is_said(pictures, tmp_path, capsys):
    assert explained(pictures, tmp_path / "out", "gradient") == 0
    assert "no --model given" in capsys.readouterr().err
    assert run(["explain", *pictures, "--model", "creatures", "--out", str(tmp_path / "out")]) == 0
    assert "no --model given" not in capsys.readouterr().err
