"""A part is whole or not done, and a folder is of one job and one run."""

import errno
import json
import os
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine_samples import bare, leftovers, rows
from whence.errors import ModelError, OutputError
from whence.studies import parts
from whence.studies.folder import held
from whence.studies.tables import table

HOLD = """
import fcntl, sys
with open(sys.argv[1], "a+") as file:
    fcntl.lockf(file, fcntl.LOCK_EX)
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def study(tmp_path):
    """A folder with three parts, and their job."""
    job = bare()
    (tmp_path / "parts").mkdir()
    for shard in job.shards:
        parts.write(tmp_path, job, shard, rows(job, shard))
    return tmp_path, job


def test_what_was_written_is_done_and_told(study):
    folder, job = study
    told = []
    assert parts.done(folder, job, lambda *said: told.append(said)) == {0: 0, 1: 0, 2: 0}
    assert told == [("checking", 1, 3), ("checking", 2, 3), ("checking", 3, 3)]
    assert sorted(path.name for path in (folder / "parts").iterdir()) == [f"{i:06d}.parquet" for i in range(3)]


def test_failed_rows_are_counted(study):
    folder, job = study
    parts.write(folder, job, 1, rows(job, 1, lambda number: "ok" if number == 4 else "PictureError"))
    assert parts.done(folder, job) == {0: 0, 1: 3, 2: 0}


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_a_torn_file_is_not_done(data, tmp_path_factory):
    folder, job = tmp_path_factory.mktemp("torn"), bare(4)
    (folder / "parts").mkdir()
    parts.write(folder, job, 0, rows(job, 0))
    file = parts.path(folder, 0)
    whole = file.read_bytes()
    if data.draw(st.booleans()):
        torn = whole[: data.draw(st.integers(0, len(whole) - 1))]
    else:
        # A hole that begins among the rows, as a copy leaves that was broken off.
        footer = parts.pq.read_metadata(file).serialized_size + 8
        start = data.draw(st.integers(0, len(whole) - footer - 1))
        end = data.draw(st.integers(start + 1, len(whole)))
        torn = whole[:start] + bytes(end - start) + whole[end:]
    if torn == whole:
        return
    file.write_bytes(torn)
    assert parts.done(folder, job) == {}
    file.write_bytes(whole)
    assert parts.done(folder, job) == {0: 0}


def test_of_another_job_or_with_too_few_rows_or_no_file_is_not_done(study):
    folder, job = study
    assert parts.done(folder, bare(9)) == {}
    other = rows(job, 1).slice(1)
    parts.write(folder, job, 1, other)
    parts.path(folder, 0).unlink()
    parts.path(folder, 0).mkdir()
    assert parts.done(folder, job) == {2: 0}


def test_rows_without_maps_are_rows_too(tmp_path):
    job = bare(1)
    (tmp_path / "parts").mkdir()
    parts.write(tmp_path, job, 0, table(job, [{"number": 0, "status": "PictureError"}]))
    assert parts.done(tmp_path, job) == {0: 1}


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.ENOSPC, "the disk of .* is full: make room and run the same command again; 3 of 3 shards are done"),
        (errno.EDQUOT, "is full"),
        (errno.EROFS, "cannot write into .*Read-only.*run the same command again"),
    ],
)
@pytest.mark.parametrize("place", ["write", "fsync", "replace"])
def test_a_disk_that_takes_no_more_is_one_sentence_and_leaves_nothing(study, monkeypatch, number, said, place):
    folder, job = study
    before = parts.path(folder, 1).read_bytes()

    def fail(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(*((parts._Summed, "write") if place == "write" else (parts.os, place)), fail)
    with pytest.raises(OutputError, match=said):
        parts.write(folder, job, 1, rows(job, 1))
    monkeypatch.undo()
    assert not leftovers(folder)
    assert parts.path(folder, 1).read_bytes() == before


def test_an_error_of_any_kind_leaves_no_draft(study, monkeypatch):
    folder, job = study

    def fail(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(parts.os, "fsync", fail)
    with pytest.raises(KeyboardInterrupt):
        parts.write(folder, job, 1, rows(job, 1))
    assert not leftovers(folder)


def test_a_new_folder_is_made_with_its_job(tmp_path):
    job, out = bare(), tmp_path / "a" / "b"
    with held(out, job) as place:
        assert place.died_in is None
        assert json.loads((out / "job.json").read_text())["fingerprint"] == job.fingerprint
    with held(out, job):
        pass
    assert {path.name for path in out.iterdir()} == {"job.json", "parts"}


@pytest.mark.parametrize("there", [False, True])
def test_where_nothing_could_be_done_a_folder_is_as_it_was(tmp_path, there):
    out = tmp_path / "out"
    if there:
        out.mkdir()
    with pytest.raises(ModelError), held(out, bare()):
        raise ModelError("no such model")
    assert out.exists() == there
    assert not there or not list(out.iterdir())


def test_what_was_done_stays_when_an_error_comes(tmp_path):
    job = bare()

    def half():
        with held(tmp_path, job) as place:
            parts.write(place.folder, job, 0, rows(job, 0))
            raise OutputError("full")

    with pytest.raises(OutputError):
        half()
    with held(tmp_path, job):
        assert parts.done(tmp_path, job) == {0: 0}
    with pytest.raises(ModelError), held(tmp_path, job):
        raise ModelError("later")
    assert (tmp_path / "job.json").exists()


def test_another_job_is_named_and_refused(study):
    folder, job = study
    with held(folder / "out", job):
        pass
    with (
        pytest.raises(OutputError, match=r"another job .*9 asked for.*or a new folder"),
        held(folder / "out", bare(9)),
    ):
        pass
    with pytest.raises(OutputError, match="holds other files and no study"), held(folder / "out" / "parts", job):
        pass
    with pytest.raises(OutputError, match="is a file"), held(folder / "out" / "job.json", job):
        pass
    assert not list((folder / "out" / "parts").glob("*.parquet"))


def test_what_dead_processes_began_is_removed(study):
    folder, job = study
    out = folder / "out"
    with held(out, job):
        pass
    (out / "parts" / ".000001.parquet.123.tmp").write_bytes(b"half")
    (out / ".job.json.123.tmp").write_bytes(b"half")
    with held(out, job):
        assert not leftovers(out)


def test_only_a_draft_of_the_job_counts_as_an_empty_folder(tmp_path):
    (tmp_path / ".job.json.123.tmp").write_bytes(b"half")
    with held(tmp_path, bare()):
        assert not leftovers(tmp_path)


def test_the_shard_in_which_a_run_died_is_known(tmp_path):
    job = bare()
    with held(tmp_path, job) as place:
        place.mark(2)
    with held(tmp_path, job) as place:
        assert place.died_in == 2
    with held(tmp_path, job) as place:
        assert place.died_in == 2
        place.mark(None)
    (tmp_path / "parts" / ".running").write_text('{"sha')
    with held(tmp_path, job) as place:
        assert place.died_in is None


def test_two_runs_at_once_are_refused(tmp_path):
    job = bare()
    with held(tmp_path, job):
        pass
    other = subprocess.Popen(
        [sys.executable, "-c", HOLD, tmp_path / "parts" / ".running"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert other.stdout.readline() == b"held\n"
    with (
        pytest.raises(OutputError, match=rf"another run is at work in .*process {os.getpid()} on .*wait"),
        held(tmp_path, job),
    ):
        pass
    other.communicate()
    with held(tmp_path, job):
        pass


def test_pictures_that_were_moved_are_found_by_the_next_reader(tmp_path):
    from dataclasses import replace

    from whence.studies.job import Job

    with held(tmp_path, bare()):
        pass
    moved = replace(bare(), root=tmp_path / "elsewhere")
    with held(tmp_path, moved):
        pass
    assert Job.load(tmp_path).root == tmp_path / "elsewhere"
