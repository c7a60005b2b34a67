"""A report as a folder: the page, the result, the raw maps and the pictures; and back."""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Float32, UInt8

from whence.errors import NotFiniteError, OutputError, WhenceError
from whence.pictures.read import read as read_picture
from whence.reports.contents import Contents, Drawn, ExplanationRow, PictureRow, Result, checked
from whence.reports.figures import PictureFigures, figures, maps_of
from whence.reports.images import Encoded, png
from whence.reports.look import Look, looked
from whence.reports.names import map_name
from whence.reports.page import inline, is_large, page
from whence.reports.swap import MAPS, PICTURES, REPORT, RESULT, check, is_result, replacing
from whence.reports.views import picture_view

__all__ = ["check", "read", "redraw", "write"]


def write(contents: Contents, folder: str | os.PathLike[str]) -> Result:
    """Write report.html, result.json, maps.npz and pictures/, all or nothing; return the result as written.

    A folder that whence made before is replaced. The names of all files come from indices and method names. The
    result's ``report`` is the path of report.html.

    Raises
    ------
    OutputError
        The folder is a file, holds what whence did not make, or cannot be written; or the contents do not fit
        together.
    NotFiniteError
        The contents hold NaN or infinity.
    """
    result = checked({**contents.result, "report": str(Path(folder) / REPORT)})
    with replacing(folder) as built:
        _fill(replace(contents, result=result), built)
    return result


def read(folder: str | os.PathLike[str]) -> Contents:
    """Return what a folder was written from, with the pictures at the size at which they were kept.

    Raises
    ------
    OutputError
        The folder holds no result, or a damaged one.
    PictureError
        One of its pictures is missing or broken.
    """
    home = Path(folder)
    if not is_result(home):
        raise OutputError(f"{str(home)!r} holds no result of whence: give the folder that `whence explain` wrote")
    with _damaged(home):
        result = checked(json.loads((home / RESULT).read_bytes()))
        drawn = tuple(_read_drawn(home / PICTURES, index, row) for index, row in enumerate(result["pictures"]))
        return Contents(result, _read_maps(home / MAPS), drawn)


def redraw(folder: str | os.PathLike[str], look: Look | None = None) -> Result:
    """Write a folder again from its own files, in its own look or another; raises as ``read`` and ``write``."""
    contents = read(folder)
    contents = contents if look is None else looked(contents, look)
    with _damaged(Path(folder)):
        return write(contents, folder)


@contextmanager
def _damaged(home: Path) -> Iterator[None]:
    """Turn whatever a stranger's damaged files lead to into one clear error."""
    try:
        yield
    except WhenceError:
        raise
    except Exception as error:
        raise OutputError(f"{str(home)!r} holds a damaged result ({error}): explain the pictures again") from error


def _fill(contents: Contents, built: Path) -> None:
    """Write everything into an empty folder, one picture at a time."""
    result = contents.result
    (built / PICTURES).mkdir()
    (built / RESULT).write_text(_strict_json(result), "utf-8")
    rows = [row for picture in result["pictures"] for row in picture["explanations"]]
    maps = {name: values for row in rows for name, values in maps_of(contents, row).items()}
    np.savez_compressed(built / MAPS, allow_pickle=False, **maps)
    beside = is_large(result)
    keep = partial(_keep, built) if beside else inline
    views = []
    for index, (row, drawn) in enumerate(zip(result["pictures"], figures(contents), strict=True)):
        for name, pixels in _named(index, row, drawn):
            (built / PICTURES / name).write_bytes(png(pixels).data)
        views.append(picture_view(index, row, drawn, keep))
    (built / REPORT).write_text(page(result, views, beside=beside), "utf-8")


def _strict_json(result: Result) -> str:
    try:
        return json.dumps(result, indent=1, allow_nan=False)
    except ValueError as error:
        raise NotFiniteError(f"the result holds NaN or infinity, which JSON cannot say ({error})") from error


def _named(
    index: int, row: PictureRow, drawn: PictureFigures | None
) -> Iterator[tuple[str, UInt8[np.ndarray, "H W 3"]]]:
    """Yield the pictures that are kept as files for people, with their names."""
    if drawn is None:
        return
    yield _original(index), drawn.original
    for explanation, shown in zip(row["explanations"], drawn.explanations, strict=True):
        overlay, removed, kept = _names(explanation)
        yield overlay, shown.laid.drawn()
        if shown.evidence is not None:
            yield removed, shown.evidence[0]
            yield kept, shown.evidence[1]


def _original(index: int) -> str:
    return f"{index}-original.png"


def _names(explanation: ExplanationRow) -> tuple[str, str, str]:
    stem = map_name(explanation).replace("/", "-")
    return f"{stem}-overlay.png", f"{stem}-removed.png", f"{stem}-kept.png"


def _keep(built: Path, name: str, encoded: Encoded) -> str:
    """Keep an image of a large page beside it."""
    address = f"{PICTURES}/{name}.{encoded.kind}"
    (built / address).write_bytes(encoded.data)
    return address


def _read_maps(path: Path) -> Mapping[str, Float32[np.ndarray, "..."]]:
    with np.load(path, allow_pickle=False) as stored:
        return {name: np.asarray(stored[name], np.float32) for name in stored.files}


def _read_drawn(home: Path, index: int, row: PictureRow) -> Drawn | None:
    if row["status"] != "ok":
        return None
    evidence = []
    for explanation in row["explanations"]:
        _, removed, kept = (home / name for name in _names(explanation))
        pair = (_pixels(removed), _pixels(kept)) if removed.exists() and kept.exists() else None
        evidence.append(pair)
    return Drawn(_pixels(home / _original(index)), tuple(evidence))


def _pixels(path: Path) -> UInt8[np.ndarray, "H W 3"]:
    return read_picture(path).rgb8()
