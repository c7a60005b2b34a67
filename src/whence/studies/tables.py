"""The rows of a study as tables of Arrow."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from whence.studies.job import Job

# In the order of the table; the metrics follow `residual`, the maps stand last.
_BEFORE: Mapping[str, pa.DataType] = {
    "number": pa.int32(),
    "picture": pa.string(),
    "sha256": pa.string(),
    "truth": pa.string(),
    "truth_index": pa.int32(),
    "model": pa.string(),
    "method": pa.string(),
    "layer": pa.string(),
    "status": pa.string(),
    "error": pa.string(),
    "predicted": pa.int32(),
    "predicted_label": pa.string(),
    "predicted_probability": pa.float64(),
    "correct": pa.bool_(),
    "target": pa.int32(),
    "target_label": pa.string(),
    "probability": pa.float64(),
    "score": pa.float64(),
    "residual": pa.float64(),
}
_AFTER: Mapping[str, pa.DataType] = {
    "forward": pa.int64(),
    "backward": pa.int64(),
    "partial": pa.int64(),
    "box": pa.list_(pa.float64()),
    "notes": pa.list_(pa.string()),
    "graph": pa.string(),
    "seconds": pa.float64(),
    "host": pa.string(),
}
# What is not the same on another machine: where a picture lies, what an error says of its path, and times.
UNSTEADY = ("picture", "error", "seconds", "host")
MAP, METHOD_OK = "map_", "ok"

Row = dict[str, Any]
"""A row by column; what is absent is null. Its raw map [C, h, w] stands under ``MAP``."""


def columns(job: Job) -> dict[str, pa.DataType]:
    """Return the columns of a job's rows without the maps."""
    from whence.studies.metrics import names

    return {**_BEFORE, **{name: pa.float64() for name in names(job)}, **_AFTER}


def table(job: Job, rows: Sequence[Row]) -> pa.Table:
    """Return rows as a table whose footer holds the job's fingerprint, a column of maps for each shape."""
    kinds = columns(job)
    arrays = {name: pa.array([_sayable(row.get(name)) for row in rows], kind) for name, kind in kinds.items()}
    maps = [row.get(MAP) for row in rows]
    shapes = sorted({one.shape for one in maps if one is not None})
    arrays |= {map_column(shape): _maps(maps, shape) for shape in shapes}
    return pa.table(arrays).replace_schema_metadata({b"whence.job": job.fingerprint.encode()})


def _sayable(value: object) -> object:
    """Return a text as UTF-8 can hold it: names of files may hold what no encoding can say."""
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else value


def map_column(shape: Sequence[int]) -> str:
    """Return the name of the column of maps of a shape."""
    return MAP + "x".join(map(str, shape))


def _maps(maps: Sequence[np.ndarray | None], shape: tuple[int, ...]) -> pa.Array:
    """Return the maps of one shape as fixed-shape tensors, null for every other."""
    mine = [one is not None and one.shape == shape for one in maps]
    kept = [one for one, own in zip(maps, mine, strict=True) if own and one is not None]
    stacked = np.stack(kept)
    kind = pa.fixed_shape_tensor(pa.from_numpy_dtype(stacked.dtype), shape)
    values = np.zeros((len(maps), *shape), stacked.dtype)
    values[np.array(mine)] = stacked
    flat = pa.array(values.reshape(-1))
    held = pa.FixedSizeListArray.from_arrays(flat, int(np.prod(shape)), mask=pa.array([not own for own in mine]))
    return pa.ExtensionArray.from_storage(kind, held)


def map_of(column: pa.Array) -> np.ndarray:
    """Return the maps of a column without nulls, [n, C, h, w]."""
    kind = column.type
    values = column.storage.flatten().to_numpy(zero_copy_only=False)
    maps: np.ndarray = values.reshape(len(column), *kind.shape)
    return maps
