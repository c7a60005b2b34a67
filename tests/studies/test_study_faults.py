"""Whatever ends a run in its middle, the same command goes on, and the rows are as if nothing had happened."""

import errno
import os
import random
import shutil
import signal
import threading
import time
from dataclasses import replace

import pytest

from engine_samples import done, expected, found, leftovers, pictures, plan, program, until, workers
from whence.errors import ModelError, OutputError, UnsupportedError
from whence.models.load import load_model
from whence.studies import parts
from whence.studies.running import carry_out
from whence.studies.shard import Worker
from whence.studies.study import open as opened


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    """Four shards, each of which takes a third of a second."""
    return plan(pictures(tmp_path_factory.mktemp("faults") / "pictures", 8), "slow", batch=2, shard=2)


@pytest.fixture(scope="module")
def whole(job):
    return expected(job)


@pytest.fixture(scope="module")
def finished(job, tmp_path_factory):
    out = tmp_path_factory.mktemp("finished")
    carry_out(job, out, models=job.load_models())
    return out


def test_a_worker_that_is_killed_at_any_moment_changes_nothing(job, whole, tmp_path):
    killed = []

    def kill():
        until(lambda: workers(os.getpid()))
        time.sleep(random.uniform(0, 6))
        for process in workers(os.getpid())[:1]:
            os.kill(process, signal.SIGKILL)
            killed.append(process)

    killer = threading.Thread(target=kill)
    killer.start()
    summary = carry_out(job, tmp_path, engine="processes", workers=2)
    killer.join()
    assert summary.deaths <= len(killed)
    assert summary.failed == 0
    assert found(tmp_path) == whole


@pytest.mark.parametrize("engine", ["local", "processes"])
def test_ctrl_c_finishes_the_shard_and_the_same_goes_on(job, whole, tmp_path, engine, interruptible):
    out = tmp_path / "out"
    running = program(tmp_path, job, out, engine=engine, workers=1)
    until(lambda: done(out))
    running.send_signal(signal.SIGINT)
    said, err = running.communicate(timeout=120)
    assert running.returncode == 0, err
    assert "interrupted=True" in said
    assert err == ""
    assert 1 <= done(out) < 4
    assert not leftovers(out)
    assert not workers(running.pid)
    summary = carry_out(job, out)
    assert (summary.done, summary.interrupted) == (4, False)
    assert found(out) == whole


def test_ctrl_c_twice_ends_at_once_and_leaves_nothing_half_done(job, whole, tmp_path, interruptible):
    out = tmp_path / "out"
    running = program(tmp_path, job, out, engine="processes", workers=1)
    until(lambda: done(out))
    running.send_signal(signal.SIGINT)
    time.sleep(0.1)
    running.send_signal(signal.SIGINT)
    running.communicate(timeout=60)
    assert running.returncode == -signal.SIGINT
    assert not leftovers(out)
    assert not workers(running.pid)
    carry_out(job, out)
    assert found(out) == whole


def test_the_handler_of_ctrl_c_is_put_back(job, finished, interruptible):
    before = signal.getsignal(signal.SIGINT)
    carry_out(job, finished)
    assert signal.getsignal(signal.SIGINT) is before


def test_a_run_works_in_another_thread_too(job, whole, tmp_path):
    thread = threading.Thread(target=carry_out, args=(job, tmp_path))
    thread.start()
    thread.join()
    assert found(tmp_path) == whole


@pytest.mark.parametrize("engine", ["local", "processes"])
def test_a_program_that_is_killed_leaves_no_process_and_goes_on(job, whole, tmp_path, engine):
    out = tmp_path / "out"
    running = program(tmp_path, job, out, engine=engine, workers=1)
    until(lambda: done(out))
    running.kill()
    running.communicate()
    until(lambda: not workers(running.pid), 20)
    assert done(out) < 4
    carry_out(job, out, models=job.load_models())
    assert found(out) == whole


@pytest.mark.parametrize("share", [0.0, 0.3, 0.999])
def test_a_torn_part_is_done_again_and_no_other(job, whole, finished, tmp_path, share):
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    times = {shard: parts.path(tmp_path, shard).stat().st_mtime_ns for shard in job.shards}
    torn = parts.path(tmp_path, 2)
    torn.write_bytes(torn.read_bytes()[: int(share * torn.stat().st_size)])
    told = []
    carry_out(job, tmp_path, models=job.load_models(), progress=lambda *said: told.append(said))
    assert ("explaining", 6, 8) in told
    assert ("explaining", 0, 8) not in told
    again = {shard for shard in job.shards if parts.path(tmp_path, shard).stat().st_mtime_ns != times[shard]}
    assert again == {2}
    assert found(tmp_path) == whole


def test_a_full_disk_is_one_sentence_and_the_same_goes_on(job, whole, tmp_path, monkeypatch):
    write = parts._Summed.write

    def full(file, data):
        if done(tmp_path / "out") == 2 and file.size > 100:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(file, data)

    monkeypatch.setattr(parts._Summed, "write", full)
    with pytest.raises(OutputError, match=r"is full: make room .* again; 2 of 4 shards are done") as caught:
        carry_out(job, tmp_path / "out", models=job.load_models())
    assert "\n" not in str(caught.value)
    assert not leftovers(tmp_path / "out")
    monkeypatch.undo()
    assert carry_out(job, tmp_path / "out", models=job.load_models()).done == 4
    assert found(tmp_path / "out") == whole


@pytest.mark.parametrize("engine", ["local", "processes"])
def test_weights_that_changed_are_one_sentence_and_leave_no_folder(job, tmp_path, engine):
    other = replace(job, models=(replace(job.models[0], fingerprint="0" * 64),))
    with pytest.raises(ModelError, match="another model than the study began with"):
        carry_out(other, tmp_path / "out", engine=engine, workers=1)
    assert not (tmp_path / "out").exists()


def test_a_method_that_no_picture_can_take_leaves_no_folder(job, tmp_path, monkeypatch):
    def refuse(*_):
        raise UnsupportedError("this model has no attention")

    monkeypatch.setattr(Worker, "explain", refuse)
    with pytest.raises(UnsupportedError, match="no attention"):
        carry_out(job, tmp_path / "out", models=job.load_models())
    assert not (tmp_path / "out").exists()


def test_an_error_that_nobody_expected_counts_as_a_death_here(job, whole, tmp_path, monkeypatch):
    explain, errors = Worker.explain, iter([MemoryError("no more")])

    def once(worker, shard, *more):
        for error in errors:
            raise error
        return explain(worker, shard, *more)

    monkeypatch.setattr(Worker, "explain", once)
    assert carry_out(job, tmp_path, models=job.load_models()).deaths == 1
    assert found(tmp_path) == whole


def test_models_that_are_only_here_are_explained_here_after_a_death(tmp_path):
    known = load_model("creatures")
    known.spec = "python:notebook.net"
    made = plan(pictures(tmp_path / "pictures", 4))
    made = replace(made, models=(replace(made.models[0], spec="python:notebook.net"),))
    carry_out(made, tmp_path / "out", models=[known])
    parts.path(tmp_path / "out", 0).unlink()
    (tmp_path / "out" / "parts" / ".running").write_text('{"shard": 0}')
    assert carry_out(made, tmp_path / "out", models=[known]).failed == 0
    assert opened(tmp_path / "out").complete
