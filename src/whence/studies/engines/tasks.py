"""What engines hand out and bring back, the same for all of them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from traceback import format_exception_only
from typing import NamedTuple, Protocol, runtime_checkable

from whence.errors import WhenceError
from whence.models.classifier import Classifier
from whence.studies import parts
from whence.studies.job import Job
from whence.studies.shard import Tell, Worker, of_the_machine


@dataclass(frozen=True)
class Task:
    """A shard to be explained and written; or, with ``probe``, some of its pictures, whose rows are thrown away.

    Attributes
    ----------
    holes
        Pictures that are not touched, by their numbers in the job.
    deaths
        How many workers died of it.
    probe
        The numbers of the pictures that are tried.
    """

    shard: int
    holes: frozenset[int] = frozenset()
    deaths: int = 0
    probe: tuple[int, ...] = ()


class Done(NamedTuple):
    """A task is done; so many of its rows failed."""

    failed: int


class Died(NamedTuple):
    """The worker died of it."""

    reason: str


class Unstarted(NamedTuple):
    """The worker died before it could begin."""

    reason: str


class Refused(NamedTuple):
    """What was asked is wrong, or cannot be written, whoever does it."""

    error: WhenceError


Outcome = Done | Died | Unstarted | Refused


@runtime_checkable
class Pool(Protocol):
    """The workers of an engine."""

    @property
    def free(self) -> int:
        """How many tasks can be taken now."""

    def submit(self, task: Task) -> None:
        """Take a task; a worker is started where none is there."""

    def wait(self) -> Sequence[tuple[Task, Outcome]]:
        """Return what was done meanwhile; nothing after a second at the latest, but for work in this process."""


@dataclass(frozen=True)
class Setup:
    """What an engine is opened with.

    Attributes
    ----------
    folder
        Of the study; the workers of a cluster write their parts into it too, so that it lies on a shared disk.
    workers
        How many at most; by the devices, or for Ray by the cluster, if None.
    devices
        One for each worker, in turn.
    models
        The job's models, where they are loaded already; for work in this process alone.
    tell, mark
        Hear of work in this process: how many more pictures are done, and which shard is explained, None after it.
    """

    job: Job
    folder: Path
    workers: int | None
    loaders: int
    devices: Sequence[str | None]
    ray_address: str | None
    models: Sequence[Classifier] | None
    tell: Tell
    mark: Callable[[int | None], None]


def perform(worker: Worker, folder: Path, task: Task, tell: Tell = lambda done: None) -> Outcome:
    """Do a task; a part is written by the worker, and only what became of it goes back."""
    try:
        if task.probe:
            _try(worker, task)
            return Done(0)
        rows = worker.explain(task.shard, task.holes, tell)
        parts.write(folder, worker.job, task.shard, rows)
        return Done(parts.failed(rows))
    except WhenceError as error:
        # A ModelError may wrap that there is no memory.
        return Died(last_line(error)) if of_the_machine(error) else Refused(error)
    except Exception as error:
        return Died(last_line(error))


def _try(worker: Worker, task: Task) -> None:
    """Explain some pictures as a small job of their own, so that trying costs what they cost."""
    entries = tuple(worker.job.pictures[number] for number in task.probe)
    job = replace(worker.job, pictures=entries, shard=len(entries))
    holes = frozenset(place for place, number in enumerate(task.probe) if number in task.holes)
    Worker(job, worker.models, worker.device, worker.loaders).explain(0, holes)


def started(worker: Worker) -> Outcome | None:
    """Load the models of a worker; return what went wrong, or None."""
    try:
        _ = worker.models
    except WhenceError as error:
        return Refused(error)
    except Exception as error:
        return Unstarted(last_line(error))
    return None


def last_line(error: BaseException) -> str:
    """Return the end of an error's traceback."""
    return " ".join("".join(format_exception_only(error)).split())
