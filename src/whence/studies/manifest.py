"""Which pictures a folder holds, their hashes and their true classes."""

import csv
import hashlib
from collections.abc import Mapping
from pathlib import Path

from whence.errors import PictureError
from whence.interpretable.labelled import Progress
from whence.pictures.files import names_below, names_in
from whence.studies.job import PictureEntry


def manifest(root: Path, truth: Path | None = None, *, progress: Progress | None = None) -> tuple[PictureEntry, ...]:
    """Return the pictures of a folder in the order of their names, each with its hash.

    Where the folder itself holds none, those of all folders in it are taken. The true classes stand in a table with
    the columns ``file`` and ``label``: ``truth``, or else the only such table in the folder. Without one, pictures
    in folders are of the class that their folder is named after.

    Raises
    ------
    PictureError
        There is no such folder, it holds no picture, or one of its files cannot be read at all; the table is none.
    """
    if not root.is_dir():
        raise PictureError(f"there is no folder {str(root)!r}: name the folder that holds the pictures")
    names, nested = _names(root)
    table = _table(root) if truth is None else truth
    labels = {} if table is None else _labels(table)
    if truth is not None and labels.keys().isdisjoint(names):
        raise PictureError(
            f"{str(truth)!r} tells the class of no picture in {str(root)!r}: write names like {names[0]!r}"
        )
    entries = []
    for done, name in enumerate(names, 1):
        folder = name.rpartition("/")[0].rpartition("/")[2] if nested and not labels else None
        entries.append(PictureEntry(name, _sha256(root / name), labels.get(name) or folder))
        if progress:
            progress("hashing", done, len(names))
    return tuple(entries)


def _names(root: Path) -> tuple[list[str], bool]:
    """Return the names of the pictures, and whether they lie in folders of the folder."""
    if own := names_in(root):
        return own, False
    nested = names_below(root)
    if not nested:
        raise PictureError(f"the folder {str(root)!r} holds no picture: name one that does")
    return nested, True


def _sha256(path: Path) -> str:
    try:
        # Pictures are small beside memory, and a buffer for each is slower.
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise PictureError(f"{str(path)!r} cannot be read ({error.strerror}): change its permissions") from error


def _table(root: Path) -> Path | None:
    """Return the only table of the folder that tells classes."""
    tables = [path for path in sorted(root.glob("*.csv")) if path.is_file()]
    found = [path for path in tables if {"file", "label"} <= set(_head(path))]
    return found[0] if len(found) == 1 else None


def _head(path: Path) -> list[str]:
    try:
        with path.open(newline="", encoding="utf-8-sig", errors="replace") as file:
            return next(csv.reader(file), [])
    except csv.Error:
        return []
    except OSError as error:
        raise _no_table(path, error) from error


def _labels(table: Path) -> Mapping[str, str]:
    """Return the class of each file that a table names."""
    head = _head(table)
    if not {"file", "label"} <= set(head):
        raise PictureError(f"{str(table)!r} has the columns {', '.join(head)}: give it `file` and `label`")
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            return {row["file"]: row["label"] for row in csv.DictReader(file)}
    except (OSError, ValueError, csv.Error) as error:
        raise _no_table(table, error) from error


def _no_table(path: Path, error: Exception) -> PictureError:
    return PictureError(f"{str(path)!r} is no table of classes ({error}): give a .csv in UTF-8")
