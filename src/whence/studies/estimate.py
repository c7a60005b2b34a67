"""What a study will take, told before it starts: passes, memory, disk and time, from one measured shard."""

import resource
import sys
import time
from dataclasses import dataclass
from io import BytesIO

import pyarrow as pa
import pyarrow.parquet as pq

from whence.studies.job import Job
from whence.studies.shard import Worker
from whence.studies.tables import METHOD_OK


@dataclass(frozen=True)
class Estimate:
    """What a job takes in all; ``measured`` pictures were explained to know it, and nothing was written.

    ``forward``, ``backward`` and ``partial`` are passes of single pictures; ``seconds`` are those of ``workers``
    working at once; ``memory_bytes`` is the largest that one worker had at a time, ``disk_bytes`` what the rows take.
    """

    pictures: int
    rows: int
    shards: int
    forward: int
    backward: int
    partial: int
    seconds: float
    memory_bytes: int
    disk_bytes: int
    measured: int
    failed: int
    workers: int


def estimate(job: Job, worker: Worker, workers: int = 1) -> Estimate:
    """Explain the first shard and return what all of them will take.

    Raises
    ------
    WhenceError
        What was asked is wrong for every picture.
    """
    started = time.perf_counter()
    table = worker.explain(0)
    seconds = time.perf_counter() - started
    file = BytesIO()
    pq.write_table(table, file, compression="zstd")
    count = len(job.slice(0))
    ok = sum(status == METHOD_OK for status in table["status"].to_pylist())

    share = len(job.pictures) / count
    return Estimate(
        pictures=len(job.pictures),
        rows=len(job.pictures) * len(job.cells),
        shards=len(job.shards),
        forward=round(_sum(table, "forward") * share),
        backward=round(_sum(table, "backward") * share),
        partial=round(_sum(table, "partial") * share),
        seconds=seconds * share / min(workers, len(job.shards)),
        memory_bytes=peak_memory(),
        disk_bytes=round(file.tell() * share),
        measured=count,
        failed=table.num_rows - ok,
        workers=workers,
    )


def peak_memory() -> int:
    """Return the largest number of bytes that this process had at a time."""
    # Linux counts in kibibytes, macOS in bytes.
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _sum(table: pa.Table, column: str) -> int:
    return sum(value or 0 for value in table[column].to_pylist())
