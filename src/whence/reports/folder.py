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
from whence.graphs.graph import AttentionGraph
from whence.pictures.read import read as read_picture
from whence.reports import graph_figure, words
from whence.reports.contents import Contents, Drawn, Evidence, ExplanationRow, PictureRow, Result, Seen, checked
from whence.reports.figures import PictureFigures, figures, maps_of
from whence.reports.images import Encoded, png
from whence.reports.look import Look, looked
from whence.reports.names import map_name
from whence.reports.page import inline, is_large, page
from whence.reports.swap import GRAPHS, MAPS, PICTURES, REPORT, RESULT, check, is_result, replacing
from whence.reports.views import picture_view

__all__ = ["check", "read", "redraw", "write"]


def write(contents: Contents, folder: str | os.PathLike[str]) -> Result:
    """Write report.html, result.json, maps.npz and pictures/, all or nothing; return the result as written.

    Where there is an attention graph, graphs/ holds its figure as SVG and PNG, and itself as GraphML, DOT and JSON.
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
        for name, data in _graphs(row, drawn):
            (built / GRAPHS).mkdir(exist_ok=True)
            (built / GRAPHS / name).write_bytes(data)
        views.append(picture_view(index, row, drawn, keep))
    (built / REPORT).write_text(page(result, views, beside=beside), "utf-8")


def _strict_json(result: Mapping[str, object]) -> str:
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
        if shown.graph is not None:
            yield from zip(_seen_names(explanation), shown.graph, strict=True)


def _graphs(row: PictureRow, drawn: PictureFigures | None) -> Iterator[tuple[str, bytes]]:
    """Yield the files of attention graphs with their names; figures only where their pictures are kept."""
    if drawn is None:
        return
    for explanation, shown in zip(row["explanations"], drawn.explanations, strict=True):
        graph, target, stem = explanation["graph"], explanation["target"], _stem(explanation)
        if graph is None:
            continue
        if shown.graph is not None:
            label = words.labelled(target)
            yield f"{stem}.svg", graph_figure.svg(graph, *shown.graph, label).encode("utf-8")
            yield f"{stem}.png", graph_figure.png(graph, *shown.graph, label)
        whole = AttentionGraph.from_json(graph)
        yield f"{stem}.graphml", whole.to_graphml().encode("utf-8")
        yield f"{stem}.dot", whole.to_dot().encode("utf-8")
        yield f"{stem}.json", _strict_json(graph).encode("utf-8")


def _original(index: int) -> str:
    return f"{index}-original.png"


def _stem(explanation: ExplanationRow) -> str:
    return map_name(explanation).replace("/", "-")


def _names(explanation: ExplanationRow) -> tuple[str, str, str]:
    stem = _stem(explanation)
    return f"{stem}-overlay.png", f"{stem}-removed.png", f"{stem}-kept.png"


def _seen_names(explanation: ExplanationRow) -> tuple[str, str]:
    stem = _stem(explanation)
    return f"{stem}-seen.png", f"{stem}-base.png"


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
    rows = row["explanations"]
    evidence = tuple(_read_pair(home, _names(explanation)[1:]) for explanation in rows)
    graphs = tuple(_read_graph(home, explanation) for explanation in rows) if any(r["graph"] for r in rows) else ()
    return Drawn(_pixels(home / _original(index)), evidence, graphs)


def _read_pair(home: Path, names: tuple[str, str]) -> Evidence | None:
    """Return two pictures, None where one is not kept."""
    first, second = (home / name for name in names)
    return (_pixels(first), _pixels(second)) if first.exists() and second.exists() else None


def _read_graph(home: Path, explanation: ExplanationRow) -> Seen | None:
    """Return the two pictures of an explanation's graph, which they have to fit."""
    if explanation["graph"] is None:
        return None
    pair = _read_pair(home, _seen_names(explanation))
    AttentionGraph.from_json(explanation["graph"], *(pair or ()))
    return pair


def _pixels(path: Path) -> UInt8[np.ndarray, "H W 3"]:
    return read_picture(path).rgb8()
