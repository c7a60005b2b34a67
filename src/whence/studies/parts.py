"""Part files: a shard is done when its Parquet file is readable and carries the job's fingerprint."""

import errno
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from whence.errors import OutputError
from whence.interpretable.labelled import Progress
from whence.studies.job import Job
from whence.studies.tables import METHOD_OK

FOLDER = "parts"
_FULL = (errno.ENOSPC, errno.EDQUOT)
_JOB, _SUM = b"whence.job", b"whence.sum"
# After its metadata a Parquet file ends with their length, in four bytes, and four more that say what it is.
_END = 8
_GROUP = 1 << 23


def path(folder: Path, shard: int) -> Path:
    """Return where a shard's rows stand."""
    return folder / FOLDER / f"{shard:06d}.parquet"


def write(folder: Path, job: Job, shard: int, table: pa.Table) -> None:
    """Write a shard's rows: the file is there as a whole or not at all, also where the power fails.

    Raises
    ------
    OutputError
        It cannot be written; nothing of it is left.
    """
    target = path(folder, shard)
    try:
        with _draft(target) as draft:
            with draft.open("wb") as file:
                _write(table, file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(draft, target)
    except OSError as error:
        done = sum(1 for _ in target.parent.glob("[!.]*.parquet"))
        raise unwritten(folder, error, f"; {done} of {len(job.shards)} shards are done") from error


def _write(table: pa.Table, file: BinaryIO) -> None:
    """Write a table, and into its footer the checksum of all that stands before it."""
    summed = _Summed(file)
    # Maps hardly repeat: looking for what does would double the time.
    plain = [name for name in table.column_names if not isinstance(table.schema.field(name).type, pa.ExtensionType)]
    with pq.ParquetWriter(summed, table.schema, compression="zstd", use_dictionary=plain) as writer:
        # One map is read with its group: 8 MB of them.
        writer.write_table(table, row_group_size=max(32, _GROUP * len(table) // max(1, table.nbytes)))
        writer.add_key_value_metadata({_SUM.decode(): f"{summed.size}:{summed.sum}"})


@dataclass(eq=False)
class _Summed:
    """A file that is written, with the size and the CRC-32 of what was."""

    file: BinaryIO
    size: int = 0
    sum: int = 0
    closed: bool = field(default=False, init=False)

    def write(self, data: bytes) -> int:
        """Write, and add to the sum."""
        self.size, self.sum = self.size + len(data), zlib.crc32(data, self.sum)
        return self.file.write(data)

    def flush(self) -> None:
        """Leave that to the one who opened the file, as closing it."""

    close = flush


@contextmanager
def _draft(target: Path) -> Iterator[Path]:
    """Give another name to write under, hidden from those who read whole folders; what is left there is removed."""
    draft = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        yield draft
    finally:
        draft.unlink(missing_ok=True)


def write_text(target: Path, text: str) -> None:
    """Write a file of text as a whole or not at all.

    Raises
    ------
    OSError
        It cannot be written.
    """
    with _draft(target) as draft:
        draft.write_text(text, encoding="utf-8")
        os.replace(draft, target)


def is_draft(path: Path) -> bool:
    """Return whether a file is what a process that died had begun to write."""
    return path.name.startswith(".") and path.suffix == ".tmp"


def remove_drafts(folder: Path) -> None:
    """Remove what processes that died had begun to write."""
    for place in (folder, folder / FOLDER):
        for draft in filter(is_draft, place.glob(".*")):
            draft.unlink(missing_ok=True)


def done(folder: Path, job: Job, progress: Progress | None = None) -> dict[int, int]:
    """Return the shards that are done, each with the number of its rows that failed."""
    there = [shard for shard in job.shards if path(folder, shard).exists()]
    found = {}
    for count, shard in enumerate(there, 1):
        failed = _checked(path(folder, shard), job, len(job.slice(shard)) * len(job.cells))
        if failed is not None:
            found[shard] = failed
        if progress:
            progress("checking", count, len(there))
    return found


def failed(rows: pa.Table) -> int:
    """Return how many rows have no map."""
    return sum(status != METHOD_OK for status in rows["status"].to_pylist())


def _checked(part: Path, job: Job, rows: int) -> int | None:
    """Return how many rows of a part failed; None where it is no whole part of this job."""
    try:
        with part.open("rb") as file, pq.ParquetFile(file) as parquet:
            facts, known = parquet.metadata, parquet.metadata.metadata or {}
            whole = _sum(part, part.stat().st_size - facts.serialized_size - _END)
            if known.get(_JOB) != job.fingerprint.encode() or known.get(_SUM) != whole or facts.num_rows != rows:
                return None
            return failed(parquet.read(columns=["status"]))
    except (OSError, pa.ArrowException, KeyError):
        return None


def _sum(part: Path, size: int) -> bytes:
    """Return size and CRC-32 of the first bytes of a file: faster than decoding all its maps by tens of times."""
    total, left = 0, size
    with part.open("rb") as file:
        while left and (block := file.read(min(left, 1 << 20))):
            total, left = zlib.crc32(block, total), left - len(block)
    return f"{size}:{total}".encode()


def unwritten(folder: Path, error: OSError, known: str = "") -> OutputError:
    """Return an error of the system as a sentence with its cure."""
    if error.errno in _FULL:
        return OutputError(f"the disk of {folder} is full: make room and run the same command again{known}")
    why = error.strerror or str(error)
    return OutputError(f"cannot write into {folder} ({why}): mend that and run the same command again{known}")
