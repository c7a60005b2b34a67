"""One shard after another on an engine that is none of ours: Dask, Spark, a batch system."""

import os
from functools import cache
from pathlib import Path

from whence.studies import parts
from whence.studies.job import Job
from whence.studies.shard import Worker


def work(folder: str | os.PathLike[str], shard: int) -> None:
    """Explain a shard of a study that was planned into a folder, and write its part there.

    The models are loaded once a process. It does not look whether the part is there already: whatever is done twice
    is the same.

    Raises
    ------
    WhenceError
        The folder holds no study, or what it asks is wrong for every picture.
    """
    worker = _worker(os.path.abspath(folder))
    parts.write(Path(folder), worker.job, shard, worker.explain(shard))


@cache
def _worker(folder: str) -> Worker:
    return Worker(Job.load(folder))
