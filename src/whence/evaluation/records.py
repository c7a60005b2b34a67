"""The files of an evaluation while it runs: what is measured is kept at once, and found again by the next run.

FILE.csv holds the numbers. FILE.jsonl beside it holds what the table has no columns for: in its first line what was
asked and of which model, then for each number the picture's hash, the curve and the notes.
"""

import csv
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from io import StringIO
from pathlib import Path
from secrets import token_hex
from typing import Any

from whence.errors import OutputError
from whence.reports.scores import Row

COLUMNS = ("picture", "method", "options", "target", "metric", "value")

Key = tuple[str, str, str, str]


class Records:
    """The rows of FILE.csv and FILE.jsonl; the files are touched by the first ``keep``, which alone adds to them."""

    def __init__(self, table: Path, settings: Mapping[str, Any]) -> None:
        """Read what the files hold.

        Raises
        ------
        OutputError
            They were not made by an evaluation, or by one of another model or with other settings.
        """
        self.table, self.beside = table, table.with_suffix(".jsonl")
        self.settings = dict(settings)
        self.rows: dict[Key, Row] = {}
        self._begun = False
        with _clear_errors(table):
            if table.exists():
                self._check()
                self.rows = _read(self.table, self.beside)
            elif self.beside.exists() and not _head(self.beside):
                raise OutputError(f"{str(self.beside)!r} is no file of whence: move it, or name another file")

    def _check(self) -> None:
        made = _head(self.beside)
        if not made:
            raise OutputError(
                f"{str(self.table)!r} is there, and without {self.beside.name!r} beside it it cannot be told what it "
                "was made with: remove it, or name another file"
            )
        for name, asked in self.settings.items():
            if (before := made.get(name)) != asked:
                said = f"{str(self.table)!r} was made with {name} {before}, and {asked} is asked"
                raise OutputError(f"{said}: name another file")

    def keep(self, row: Row) -> None:
        """Add a row to the files."""
        with _clear_errors(self.table):
            if not self._begun:
                self._begun = True
                self._rewrite()
            self.rows[row.key] = row
            for path, text in ((self.table, _line(row)), (self.beside, _said(row))):
                with path.open("a", encoding="utf-8", errors="surrogateescape", newline="") as file:
                    file.write(text)

    def finish(self, first: Iterable[Row]) -> None:
        """Put the rows of this run first, in their order; those of others stay."""
        self.rows = {row.key: row for row in first} | self.rows
        with _clear_errors(self.table):
            self._rewrite()

    def _rewrite(self) -> None:
        """Write both files anew: an interrupted run may have left half a line."""
        rows = self.rows.values()
        write(self.table, csv_of(rows))
        write(self.beside, "".join((json.dumps(self.settings) + "\n", *map(_said, rows))).encode("utf-8"))


def csv_of(rows: Iterable[Row]) -> bytes:
    """Return the table as CSV."""
    return (",".join(COLUMNS) + "\n" + "".join(map(_line, rows))).encode("utf-8", "surrogateescape")


def write(path: Path, data: bytes) -> None:
    """Write a file whole or not at all.

    Raises
    ------
    OutputError
        It cannot be written.
    """
    draft = path.with_name(f".{path.name}.{token_hex(4)}")
    with _clear_errors(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            draft.write_bytes(data)
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)


@contextmanager
def _clear_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        said = error.strerror or str(error)
        raise OutputError(f"{os.fspath(path)!r} cannot be written ({said}): name another file") from error


def _line(row: Row) -> str:
    text = StringIO()
    csv.writer(text, lineterminator="\n").writerow([getattr(row, name) for name in COLUMNS])
    return text.getvalue()


def _said(row: Row) -> str:
    told = {"picture": row.picture, "method": row.method, "options": row.options, "metric": row.metric}
    more = {"sha256": row.sha256, "region": row.region, "share": row.share, "curve": row.curve, "notes": row.notes}
    return json.dumps(told | more) + "\n"


def _head(beside: Path) -> dict[str, Any]:
    """Return what the rows beside were made with; nothing where whence did not make them."""
    if not beside.is_file():
        return {}
    try:
        with beside.open("rb") as file:
            found = json.loads(file.readline())
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) and "whence" in found else {}


def _read(table: Path, beside: Path) -> dict[Key, Row]:
    """Return the rows that stand whole in both files."""
    more: dict[Key, dict[str, Any]] = {}
    for line in beside.read_bytes().splitlines()[1:]:
        try:
            told = json.loads(line)
            more[told["picture"], told["method"], told["options"], told["metric"]] = told
        except (ValueError, KeyError, TypeError):
            continue
    text = table.read_bytes().decode("utf-8", "surrogateescape")
    # What follows the last end of a line is half a row.
    rows: dict[Key, Row] = {}
    for cells in list(csv.reader(StringIO(text[: text.rfind("\n") + 1], newline="")))[1:]:
        try:
            picture, method, options, target, metric, value = cells
            row = Row(picture, method, options, target, metric, float(value))
        except ValueError:
            continue
        if told := more.get(row.key):
            rows[row.key] = replace(
                row,
                share=tuple(told["share"]),
                curve=tuple(told["curve"]),
                notes=tuple(told["notes"]),
                sha256=told["sha256"],
                region=told["region"],
            )
    return rows
