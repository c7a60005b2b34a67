"""What a study will take, reckoned from its first shard."""

import pytest

from core_samples import net, pictures, plan
from whence.studies.estimate import estimate, peak_memory
from whence.studies.shard import Worker


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return pictures(tmp_path_factory.mktemp("estimate") / "p", 9)


def test_the_passes_are_those_of_all_pictures(root):
    models = [net(), net(1, name="two")]
    job = plan(root, *models, methods=["gradient", "rise:samples=5"], batch=2, shard=3)
    found = estimate(job, Worker(job, models))
    assert (found.pictures, found.rows, found.shards, found.measured, found.failed) == (9, 36, 3, 3, 0)
    # Of each model a picture takes one pass forward and one back for the gradient, and 1 + 5 forward for RISE.
    assert (found.forward, found.backward, found.partial) == (9 * 2 * 7, 9 * 2, 0)
    whole = [sum(Worker(job, models).explain(shard)["forward"].to_pylist()) for shard in job.shards]
    assert found.forward == sum(whole)


def test_time_and_disk_are_those_of_all_shards(root, monkeypatch):
    model = net()
    job = plan(root, model, shard=3)
    worker = Worker(job, [model])
    table = worker.explain(0)
    ticks = iter([10.0, 12.0] * 4)
    monkeypatch.setattr("whence.studies.estimate.time.perf_counter", lambda: next(ticks))
    monkeypatch.setattr(Worker, "explain", lambda self, shard: table)
    assert [estimate(job, worker, workers).seconds for workers in (1, 2, 9)] == [6.0, 3.0, 2.0]
    assert estimate(job, worker).disk_bytes > 3 * 3 * 3 * 16 * 16 * 4 * 0.5


def test_rows_that_failed_are_counted(root, tmp_path):
    (tmp_path / "p").mkdir()
    for path in root.iterdir():
        (tmp_path / "p" / path.name).write_bytes(path.read_bytes() if path.name != "001.png" else b"broken")
    model = net()
    job = plan(tmp_path / "p", model, methods=["gradient", "grad-cam"], shard=4)
    found = estimate(job, Worker(job, [model]))
    assert (found.measured, found.failed, found.shards) == (4, 2, 3)


def test_the_first_shard_may_be_the_only_one(root):
    model = net()
    job = plan(root, model, shard=100)
    found = estimate(job, Worker(job, [model]), workers=4)
    assert (found.shards, found.measured, found.forward, found.backward) == (1, 9, 9, 9)


def test_memory_is_in_bytes():
    assert 50 * 2**20 < peak_memory() < 2**40
