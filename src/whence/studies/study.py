"""What a study found, read back from its folder."""

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import torch
from jaxtyping import Float
from torch import Tensor

from whence.errors import MissingExtraError, OptionError, OutputError, UnknownNameError, nearest
from whence.pictures.read import Picture
from whence.studies.digest import Digest
from whence.studies.job import Cell, Job
from whence.studies.rows import Rows
from whence.studies.tables import METHOD_OK, UNSTEADY, map_of

if TYPE_CHECKING:
    import pandas

Where = Mapping[str, object]
"""The values that rows have, by column; None asks for null."""


def open(folder: str | os.PathLike[str]) -> "Study":
    """Return the study of a folder, finished or not.

    Raises
    ------
    OutputError
        The folder holds no study, or its job.json is damaged.
    """
    return Study(Path(folder), Job.load(Path(folder)))


@dataclass(frozen=True, repr=False)
class Study:
    """The rows of a study in the job's order, one for each picture, model and method, and their maps.

    Its files are read anew whenever something is asked; one that is damaged, or of another study, is an
    ``OutputError`` that names it.
    """

    folder: Path
    job: Job

    @property
    def missing(self) -> list[int]:
        """The numbers of the shards that are not there yet."""
        there = set(self._rows.there)
        return [shard for shard in self.job.shards if shard not in there]

    @property
    def complete(self) -> bool:
        """Whether every shard is there."""
        return not self.missing

    def table(
        self, *, columns: Sequence[str] | None = None, maps: bool = False, where: Where | None = None
    ) -> pa.Table:
        """Return the rows that are there, or those of ``where``, as {"model": name, "status": "ok"}.

        With ``maps`` a column of tensors ``map_CxHxW`` for each shape stands last. ``columns`` names those wanted,
        all if not given.

        Raises
        ------
        OptionError
            There is no such column, no such value can stand in it, or the method was not asked of the model.
        UnknownNameError
            There is no such model or method.
        """
        condition = where or {}
        return self._gathered(columns or list(self._rows.kinds), self._condition(condition), condition, maps)

    @property
    def failed(self) -> pa.Table:
        """The rows that have no map, with the reason under ``error``."""
        return self._gathered(list(self._rows.kinds), pc.field("status") != METHOD_OK, ["status"])

    def failures(self) -> dict[str, list[str]]:
        """Return for each reason the pictures that failed for it, the most frequent reason first."""
        found: dict[str, dict[str, None]] = {}
        for row in self._gathered(["picture", "error"], pc.field("status") != METHOD_OK, ["status"]).to_pylist():
            # Else every picture had a reason of its own.
            named = re.compile("|".join(re.escape(repr(one)) for one in (row["picture"], Path(row["picture"]).name)))
            found.setdefault(named.sub("the picture", row["error"]), {})[row["picture"]] = None
        return {reason: list(own) for reason, own in sorted(found.items(), key=lambda pair: -len(pair[1]))}

    def summary(self) -> dict[str, Any]:
        """Return what there is in numbers, as plain values; ``seconds`` are those of all workers together."""
        rows = self.table(columns=["status", "seconds"])
        return {
            "folder": str(self.folder),
            "fingerprint": self.job.fingerprint,
            "pictures": len(self.job.pictures),
            "models": [model.name for model in self.job.models],
            "methods": list(self.job.methods),
            "rows": len(rows),
            "failed": len(rows) - pc.sum(pc.equal(rows["status"], METHOD_OK), min_count=0).as_py(),
            "missing": len(self.missing),
            "seconds": pc.sum(rows["seconds"], min_count=0).as_py(),
        }

    def pandas(self, *, columns: Sequence[str] | None = None, where: Where | None = None) -> "pandas.DataFrame":
        """Return the rows without the maps; raises as ``table``.

        Raises
        ------
        MissingExtraError
            pandas is not installed.
        """
        try:
            import pandas  # noqa: F401  (it is imported where a table is turned into a frame, with a longer error)
        except ImportError:
            raise MissingExtraError("pandas is asked for and not installed: pip install pandas") from None
        return self.table(columns=columns, where=where).to_pandas()

    def batches(self, *, columns: Sequence[str] | None = None, maps: bool = False) -> Iterator[pa.Table]:
        """Yield the rows that are there, in order, few at a time; with ``maps`` as they stand in their part.

        Raises
        ------
        OptionError
            There is no such column.
        """
        names = list(columns or self._rows.kinds)
        for name in names:
            self._kind(name)
        yield from self._read(names, maps=maps)

    def maps(self, model: str, method: str) -> Iterator[tuple[pa.Table, Float[Tensor, "n c h w"]]]:
        """Yield the rows that have a map, and their maps: part by part, so that few are held at a time.

        Should the maps of a part have several shapes, each shape is yielded apart.

        Raises
        ------
        UnknownNameError
            There is no such model or method.
        OptionError
            The study kept no maps.
        """
        self._cells(model, method)
        self._refuse_without_maps()
        own = {"model": model, "method": method, "status": METHOD_OK}
        plain = list(self._rows.kinds)
        for shard in self._rows.there:
            pieces = [rows.filter(self._condition(own)) for rows in self._rows.read(shard, plain, maps=True)]
            found = pa.concat_tables(pieces)
            for name in found.column_names[len(plain) :]:
                held = found.filter(pc.field(name).is_valid())
                if len(held):
                    yield held.select(plain), _maps(held[name])

    def map(self, picture: str | int, model: str | None = None, method: str | None = None) -> Float[Tensor, "c h w"]:
        """Return a picture's raw map; ``picture`` is its name in the folder, or its number.

        Raises
        ------
        UnknownNameError
            There is no such picture, model or method.
        OptionError
            There are several maps of it, and it was not said which; or the study kept none.
        OutputError
            The picture failed, or its shard is not there yet.
        """
        shard, place = self._place(picture, model, method)
        self._refuse_without_maps()
        row = self._rows.row(shard, place, ["picture", "error"], maps=True)
        for column in row.columns[2:]:
            if column.null_count == 0:
                return _maps(column)[0]
        raise OutputError(f"{row['picture'][0].as_py()!r} has no map: {row['error'][0].as_py()}")

    def row(self, picture: str | int, model: str | None = None, method: str | None = None) -> dict[str, Any]:
        """Return all of one row but its map, by column; raises as ``map``, but for pictures that failed."""
        shard, place = self._place(picture, model, method)
        found: dict[str, Any] = self._rows.row(shard, place, list(self._rows.kinds)).to_pylist()[0]
        return found

    def picture(self, number: int) -> Picture:
        """Return a picture, read from its file again.

        Raises
        ------
        PictureError
            Its file is gone, or is another than the study explained.
        """
        return self.job.pictures[self.number(number)].read(self.job.root, self.job.bits)

    def digest(self) -> str:
        """Return one SHA-256 of all rows and maps, in hex: the same wherever the job was run, and in how many pieces.

        Seconds, host and paths are outside it, and so is the way in which files hold the rows.

        Raises
        ------
        OutputError
            Shards are missing.
        """
        if absent := self.missing:
            raise OutputError(
                f"{len(absent)} of {len(self.job.shards)} shards are missing, and the digest is of all rows: "
                "finish the study with the arguments it was begun with"
            )
        digest = Digest()
        steady = [name for name in self._rows.kinds if name not in UNSTEADY]
        for rows in self._read(steady, maps=True):
            for batch in rows.to_batches():
                digest.add(batch)
        return digest.hex()

    def number(self, picture: str | int) -> int:
        """Return the number of a picture by its name in the folder.

        Raises
        ------
        UnknownNameError
            There is none of that name or number.
        """
        found = self._numbers.get(picture) if isinstance(picture, str) else picture
        if found is None:
            raise UnknownNameError(f"the study has no picture {picture!r}: {nearest(str(picture), self._numbers)}")
        if not 0 <= found < len(self.job.pictures):
            raise UnknownNameError(f"the study has no picture {found}: there are 0 to {len(self.job.pictures) - 1}")
        return found

    def __repr__(self) -> str:
        job = self.job
        maps = f"{len(job.pictures)} pictures x {len(job.cells)} maps of {len(job.models)} models"
        return f"Study({str(self.folder)!r}: {maps}, {self._state})"

    def _repr_html_(self) -> str:
        from whence.reports.study_page import fragment

        job = self.job
        facts = (
            ("Pictures", f"{len(job.pictures):,}"),
            ("Models", ", ".join(model.name for model in job.models)),
            ("Methods", ", ".join(job.methods)),
            ("Metrics", ", ".join(job.metrics) or "none"),
            ("State", self._state),
        )
        return fragment(str(self.folder), facts)

    @property
    def _state(self) -> str:
        absent = len(self.missing)
        return f"{absent} of {len(self.job.shards)} shards missing" if absent else "complete"

    @cached_property
    def _rows(self) -> Rows:
        return Rows(self.folder, self.job)

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {entry.name: number for number, entry in enumerate(self.job.pictures)}

    def _gathered(
        self, names: Sequence[str], keep: pc.Expression | None, by: Iterable[str], maps: bool = False
    ) -> pa.Table:
        """Return some columns of the rows that fulfil a condition on the columns ``by``."""
        read = list(dict.fromkeys([*names, *by]))
        # For the types where there are no rows at all.
        pieces = [pa.schema([(name, self._kind(name)) for name in read]).empty_table()]
        for shard in self._rows.there:
            pieces += (
                rows if keep is None else rows.filter(keep) for rows in self._rows.read(shard, read, maps=maps)
            )
        whole = pa.concat_tables(pieces, promote_options="default")
        return whole.select([*names, *sorted(whole.column_names[len(read) :])])

    def _read(self, names: Sequence[str], *, maps: bool) -> Iterator[pa.Table]:
        for shard in self._rows.there:
            yield from self._rows.read(shard, names, maps=maps)

    def _place(self, picture: str | int, model: str | None, method: str | None) -> tuple[int, int]:
        """Return in which shard a row stands, and where in it."""
        number, cells = self.number(picture), self._cells(model, method)
        if len(cells) > 1:
            choices = ", ".join(f"{self.job.models[cell.model].name} by {cell.method}" for cell in cells.values())
            raise OptionError(f"{picture!r} has {len(cells)} maps: name the model and the method of one ({choices})")
        shard = number // self.job.shard
        if not self._rows.path(shard).is_file():
            raise OutputError(
                f"{self.job.pictures[number].name!r} is not explained yet: "
                "finish the study with the arguments it was begun with"
            )
        (cell,) = cells
        return shard, (number - self.job.slice(shard).start) * len(self.job.cells) + cell

    def _kind(self, column: str) -> pa.DataType:
        if column not in self._rows.kinds:
            raise OptionError(f"a study has no column {column!r}: {nearest(column, self._rows.kinds)}")
        return self._rows.kinds[column]

    def _condition(self, where: Where) -> pc.Expression | None:
        """Return what rows must fulfil, None where that is nothing."""
        self._cells(where.get("model"), where.get("method"))
        whole = None
        for name, value in where.items():
            try:
                wanted = pa.scalar(value, self._kind(name))
            except (pa.ArrowException, TypeError, ValueError) as error:
                raise OptionError(f"{name} = {value!r} is asked for, and it holds {self._kind(name)}") from error
            one = pc.field(name) == wanted if wanted.is_valid else pc.field(name).is_null()
            whole = one if whole is None else whole & one
        return whole

    def _cells(self, model: object, method: object) -> dict[int, Cell]:
        """Return the cells of a model and a method by their places in a picture's rows; None stands for any."""
        for what, value, known in (
            ("model", model, [entry.name for entry in self.job.models]),
            ("method", method, self.job.methods),
        ):
            if value is not None and value not in known:
                raise UnknownNameError(f"the study has no {what} {value!r}: {nearest(str(value), known)}")
        found = {
            place: cell
            for place, cell in enumerate(self.job.cells)
            if model in (None, self.job.models[cell.model].name) and method in (None, cell.method)
        }
        if not found:
            raise OptionError(f"{method} was not asked of {model}: take another of the two")
        return found

    def _refuse_without_maps(self) -> None:
        if self.job.maps == "none":
            raise OptionError("this study kept no maps: run it into a new folder with maps float32 or float16")


def _maps(column: pa.ChunkedArray) -> Float[Tensor, "n c h w"]:
    """Return maps as they were kept, in float32."""
    return torch.cat([torch.tensor(map_of(chunk)).float() for chunk in column.chunks])
