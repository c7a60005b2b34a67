"""The engine `ray`: actors of Ray Core, on this machine or on a cluster with a shared disk."""

import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from threading import current_thread, main_thread
from typing import Any

from whence.errors import MissingExtraError, OptionError
from whence.studies.engines.tasks import Died, Outcome, Setup, Task, Unstarted, last_line, perform, started
from whence.studies.shard import Worker

try:
    import ray
    from ray.exceptions import RayError
except ImportError as error:
    raise MissingExtraError(f"engine=ray needs Ray ({error}): pip install 'whence[ray]'") from error

_SECONDS = 25
_QUIET: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
# Ray itself tries for minutes, and some of that cannot be interrupted.
_TRIAL = """
import socket, sys
address = sys.argv[1]
if address != "auto":
    host, _, port = address.rpartition(":")
    socket.create_connection((host.strip("[]"), int(port)), 5).close()
import logging, ray
ray.init(address=address, logging_level=logging.CRITICAL, log_to_driver=False)
"""


@contextmanager
def opened(setup: Setup) -> Iterator["Actors"]:
    """Give a pool of actors; a Ray that was started for it is ended afterwards, one that was there stays.

    Raises
    ------
    OptionError
        There is no cluster at the address within 30 seconds, or none of its machines fits a worker.
    """
    # Ray prints what dies on the standard output, which is the user's result, and takes over SIGTERM.
    with redirect_stdout(sys.stderr), _same_signal(signal.SIGTERM), _connected(setup):
        pool = Actors(setup)
        try:
            yield pool
        finally:
            pool.close()


@contextmanager
def _same_signal(number: signal.Signals) -> Iterator[None]:
    """Put back who hears a signal."""
    before = signal.getsignal(number)
    try:
        yield
    finally:
        if before is not None and current_thread() is main_thread():
            signal.signal(number, before)


@contextmanager
def _connected(setup: Setup) -> Iterator[None]:
    if ray.is_initialized():
        yield
        return
    try:
        _join(setup)
        yield
    finally:
        ray.shutdown()


def _join(setup: Setup) -> None:
    """Join a cluster, or start a Ray of our own."""
    address = setup.ray_address or os.environ.get("RAY_ADDRESS")
    if address and address != "local":
        _reach(address)
        ray.init(address=address, **_QUIET)
        return
    cores = max(os.cpu_count() or 1, (setup.workers or 1) * setup.job.threads)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    ray.init(address="local", num_cpus=cores, include_dashboard=False, **_QUIET)


def _reach(address: str) -> None:
    """Try in another process to join a cluster, so that it ends in time whatever answers there."""
    if "://" in address:
        raise OptionError(
            f"--ray-address {address}: only HOST:PORT or auto can be joined, from one of the cluster's own machines"
        )
    try:
        trial = [sys.executable, "-P", "-c", _TRIAL, address]
        done = subprocess.run(trial, capture_output=True, text=True, timeout=_SECONDS, stdin=subprocess.DEVNULL)
        why = (done.stderr.strip() or "no more is known").splitlines()[-1] if done.returncode else None
    except subprocess.TimeoutExpired:
        why = f"no answer in {_SECONDS} seconds"
    if why:
        raise OptionError(
            f"no Ray cluster can be joined at {address} ({why}): start one with `ray start --head`, "
            "or leave --ray-address out for a Ray of its own"
        )


class _Explainer:
    """A worker of Ray's."""

    def __init__(self, worker: Worker, folder: Path) -> None:
        self.worker, self.folder = worker, folder
        self.failed: Outcome | None = None

    def begin(self) -> None:
        self.failed = started(self.worker)

    def work(self, task: Task) -> Outcome:
        return self.failed or perform(self.worker, self.folder, task)


@dataclass
class _Actor:
    """A worker: its actor, what tells that it has begun, its answer to come, and what it does."""

    actor: Any
    begun: Any
    answer: Any
    task: Task


@dataclass
class Actors:
    """A pool of actors: Ray restarts none and tries nothing again, that is the supervisor's work."""

    setup: Setup
    _idle: list[Any] = field(default_factory=list)
    _busy: list[_Actor] = field(default_factory=list)
    _count: int = field(init=False)
    _make: Callable[[], Any] = field(init=False)

    def __post_init__(self) -> None:
        setup = self.setup
        what, each = ("GPU", 1) if setup.job.device == "cuda" else ("CPU", setup.job.threads)
        there = ray.cluster_resources().get(what, 0.0)
        most = int(there // each)
        if not most:
            raise OptionError(f"Ray has {there:g} {what}s and a worker needs {each}: join a larger cluster")
        asked = setup.workers or most
        # More workers than GPUs share them; more than there are cores for would wait for ever.
        self._count = asked if what == "GPU" else min(asked, most)
        gpus = min(1.0, most / asked) if what == "GPU" else 0.0
        kind = ray.remote(max_restarts=0, max_task_retries=0, num_cpus=setup.job.threads, num_gpus=gpus)(_Explainer)
        worker = ray.put(Worker(setup.job, None, None, setup.loaders))
        self._make = partial(kind.remote, worker, setup.folder.absolute())

    @property
    def free(self) -> int:
        """How many tasks can be taken now."""
        return self._count - len(self._busy)

    def submit(self, task: Task) -> None:
        """Hand a task to an idle actor, or start one."""
        actor, begun = self._idle.pop() if self._idle else self._started()
        self._busy.append(_Actor(actor, begun, actor.work.remote(task), task))

    def _started(self) -> tuple[Any, Any]:
        actor = self._make()
        return actor, actor.begin.remote()

    def wait(self) -> list[tuple[Task, Outcome]]:
        """Return what was done meanwhile, or what actors died of."""
        answers = [one.answer for one in self._busy]
        ready, _ = ray.wait(answers, num_returns=len(answers), timeout=0)
        if not ready:
            ready, _ = ray.wait(answers, timeout=1.0)
        heard = [one for one in self._busy if one.answer in ready]
        self._busy = [one for one in self._busy if one.answer not in ready]
        return [(one.task, self._heard(one)) for one in heard]

    def _heard(self, one: _Actor) -> Outcome:
        try:
            outcome: Outcome = ray.get(one.answer)
        except RayError as error:
            outcome = Died(_reason(error))
        if isinstance(outcome, Died | Unstarted):
            ray.kill(one.actor)
        else:
            self._idle.append((one.actor, one.begun))
        return Unstarted(outcome.reason) if isinstance(outcome, Died) and not _is_there(one.begun) else outcome

    def close(self) -> None:
        """End all actors."""
        for actor in (*(one.actor for one in self._busy), *(actor for actor, _ in self._idle)):
            ray.kill(actor)


def _is_there(begun: Any) -> bool:  # noqa: ANN401  (Ray's own)
    """Return whether an actor had loaded its models before it died."""
    try:
        ray.get(begun, timeout=0)
    except RayError:
        return False
    return True


def _reason(error: RayError) -> str:
    """Return the sentence in which Ray says how a worker ended."""
    lines = [line.strip() for line in str(error).splitlines() if "died" in line or "dead" in line]
    return " ".join((lines or [last_line(error)])[-1].split(". Some common causes")[0].split())
