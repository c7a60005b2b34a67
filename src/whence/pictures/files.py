"""Which files of a folder are pictures, told by their names alone."""

import os
from pathlib import Path
from typing import NoReturn

from whence.errors import PictureError

_SUFFIXES = frozenset(
    f".{name}"
    for name in (
        *("png", "jpg", "jpeg", "jfif", "gif", "tif", "tiff", "bmp", "webp", "avif", "heic", "heif", "jxl"),
        *("jp2", "j2k", "ppm", "pgm", "pbm", "pnm"),
    )
)


def is_picture(path: Path) -> bool:
    """Return whether a file in a folder is one of its pictures, by its name."""
    return _named(path.name) and path.is_file()


def _named(name: str) -> bool:
    return name[0] != "." and os.path.splitext(name)[1].lower() in _SUFFIXES


def names_below(folder: Path) -> list[str]:
    """Return the names of the pictures in a folder and in the folders in it, in order, as ``folder/name.png``.

    What is hidden, with a name that begins with a dot, is left out, and so is a link to a folder that it lies in.

    Raises
    ------
    PictureError
        One of the folders cannot be read.
    """
    found: list[str] = []
    for place, folders, files in os.walk(folder, onerror=_refuse, followlinks=True):
        folders[:] = [name for name in folders if name[0] != "." and not _leads_back(Path(place, name))]
        below = os.path.relpath(place, folder)
        start = "" if below == "." else below.replace(os.sep, "/") + "/"
        found += [start + name for name in files if _named(name)]
    return sorted(found)


def names_in(folder: Path) -> list[str]:
    """Return the names of the pictures in a folder itself, in order; raises as ``names_below``."""
    try:
        with os.scandir(folder) as entries:
            return sorted(entry.name for entry in entries if _named(entry.name) and entry.is_file())
    except OSError as error:
        _refuse(error)


def _refuse(error: OSError) -> NoReturn:
    raise PictureError(f"{error.filename!r} cannot be read ({error.strerror}): change its permissions") from error


def _leads_back(folder: Path) -> bool:
    return folder.is_symlink() and folder.resolve() in folder.parent.resolve().joinpath("_").parents


def pictures_in(folder: Path) -> list[Path]:
    """Return the pictures of a folder in the order of their names; those of its folders are not looked at.

    Raises
    ------
    PictureError
        It holds none.
    """
    inside = [folder / name for name in names_in(folder)]
    if not inside:
        raise PictureError(f"the folder {folder} holds no picture: name one that does, or the files themselves")
    return inside
