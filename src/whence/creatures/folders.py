"""Folders that are there as a whole or not at all."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from secrets import token_hex
from shutil import rmtree

from whence.errors import OutputError


def check_new(out: Path) -> None:
    """Refuse what cannot become a new folder, before the work that would fill it.

    Raises
    ------
    OutputError
        If ``out`` is a file, or a folder with something in it.
    """
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise OutputError(f"{out} is there already and no empty folder: choose a new one, or remove it first")


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """Give a folder to write into, which becomes ``out`` when all went well and is removed when not.

    Raises
    ------
    OutputError
        If ``out`` is a file, or a folder with something in it, or cannot be made.
    """
    check_new(out)
    draft = out.parent / f".{out.name}-{token_hex(4)}"
    try:
        draft.mkdir(parents=True)
    except OSError as error:
        raise OutputError(f"cannot write into {out.parent} ({error.strerror}): choose another folder") from error
    try:
        yield draft
        if out.exists():
            out.rmdir()
        draft.rename(out)
    finally:
        rmtree(draft, ignore_errors=True)
