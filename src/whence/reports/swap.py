"""A folder that is there whole or not at all."""

import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from secrets import token_hex

from whence.errors import OutputError

RESULT, REPORT, MAPS, PICTURES, GRAPHS = "result.json", "report.html", "maps.npz", "pictures", "graphs"
# The names that whence gives to what lies in its folders.
_OURS = {
    PICTURES: re.compile(r"\d+-[a-z0-9.+~-]+\.(png|jpg|jpeg|webp)"),
    GRAPHS: re.compile(r"\d+-[a-z0-9.+-]+(~\d+)?\.(svg|png|graphml|dot|json)"),
}


def is_result(folder: Path) -> bool:
    """Return whether whence made the folder."""
    try:
        found = json.loads((folder / RESULT).read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(found, dict) and {"schema", "whence"} <= found.keys()


def check(folder: str | os.PathLike[str]) -> None:
    """Refuse a folder that must not or cannot be written, before any work is done for it.

    Raises
    ------
    OutputError
        It is a file, holds what whence did not make, or cannot be written.
    """
    with _clear_errors(folder):
        target = Path(folder).resolve()
        home = _nearest_existing(target.parent)
        if target.exists() and not target.is_dir():
            raise OutputError(f"{str(folder)!r} is a file: give a new or an empty folder")
        if not home.is_dir():
            raise OutputError(f"{str(folder)!r} cannot be made, because {str(home)!r} is a file: give another folder")
        if target.is_dir() and any(target.iterdir()) and not is_result(target):
            raise OutputError(
                f"{str(folder)!r} is not empty and was not made by whence: give a new or an empty folder"
            )
        for name in _OURS:
            if (target / name).is_file():
                raise OutputError(f"{str(folder)!r} holds a file {name!r}, where a folder of that name goes: move it")
        # Its replacement would leave this process in a folder without a name.
        if Path.cwd().is_relative_to(target):
            raise OutputError(f"{str(folder)!r} is the current folder or holds it: give a folder inside")
        if not os.access(home, os.W_OK | os.X_OK):
            raise OutputError(f"{str(home)!r} may not be written by this user: give a folder elsewhere")


@contextmanager
def replacing(folder: str | os.PathLike[str]) -> Iterator[Path]:
    """Give an empty folder to be filled, which takes the place of ``folder`` when all went well.

    Whatever is raised inside, Ctrl-C included, ``folder`` stays as it was and nothing else is left behind. Files in
    it that whence never writes are kept.

    Raises
    ------
    OutputError
        As ``check``, and where writing fails.
    """
    check(folder)
    target = Path(folder).resolve()
    built = _nearest_existing(target.parent) / f".{target.name}.{token_hex(4)}"
    old = built.with_name(built.name + ".old")
    with _clear_errors(folder):
        try:
            built.mkdir()
            yield built
            target.parent.mkdir(parents=True, exist_ok=True)
            _swap(built, target, old)
        finally:
            shutil.rmtree(built, ignore_errors=True)
            _discard(old, target)


def _swap(built: Path, target: Path, old: Path) -> None:
    try:
        if target.exists():
            target.rename(old)
        built.rename(target)
    except BaseException:
        if old.exists() and not target.exists():
            old.rename(target)
        raise


def _discard(old: Path, target: Path) -> None:
    """Delete what whence had written before; hand the rest on."""
    if not old.exists():
        return
    for entry in old.iterdir():
        if entry.name not in (RESULT, REPORT, MAPS, *_OURS):
            entry.rename(target / entry.name)
    for folder, ours in _OURS.items():
        for entry in (old / folder).glob("*"):
            if not ours.fullmatch(entry.name):
                (target / folder).mkdir(exist_ok=True)
                entry.rename(target / folder / entry.name)
    shutil.rmtree(old, ignore_errors=True)


def _nearest_existing(folder: Path) -> Path:
    return next(place for place in (folder, *folder.parents) if place.exists())


@contextmanager
def _clear_errors(folder: str | os.PathLike[str]) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        said = error.strerror or str(error)
        raise OutputError(f"{os.fspath(folder)!r} cannot be written ({said}): give another folder") from error
