"""Who gets which shard; what happens when a worker dies of one, the same on every engine."""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from whence.errors import ModelError
from whence.studies.engines.tasks import Died, Done, Outcome, Pool, Refused, Task, Unstarted
from whence.studies.job import Job

# A shard that killed two workers is searched for pictures that do so alone, and again after every two more.
_SEARCH = 2
# So many deaths of one shard, or of workers that did not even begin, are no accident.
_PATIENCE, _STARTS = 8, 10


@dataclass
class _Search:
    """The search of a shard for pictures that kill: how many tasks of it are open, and what was found."""

    task: Task
    open: int
    guilty: set[int] = field(default_factory=set)


@dataclass
class Supervisor:
    """The state of a run: what waits, what is searched, and how many workers died.

    Of a shard that killed two workers the pictures are tried by halves, as small jobs of their own, down to single
    ones. A picture is guilty if it kills alone, twice, zeros in its place do not, and it then kills once more:
    workers that something else kills accuse nobody.

    Attributes
    ----------
    waiting
        The tasks; those of a shard that someone died of go first.
    stopping
        Whether no more should be begun.
    told
        Hears of every shard that is done.
    """

    job: Job
    waiting: deque[Task]
    stopping: Callable[[], bool]
    told: Callable[[Task, Done], None]
    deaths: int = 0
    _unstarted: int = 0
    _searches: dict[int, _Search] = field(default_factory=dict)

    def run(self, pool: Pool) -> None:
        """Hand out what waits until all is done, or what was begun when it should stop.

        Raises
        ------
        WhenceError
            A worker says that what was asked is wrong; or workers die, and no picture is to blame.
        """
        busy = 0
        while busy or (self.waiting and not self.stopping()):
            while self.waiting and pool.free and not self.stopping():
                pool.submit(self.waiting.popleft())
                busy += 1
            for task, outcome in pool.wait():
                busy -= 1
                self.waiting.extendleft(reversed(self._next(task, outcome)))

    def _next(self, task: Task, outcome: Outcome) -> Sequence[Task]:
        """Return what is to be done first after this."""
        if isinstance(outcome, Refused):
            raise outcome.error
        if isinstance(outcome, Unstarted):
            return self._started_in_vain(task, outcome.reason)
        self._unstarted = 0
        if isinstance(outcome, Died):
            self.deaths += 1
            again = replace(task, deaths=task.deaths + 1)
            return self._after_probe(again) if task.probe else self._after_shard(again, outcome.reason)
        if task.holes and task.probe:
            return [replace(task, holes=frozenset(), deaths=2)]
        if task.probe:
            return self._closed(task)
        self.told(task, outcome)
        return ()

    def _started_in_vain(self, task: Task, reason: str) -> list[Task]:
        self._unstarted += 1
        if self._unstarted == _STARTS:
            raise ModelError(f"{_STARTS} workers died one after the other before they could begin: {reason}")
        return [task]

    def _after_shard(self, task: Task, reason: str) -> list[Task]:
        """Return what follows the death of a whole shard: the shard again, or a search."""
        if task.deaths == _PATIENCE:
            own = self.job.slice(task.shard)
            raise ModelError(
                f"pictures {own[0]} to {own[-1]} killed their worker {_PATIENCE} times, and none does so alone "
                f"({reason}): memory is the likely cause, take fewer workers, or begin a study with a smaller batch"
            )
        suspects = tuple(number for number in self.job.slice(task.shard) if number not in task.holes)
        if task.deaths % _SEARCH or not suspects:
            return [task]
        tries = _split(Task(task.shard, probe=suspects))
        self._searches[task.shard] = _Search(task, len(tries))
        return tries

    def _after_probe(self, task: Task) -> list[Task]:
        """Return what follows the death of some pictures alone: their halves, or one once more, or zeros for it."""
        if len(task.probe) > 1:
            self._searches[task.shard].open += 1
            return _split(task)
        if task.deaths == 1:
            return [task]
        if task.holes:
            raise ModelError(
                f"the models kill their worker also where zeros stand for picture {task.probe[0]}: try them "
                "alone with `whence explain`, and look at the memory that they take"
            )
        if task.deaths == 2:
            return [replace(task, holes=frozenset(task.probe), deaths=0)]
        self._searches[task.shard].guilty |= set(task.probe)
        return self._closed(task)

    def _closed(self, task: Task) -> list[Task]:
        """Return the shard again when its last try is done; what was found guilty is not touched any more."""
        search = self._searches[task.shard]
        search.open -= 1
        if search.open:
            return []
        del self._searches[task.shard]
        if not search.guilty:
            return [search.task]
        # One death, so that engines which are careful with such shards stay so.
        return [replace(search.task, holes=search.task.holes | search.guilty, deaths=1)]


def _split(task: Task) -> list[Task]:
    """Return a try of each half of some pictures; a single one stays as it is."""
    middle = len(task.probe) // 2
    return [replace(task, probe=half, deaths=0) for half in (task.probe[:middle], task.probe[middle:]) if half]
