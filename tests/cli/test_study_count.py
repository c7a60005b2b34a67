"""`whence study count`, as a user types it."""

import json

import pytest

from whence import studies
from whence.cli import run
from whence.creatures.files import write

# The shapes of all this are checked elsewhere.
pytestmark = pytest.mark.usefixtures("unchecked")
SEARCH = "grid=4,roots=2,budget=60,expand=0"


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    folder = tmp_path_factory.mktemp("count") / "creatures"
    write(folder, 3, 0)
    return folder


def whence(*arguments):
    return run(["study", "count", *map(str, arguments)])


def test_sets_are_counted_and_told(drawn, tmp_path, capsys):
    out = tmp_path / "out"
    assert whence(drawn, "--out", out, "--search", SEARCH) == 0
    told = capsys.readouterr()
    assert told.out.splitlines()[-1] == str(out / "count.html")
    assert "creatures" in told.out
    assert told.err == ""
    assert {path.name for path in out.iterdir()} >= {"job.json", "parts", "count.html", "count.json"}
    assert studies.open(out).job.methods == (f"sag:{SEARCH}",)
    before = (out / "parts" / "000000.parquet").stat().st_mtime_ns
    assert whence(drawn, "--out", out, "--search", SEARCH, "--json") == 0
    told = capsys.readouterr()
    assert json.loads(told.out)["report"] == str(out / "count.html")
    assert told.err == ""
    assert (out / "parts" / "000000.parquet").stat().st_mtime_ns == before


def test_a_dry_run_counts_nothing(drawn, tmp_path, capsys):
    out = tmp_path / "out"
    assert whence(drawn, "--out", out, "--search", SEARCH, "--shard", "1", "--dry-run", "--json") == 0
    assert json.loads(capsys.readouterr().out)["measured"] == 1
    assert not out.exists()


@pytest.mark.parametrize("search", ["gird=4", "grid=many", "grid", "grid=4,roots=0"])
def test_a_search_that_is_none_is_one_sentence(drawn, tmp_path, capsys, search):
    assert whence(drawn, "--out", tmp_path / "out", "--search", search) == 2
    told = capsys.readouterr()
    assert told.out == ""
    (line,) = told.err.splitlines()
    assert line.startswith("error: ")
    assert not (tmp_path / "out").exists()


def test_pictures_that_fail_are_named(drawn, tmp_path, capsys):
    folder = tmp_path / "p"
    folder.mkdir()
    (folder / "0.png").write_bytes((drawn / "00000.png").read_bytes())
    (folder / "1.png").write_bytes(b"")
    assert whence(folder, "--out", tmp_path / "out", "--search", SEARCH) == 3
    told = capsys.readouterr()
    assert told.err.startswith("failed: 1.png: ")
    assert (tmp_path / "out" / "count.json").is_file()
