"""carry_out(): a job, a folder and an engine to rows on a disk; what is there already is not done again."""

import os
import signal
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from threading import current_thread, main_thread
from types import FrameType

import torch

from whence.errors import OptionError, UnknownNameError, nearest
from whence.interpretable.labelled import Progress
from whence.models.classifier import Classifier
from whence.studies import parts
from whence.studies.engines.tasks import Done, Setup, Task
from whence.studies.folder import Place, held
from whence.studies.job import Job
from whence.studies.supervisor import Supervisor

ENGINES = ("local", "processes", "ray")
# So many processes decode pictures beside a model on a GPU, if nothing else is asked.
_LOADERS = 4


@dataclass(frozen=True)
class Summary:
    """What is there after a run, what earlier runs did included.

    Attributes
    ----------
    done, pictures, rows, failed
        How many shards, pictures and rows are done, and how many of the rows have no map.
    interrupted
        Whether Ctrl-C ended the run before its end.
    deaths
        How many workers died and were replaced in this run.
    seconds
        How long this run took.
    """

    done: int
    pictures: int
    rows: int
    failed: int
    interrupted: bool
    deaths: int
    seconds: float


def carry_out(
    job: Job,
    out: str | os.PathLike[str],
    *,
    engine: str = "local",
    workers: int | None = None,
    loaders: int | None = None,
    ray_address: str | None = None,
    models: Sequence[Classifier] | None = None,
    devices: Sequence[str] | None = None,
    progress: Progress | None = None,
) -> Summary:
    """Do all shards of a job that its folder does not hold yet.

    The rows are the same, to the bit, on every engine, with any number of workers, and however often a run or a
    worker was killed. A picture that kills its worker each time is found, and its rows say so. Ctrl-C lets the shards
    that were begun be finished, and comes a second time as ``KeyboardInterrupt``.

    Parameters
    ----------
    job
        What is done.
    out
        A new folder, an empty one, or that of the same job. The workers of a Ray cluster write into it too.
    engine
        ``local``: this process; ``processes``: others of this machine; ``ray``: actors of Ray Core.
    workers
        How many, for ``processes`` and ``ray``: one a device if None, or what the cores allow.
    loaders
        Processes that decode pictures beside each model; none if None, but 4 on a GPU.
    ray_address
        HOST:PORT of a cluster, or ``auto``; a Ray is started, and ended again, if None.
    models
        The job's models, where they are loaded already; ``local`` alone takes them.
    devices
        Where workers run; each of the job's kind if None.
    progress
        Told how many pictures are done, of how many.

    Raises
    ------
    OutputError
        The folder holds something else, or cannot be written.
    WhenceError
        What is asked is wrong; or workers die, and no picture is to blame.
    """
    begun = time.monotonic()
    if engine not in ENGINES:
        raise UnknownNameError(f"there is no engine {engine!r}: {nearest(engine, ENGINES)}")
    for name, value, least in (("workers", workers, 1), ("loaders", loaders, 0)):
        if value is not None and value < least:
            raise OptionError(f"{name}={value}: give {least} or more")
    with held(Path(out), job) as place, _interrupts() as stopping:
        run = _Run(job, place, progress or _quiet, stopping, parts.done(place.folder, job, progress))
        if len(run.done) < len(job.shards):
            setup = Setup(
                job=job,
                folder=place.folder,
                workers=workers,
                loaders=_loaders(job) if loaders is None else loaders,
                devices=devices or _devices(job),
                ray_address=ray_address,
                models=models,
                tell=run.tell,
                mark=run.mark,
            )
            run.work(engine, setup)
    return run.summary(time.monotonic() - begun)


def _quiet(stage: str, done: int, total: int) -> None:
    """Tell nobody."""


def _loaders(job: Job) -> int:
    return _LOADERS if job.device == "cuda" else 0


def _devices(job: Job) -> list[str]:
    """Return where workers run: on every GPU, or as many as there are cores for."""
    if job.device == "cuda":
        return [f"cuda:{i}" for i in range(torch.cuda.device_count())] or ["cuda"]
    return [job.device] * (max(1, _cores() // job.threads) if job.device == "cpu" else 1)


def _cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def _interrupts() -> Iterator[Callable[[], bool]]:
    """Give what says whether Ctrl-C was pressed; pressed again, it interrupts at once.

    Where Ctrl-C is ignored, or not heard, as in other threads than the first, that stays so.
    """
    pressed = False

    def press(number: int, frame: FrameType | None) -> None:
        nonlocal pressed
        if pressed:
            raise KeyboardInterrupt
        pressed = True

    before = signal.getsignal(signal.SIGINT)
    if current_thread() is not main_thread() or before in (signal.SIG_IGN, None):
        yield lambda: False
        return
    signal.signal(signal.SIGINT, press)
    try:
        yield lambda: pressed
    finally:
        signal.signal(signal.SIGINT, before)


@dataclass
class _Run:
    """A run: how many rows of each shard that is done failed, and how many pictures of the one at work are done."""

    job: Job
    place: Place
    progress: Progress
    interrupted: Callable[[], bool]
    done: dict[int, int]
    deaths: int = 0
    _within: int = 0

    def tell(self, more: int) -> None:
        """Add pictures of a shard that is at work here."""
        self._within += more
        stage = "finishing (Ctrl-C again: at once)" if self.interrupted() else "explaining"
        self.progress(stage, self._pictures() + self._within, len(self.job.pictures))

    def mark(self, shard: int | None) -> None:
        """Write down which shard is at work here; none of its pictures is done."""
        self._within = 0
        self.place.mark(shard)

    def work(self, engine: str, setup: Setup) -> None:
        """Hand out what is not done."""
        left = (shard for shard in self.job.shards if shard not in self.done)
        tasks = deque(Task(shard, deaths=int(shard == self.place.died_in)) for shard in left)
        supervisor = Supervisor(self.job, tasks, self._stopping, self._told)
        self.tell(0)
        with import_module(f"whence.studies.engines.{engine}").opened(setup) as pool:
            supervisor.run(pool)
        self.deaths = supervisor.deaths

    def _stopping(self) -> bool:
        """Return whether no more should be begun, and tell so."""
        if stop := self.interrupted():
            self.tell(0)
        return stop

    def _told(self, task: Task, outcome: Done) -> None:
        self.done[task.shard] = outcome.failed
        self._within = 0
        self.tell(0)

    def _pictures(self) -> int:
        return sum(len(self.job.slice(shard)) for shard in self.done)

    def summary(self, seconds: float) -> Summary:
        """Return what is there."""
        pictures, whole = self._pictures(), len(self.done) == len(self.job.shards)
        rows = pictures * len(self.job.cells)
        return Summary(len(self.done), pictures, rows, sum(self.done.values()), not whole, self.deaths, seconds)
