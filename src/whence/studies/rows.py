"""The files of a study's rows, read lazily, each checked to be whole and of this study."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from whence.errors import OutputError
from whence.studies import parts
from whence.studies.job import Job
from whence.studies.tables import MAP, columns

_FOOTER = b"whence.job"
# So many rows are read at a time: those with maps can be large.
_ROWS, _ROWS_WITH_MAPS = 65_536, 64


@dataclass(frozen=True)
class Rows:
    """The parts of a study's folder; whatever is wrong with one is an ``OutputError`` that names it."""

    folder: Path
    job: Job

    def path(self, shard: int) -> Path:
        """Return the file of a shard."""
        return parts.path(self.folder, shard)

    @property
    def there(self) -> list[int]:
        """The numbers of the shards that have a file."""
        return [shard for shard in self.job.shards if self.path(shard).is_file()]

    @cached_property
    def kinds(self) -> dict[str, pa.DataType]:
        """The columns without the maps."""
        return columns(self.job)

    def read(self, shard: int, names: Sequence[str], *, maps: bool = False) -> Iterator[pa.Table]:
        """Yield some columns of a shard's rows, in order, and with ``maps`` all those of maps that it has."""
        with self._opened(shard) as file:
            held = _map_columns(file) if maps else []
            own = [*names, *held]
            for batch in file.iter_batches(_ROWS_WITH_MAPS if held else _ROWS, columns=own):
                yield pa.table(batch).select(own)

    def row(self, shard: int, place: int, names: Sequence[str], *, maps: bool = False) -> pa.Table:
        """Return some columns of one row, and with ``maps`` all those of maps that its shard has."""
        with self._opened(shard) as file:
            own = [*names, *(_map_columns(file) if maps else ())]
            ends = list(accumulate(file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)))
            group = next(i for i, end in enumerate(ends) if place < end)
            start = ends[group] - file.metadata.row_group(group).num_rows
            return file.read_row_group(group, columns=own).slice(place - start, 1).select(own)

    @contextmanager
    def _opened(self, shard: int) -> Iterator[pq.ParquetFile]:
        path = self.path(shard)
        try:
            with pq.ParquetFile(path, page_checksum_verification=True) as file:
                self._check(file, shard)
                yield file
        except (OSError, ValueError, pa.ArrowException) as error:
            said = " ".join(str(error).split())
            raise OutputError(f"{path} is damaged ({said}): run the study again, it makes this part anew") from error

    def _check(self, file: pq.ParquetFile, shard: int) -> None:
        made = (file.schema_arrow.metadata or {}).get(_FOOTER, b"").decode()
        if made != self.job.fingerprint:
            raise OutputError(f"{self.path(shard)} is of another study: run the study again, it makes this part anew")
        expected = len(self.job.slice(shard)) * len(self.job.cells)
        lacking = self.kinds.keys() - set(file.schema_arrow.names)
        if file.metadata.num_rows != expected or lacking:
            raise ValueError(f"{file.metadata.num_rows} of {expected} rows, {len(lacking)} columns missing")


def _map_columns(file: pq.ParquetFile) -> list[str]:
    return sorted(name for name in file.schema_arrow.names if name.startswith(MAP))
