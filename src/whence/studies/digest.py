"""One hash of all rows of a study: of what they say, not of how files hold it."""

import hashlib
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import DTypeLike

_WHOLE = "<i8"


@dataclass
class Digest:
    """Rows as they come, in order, hashed by column: where values stand, how long they are, and the values.

    How rows are cut into tables changes nothing, nor do the files' types of the same values; a column that is absent
    is one of nulls.
    """

    _streams: dict[tuple[str, str], Any] = field(default_factory=lambda: defaultdict(hashlib.sha256))
    _rows: int = 0

    def add(self, rows: pa.RecordBatch) -> None:
        """Take in the next rows."""
        for name, column in zip(rows.schema.names, rows.columns, strict=True):
            places = np.flatnonzero(column.is_valid().to_numpy(zero_copy_only=False)) + self._rows
            if len(places):
                self._streams[name, "places"].update(places.astype(_WHOLE).tobytes())
                for part, data in _values(column.drop_null()):
                    self._streams[name, part].update(data)
        self._rows += len(rows)

    def hex(self) -> str:
        """Return the hash of all that was taken in."""
        whole = hashlib.sha256(f"{self._rows} rows\n".encode())
        for (name, part), stream in sorted(self._streams.items()):
            whole.update(f"{name}\n{part} {stream.hexdigest()}\n".encode())
        return whole.hexdigest()


def _values(array: pa.Array) -> Iterator[tuple[str, bytes]]:
    """Yield what an array without nulls holds, as bytes that mean the same everywhere, each part under its name."""
    kind = array.type
    if isinstance(kind, pa.FixedShapeTensorType):
        yield "values", _plain(array.storage.flatten(), np.dtype(kind.value_type.to_pandas_dtype()).newbyteorder("<"))
    elif pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind):
        yield "counts", _plain(pc.list_value_length(array), _WHOLE)
        yield from _values(array.flatten())
    elif pa.types.is_string(kind):
        yield "lengths", _plain(pc.binary_length(array), _WHOLE)
        yield "values", "".join(array.to_pylist()).encode()
    elif pa.types.is_floating(kind):
        yield "values", _plain(array, "<f8")
    else:
        yield "values", _plain(array, _WHOLE)


def _plain(array: pa.Array, kind: DTypeLike) -> bytes:
    values = np.asarray(array).astype(kind)
    if values.dtype.kind == "f":
        # There are many NaN, and they mean the same.
        values[np.isnan(values)] = np.nan
    return values.tobytes()
