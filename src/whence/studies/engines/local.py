"""The engine `local`: in this process; what died before is tried in another."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace

from whence.errors import ModelError
from whence.studies.engines import processes
from whence.studies.engines.tasks import Outcome, Refused, Setup, Task, perform, started
from whence.studies.shard import Worker


@contextmanager
def opened(setup: Setup) -> Iterator["Local"]:
    """Give a pool of one, this process."""
    with ExitStack() as stack:
        yield Local(setup, stack)


@dataclass
class Local:
    """This process as a pool of one.

    A shard that somebody died of is done in a process of its own, which it can kill without ending the program,
    unless the models cannot be loaded there.
    """

    setup: Setup
    stack: ExitStack
    _task: Task | None = None
    _careful: processes.Processes | None = None
    _worker: Worker = field(init=False)

    def __post_init__(self) -> None:
        setup = self.setup
        self._worker = Worker(setup.job, setup.models, setup.devices[0], setup.loaders)

    @property
    def free(self) -> int:
        """How many tasks can be taken now."""
        return int(self._task is None)

    def submit(self, task: Task) -> None:
        """Take a task; the work is done in ``wait``."""
        self._task = task

    def wait(self) -> list[tuple[Task, Outcome]]:
        """Do the task."""
        task, self._task = self._task, None
        assert task
        if task.deaths or task.probe:
            outcome = self._apart(task)
            if not (isinstance(outcome, Refused) and isinstance(outcome.error, ModelError)):
                return [(task, outcome)]
        return [(task, self._here(task))]

    def _here(self, task: Task) -> Outcome:
        # The process apart is no longer needed.
        self.stack.close()
        self._careful = None
        self.setup.mark(task.shard)
        try:
            return started(self._worker) or perform(self._worker, self.setup.folder, task, self.setup.tell)
        finally:
            self.setup.mark(None)

    def _apart(self, task: Task) -> Outcome:
        if self._careful is None:
            alone = replace(self.setup, workers=1, devices=self.setup.devices[:1])
            self._careful = self.stack.enter_context(processes.opened(alone))
        self._careful.submit(task)
        while not (found := self._careful.wait()):
            pass
        return found[0][1]
