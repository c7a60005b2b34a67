"""Workers killed by SIGKILL at twenty random moments of a run, on two engines: the same rows each time."""

import os
import random
import signal
import threading
import time

import pytest

from engine_samples import RAY, actors, workers
from whence.creatures.files import write
from whence.models.load import load_model
from whence.studies.planning import Given, Settings, planned
from whence.studies.running import carry_out
from whence.studies.study import open as opened

pytestmark = pytest.mark.sweep
MOMENTS = 20


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    root = tmp_path_factory.mktemp("kills") / "pictures"
    write(root, 48, 1)
    settings = Settings(methods=["grad-cam", "occlusion:window=16,stride=8"], batch=4, shard=4)
    return planned(root, [(Given("creatures"), load_model("creatures"))], settings)


@pytest.fixture(scope="module")
def digest(job, tmp_path_factory):
    out = tmp_path_factory.mktemp("whole")
    carry_out(job, out)
    return opened(out).digest()


def at_work(engine):
    """Return the workers that were started from here."""
    return actors(os.getpid()) if engine == "ray" else workers(os.getpid())


@pytest.fixture(scope="module")
def ray():
    library = pytest.importorskip("ray")
    os.environ.update(RAY)
    library.init(address="local", num_cpus=2, include_dashboard=False, logging_level="ERROR", log_to_driver=False)
    yield
    library.shutdown()


@pytest.mark.parametrize("moment", range(MOMENTS))
@pytest.mark.parametrize("engine", ["processes", "ray"])
def test_a_worker_killed_at_a_random_moment_changes_no_row(job, digest, tmp_path, engine, moment, request):
    if engine == "ray":
        request.getfixturevalue("ray")
    over, begun, killed = threading.Event(), threading.Event(), []

    def kill():
        # Every second one dies at work, the others at any time, as when they start.
        if moment % 2:
            begun.wait()
        over.wait(random.Random(moment).uniform(0, 3 if moment % 2 else 10))
        while not over.is_set() and not killed:
            for process in at_work(engine)[-1:]:
                os.kill(process, signal.SIGKILL)
                killed.append(process)
            time.sleep(0.01)

    killer = threading.Thread(target=kill)
    killer.start()
    summary = carry_out(
        job, tmp_path, engine=engine, workers=2, progress=lambda stage, done, total: begun.set() if done else None
    )
    over.set()
    killer.join()
    print(f"{engine} {moment}: killed {len(killed)}, deaths {summary.deaths}, {summary.seconds:.1f} s")
    assert summary.failed == 0
    assert opened(tmp_path).digest() == digest


@pytest.mark.parametrize("engine", ["processes", "ray"])
def test_workers_killed_at_twenty_moments_of_one_run_change_no_row(job, digest, tmp_path, engine, request):
    if engine == "ray":
        request.getfixturevalue("ray")
    over, killed, lately = threading.Event(), [], []

    def kill():
        draw = random.Random(0)
        while not over.wait(draw.uniform(0, 6)) and len(killed) < MOMENTS:
            # Where all are killed before they can do anything, no run comes to its end.
            for process in at_work(engine)[: len(lately) < 3]:
                os.kill(process, signal.SIGKILL)
                killed.append(process)
                lately.append(process)

    killer = threading.Thread(target=kill)
    killer.start()
    summary = carry_out(job, tmp_path, engine=engine, workers=2, progress=lambda *_: lately.clear())
    over.set()
    killer.join()
    print(f"{engine}: killed {len(killed)}, deaths {summary.deaths}, {summary.seconds:.1f} s")
    assert summary.failed == 0
    assert opened(tmp_path).digest() == digest
