"""Folders that are there as a whole or not at all."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shutil import rmtree

from whence.errors import OutputError


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """Give a folder to write into, which becomes ``out`` when all went well and is removed when not.

    Raises
    ------
    OutputError
        If ``out`` is a file, or a folder with something in it, or cannot be made.
    """
    _refuse(out)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    except OSError as error:
        raise OutputError(f"cannot write into {out.parent}: {error.strerror}; choose another folder") from error
    try:
        yield draft
        draft.chmod(0o777 & ~_umask())
        _refuse(out)
        if out.exists():
            out.rmdir()
        draft.rename(out)
    finally:
        rmtree(draft, ignore_errors=True)


def _refuse(out: Path) -> None:
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise OutputError(f"{out} is there already and not an empty folder: choose a new one, or remove it first")


def _umask() -> int:
    """Return the user's mask, which a temporary folder is made without."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
