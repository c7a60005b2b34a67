"""The engine `processes`: so many processes of this machine, one a device."""

import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread

from whence.errors import OptionError
from whence.studies.engines.tasks import Died, Outcome, Setup, Task, Unstarted, perform, started
from whence.studies.shard import Worker

# A program of its own, and no fork of the caller's: that may hold threads and a GPU, and its main file is its own.
_PROGRAM = "from whence.studies.engines.processes import serve; serve()"
# Seconds that a process has between the end of its pipe and its own, so that it is known how it ended.
_GRACE = 5.0


@contextmanager
def opened(setup: Setup) -> Iterator["Processes"]:
    """Give a pool of processes; none is left afterwards.

    Raises
    ------
    OptionError
        The system is Windows.
    """
    if os.name != "posix":
        raise OptionError("engine=processes needs Linux or macOS: take engine=local, or ray")
    with TemporaryDirectory(prefix="whence-") as folder:
        pool = Processes(setup, Path(folder))
        try:
            yield pool
        finally:
            pool.close()


@dataclass
class _Process:
    """A worker: its process, the pipe to it, whether it has begun, and what it does."""

    process: subprocess.Popen[bytes]
    pipe: Connection
    begun: bool = False
    task: Task | None = None

    def end(self) -> str:
        """Kill the worker, with the processes that it started, and return how it ended."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.pipe.close()
        return _reason(self.process.wait())

    def heard(self) -> Outcome | None:
        """Return what the worker says of its task; None where it has only begun."""
        try:
            said = self._received()
        except (EOFError, OSError):
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(timeout=_GRACE)
            return Died(self.end()) if self.begun else Unstarted(self.end())
        begun, self.begun = self.begun, True
        if isinstance(said, Died | Unstarted):
            # What is left of it may be damaged.
            self.end()
        return said if begun or said is not None else None

    def _received(self) -> Outcome | None:
        if not self.pipe.poll():
            raise EOFError
        said: Outcome | None = self.pipe.recv()
        return said


@dataclass
class Processes:
    """A pool of processes; the model is loaded once in each."""

    setup: Setup
    notes: Path
    _workers: list[_Process | None] = field(init=False)

    def __post_init__(self) -> None:
        self._workers = [None] * (self.setup.workers or len(self.setup.devices))

    @property
    def free(self) -> int:
        """How many tasks can be taken now."""
        return sum(worker is None or worker.task is None for worker in self._workers)

    def submit(self, task: Task) -> None:
        """Hand a task to an idle process, or start one."""
        idle = sorted(range(len(self._workers)), key=lambda i: (_rank(self._workers[i]), i))[0]
        worker = self._workers[idle]
        if worker and worker.process.poll() is not None:
            worker.end()
            worker = None
        worker = self._workers[idle] = worker or self._start(idle)
        worker.task = task
        # One that has died is noticed when it is waited for.
        with suppress(OSError):
            worker.pipe.send(task)

    def wait(self) -> list[tuple[Task, Outcome]]:
        """Return what was done meanwhile, or what processes died of."""
        busy = {worker.pipe: place for place, worker in enumerate(self._workers) if worker and worker.task}
        spoken = wait(list(busy), timeout=1.0)
        found = []
        for pipe, place in busy.items():
            worker = self._workers[place]
            assert worker is not None
            assert worker.task is not None
            # A process that loads pictures can hold the pipe of a dead one open.
            if pipe not in spoken and worker.process.poll() is None:
                continue
            outcome = worker.heard()
            if outcome is None:
                continue
            found.append((worker.task, outcome))
            worker.task = None
            if isinstance(outcome, Died | Unstarted):
                self._workers[place] = None
        return found

    def _start(self, place: int) -> _Process:
        setup, (ours, theirs) = self.setup, Pipe()
        device = setup.devices[place % len(setup.devices)]
        told = self.notes / str(place)
        told.write_bytes(pickle.dumps((Worker(setup.job, None, device, setup.loaders), setup.folder)))
        threads = str(setup.job.threads)
        with told.open("rb") as stdin, theirs:
            process = subprocess.Popen(
                # -P: what lies in the current folder is not imported by accident.
                [sys.executable, "-P", "-c", _PROGRAM, str(theirs.fileno()), str(os.getpid())],
                stdin=stdin,
                # Our standard output is the user's result.
                stdout=2,
                pass_fds=[theirs.fileno()],
                # Ctrl-C in the terminal reaches only us, who decide.
                process_group=0,
                env={
                    **os.environ,
                    "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
                    "OMP_NUM_THREADS": threads,
                    "MKL_NUM_THREADS": threads,
                },
            )
        return _Process(process, ours)

    def close(self) -> None:
        """End all processes."""
        for worker in filter(None, self._workers):
            worker.end()


def _rank(worker: _Process | None) -> int:
    """Return who comes first: one that waits with its model, then a place where none is, and none that works."""
    if worker is None:
        return 1
    return 0 if worker.task is None else 2


def _reason(code: int) -> str:
    if code == -signal.SIGKILL:
        return "SIGKILL, which the system sends when memory runs out"
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"


def serve() -> None:
    """Do what comes through a pipe until it ends: the program of a worker."""
    pipe, parent = Connection(int(sys.argv[1])), int(sys.argv[2])
    Thread(target=_end_with, args=(parent,), daemon=True).start()
    worker, folder = pickle.load(sys.stdin.buffer)
    with suppress(EOFError, OSError):
        pipe.send(started(worker))
        while True:
            pipe.send(perform(worker, folder, pipe.recv()))


def _end_with(parent: int) -> None:
    """End this process and those that it started when the one that started it has ended."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os.killpg(0, signal.SIGKILL)
