"""Who gets which shard, and who is to blame when workers die: the policy alone, with workers of straw."""

import re
from collections import deque
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine_samples import bare
from whence.errors import ModelError, OutputError
from whence.studies.engines.tasks import Died, Done, Refused, Task, Unstarted
from whence.studies.supervisor import Supervisor


@dataclass
class Straw:
    """Workers of straw: ``fate`` says what becomes of a task; the last one handed out comes back first."""

    fate: object
    size: int = 1
    seen: list = field(default_factory=list)
    busy: list = field(default_factory=list)

    @property
    def free(self):
        return self.size - len(self.busy)

    def submit(self, task):
        assert self.free
        self.seen.append(task)
        self.busy.append(task)

    def wait(self):
        task = self.busy.pop()
        return [(task, self.fate(task))]


def touched(job, task):
    """Return the pictures that a task touches."""
    return set(task.probe or job.slice(task.shard)) - task.holes


def run(job, fate, size=1, stopping=lambda: False):
    pool, told = Straw(fate, size), []
    supervisor = Supervisor(job, deque(map(Task, job.shards)), stopping, lambda task, done: told.append(task))
    supervisor.run(pool)
    assert not pool.busy
    return pool, told, supervisor


def test_all_shards_are_done_once_in_their_order():
    job = bare(10)
    pool, told, supervisor = run(job, lambda task: Done(0))
    assert told == pool.seen == [Task(0), Task(1), Task(2)]
    assert supervisor.deaths == 0


@given(
    count=st.integers(1, 40),
    shard=st.integers(1, 12),
    size=st.integers(1, 3),
    guilty=st.sets(st.integers(0, 39), max_size=5),
)
@settings(max_examples=150, deadline=None)
def test_the_pictures_that_kill_are_found_and_no_others(count, shard, size, guilty):
    job = bare(count, shard)
    guilty = {number for number in guilty if number < count}
    _, told, supervisor = run(job, lambda task: Died("x") if touched(job, task) & guilty else Done(0), size)
    assert sorted(task.shard for task in told) == list(job.shards)
    assert {task.shard: set(task.holes) for task in told} == {s: guilty & set(job.slice(s)) for s in job.shards}
    # Two deaths of the shard, three of the picture alone, and one for each halving.
    assert supervisor.deaths <= len(guilty) * (2 + 3 + shard.bit_length()) + 2 * len(job.shards)


@given(kills=st.lists(st.sampled_from(["", "", "work", "start"]), max_size=60), size=st.integers(1, 3))
@settings(max_examples=300, deadline=None)
def test_workers_that_something_else_kills_accuse_nobody(kills, size):
    """Whatever dies when: as long as it is not one picture alone, twice and once more, with its zeros alive."""
    job, left, alone = bare(12, 4), iter(kills), {}

    def fate(task):
        kill = next(left, "")
        if kill == "work" and len(task.probe) == 1 and not task.holes:
            alone[task.probe] = alone.get(task.probe, 0) + 1
            kill = kill if alone[task.probe] % 3 else ""
        return {"": Done(0), "work": Died("x"), "start": Unstarted("y")}[kill]

    try:
        _, told, _ = run(job, fate, size)
    except ModelError as error:
        assert re.search("times, and none does so alone|before they could begin|where zeros stand", str(error))  # noqa: PT017
        return
    assert sorted(task.shard for task in told) == list(job.shards)
    assert all(not task.holes for task in told)


def test_kills_that_end_after_two_of_one_picture_alone_accuse_nobody():
    """The shard twice, its half, the picture twice: five kills in a row, and then no more."""
    for count in range(8):
        fates = iter([Died("x")] * count)
        try:
            _, told, _ = run(bare(4), lambda task: next(fates, Done(0)))  # noqa: B023
        except ModelError as error:
            assert "where zeros stand" in str(error)  # noqa: PT017
            continue
        assert told == [Task(0, deaths=min(count, 2))]


def test_one_death_costs_one_more_try():
    job, first = bare(8), iter([Died("x")])
    pool, told, supervisor = run(job, lambda task: next(first, Done(0)))
    assert pool.seen == [Task(0), Task(0, deaths=1), Task(1)]
    assert [task.shard for task in told] == [0, 1]
    assert supervisor.deaths == 1


def test_pictures_that_kill_only_together_end_the_run_with_a_sentence():
    job = bare(8)
    pool = Straw(lambda task: Died("SIGKILL") if {5, 6} <= touched(job, task) else Done(0))
    supervisor = Supervisor(job, deque(map(Task, job.shards)), lambda: False, lambda task, done: None)
    with pytest.raises(ModelError, match=r"pictures 4 to 7 killed their worker 8 times, .*SIGKILL.*memory"):
        supervisor.run(pool)
    assert supervisor.deaths == 8


def test_a_model_that_dies_of_zeros_accuses_no_picture():
    job = bare(8)
    supervisor = Supervisor(job, deque(map(Task, job.shards)), lambda: False, lambda task, done: None)
    with pytest.raises(ModelError, match="also where zeros stand for picture 0"):
        supervisor.run(Straw(lambda task: Died("SIGSEGV")))


def test_workers_that_never_begin_end_the_run_with_the_reason():
    job = bare(8)
    supervisor = Supervisor(job, deque(map(Task, job.shards)), lambda: False, lambda task, done: None)
    with pytest.raises(ModelError, match="10 workers died one after the other before they could begin: no library"):
        supervisor.run(Straw(lambda task: Unstarted("no library"), 2))
    # Now and then it is no matter.
    fates = iter([*[Unstarted("x")] * 9, Done(0), *[Unstarted("x")] * 9, Done(0)])
    _, told, made = run(job, lambda task: next(fates))
    assert [task.shard for task in told] == [0, 1]
    assert made.deaths == 0


def test_what_is_wrong_for_all_ends_the_run_at_once():
    pool = Straw(lambda task: Refused(OutputError("the disk is full")))
    supervisor = Supervisor(bare(12), deque(map(Task, range(3))), lambda: False, lambda task, done: None)
    with pytest.raises(OutputError, match="the disk is full"):
        supervisor.run(pool)
    assert pool.seen == [Task(0)]


@pytest.mark.parametrize("size", [1, 2])
def test_what_was_begun_is_finished_when_the_run_should_stop(size):
    job, stop = bare(40), []

    def fate(task):
        stop.append(True)
        return Done(0)

    pool, told, supervisor = run(job, fate, size, stopping=lambda: bool(stop))
    assert len(told) == len(pool.seen) == size
    assert len(supervisor.waiting) == len(job.shards) - size


def test_a_stop_in_the_middle_of_a_search_leaves_the_shard_for_the_next_run():
    job, stop = bare(8), []

    def fate(task):
        if task.probe:
            stop.append(True)
        return Died("x") if 1 in touched(job, task) else Done(0)

    _, told, supervisor = run(job, fate, stopping=lambda: bool(stop))
    assert told == []
    assert supervisor.waiting
