"""All pictures of a study on pages that can be leafed through, written only where they are asked for."""

import re
import shutil
from collections.abc import Iterator, Mapping
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from whence.errors import OutputError, WhenceError
from whence.reports.study_page import Entry, Sheet, Shot, sheet
from whence.studies import parts
from whence.studies.study import Study
from whence.studies.tables import MAP, METHOD_OK
from whence.studies.thumbnails import drawn, said

FOLDER = "gallery"
_PICTURES = 100
_OURS = re.compile(r"\d{5}(\.html)?")
_QUALITY = 80
FIRST = f"{FOLDER}/00001.html"

Row = tuple[Mapping[str, Any], Tensor | None]
"""A row with its map [C, h, w]."""


def write_gallery(study: Study, home: str) -> None:
    """Write pages of 100 pictures each, whose images lie beside them; ``home`` is the study's page.

    Raises
    ------
    OutputError
        The folder holds what whence did not make, a part is damaged, or the pages cannot be written.
    """
    target, built = study.folder / FOLDER, study.folder / f".{FOLDER}"
    if target.exists() and not (target.is_dir() and all(_OURS.fullmatch(path.name) for path in target.iterdir())):
        raise OutputError(f"{target} holds what whence did not make: move it away, the gallery goes there")
    try:
        shutil.rmtree(built, ignore_errors=True)
        built.mkdir()
        _fill(study, built, home)
        shutil.rmtree(target, ignore_errors=True)
        built.rename(target)
    except OSError as error:
        raise parts.unwritten(study.folder, error) from error
    finally:
        shutil.rmtree(built, ignore_errors=True)


def _fill(study: Study, built: Path, home: str) -> None:
    """Write page after page, of which one is held at a time."""
    explained = len(study.table(columns=["number"])) // len(study.job.cells)
    count = -(-explained // _PICTURES)
    for page, entries in groupby(enumerate(_entries(study, built)), key=lambda pair: pair[0] // _PICTURES + 1):
        made = Sheet(
            name=study.job.root.name,
            number=page,
            count=count,
            entries=[entry for _, entry in entries],
            pages=list(_others(page, count)),
            home=f"../{home}",
        )
        (built / _page(page)).write_text(sheet(made), "utf-8")


def _others(page: int, count: int) -> Iterator[tuple[str, str]]:
    """Yield the pages that a page leads to."""
    for name, other in (("First", 1), ("Previous", page - 1), ("Next", page + 1), ("Last", count)):
        if 1 <= other <= count and other != page:
            yield name, _page(other)


def _page(number: int) -> str:
    return f"{number:05d}.html"


def _entries(study: Study, built: Path) -> Iterator[Entry]:
    """Yield the pictures in order, and write their images."""
    by_picture = groupby(_rows(study), key=lambda row: row[0]["number"])
    for place, (number, rows) in enumerate(by_picture):
        folder = built / f"{place // _PICTURES + 1:05d}"
        folder.mkdir(exist_ok=True)
        yield _entry(study, number, list(rows), folder)


def _rows(study: Study) -> Iterator[Row]:
    """Yield the rows with their maps."""
    for table in study.batches(maps=True):
        plain = [name for name in table.column_names if not name.startswith(MAP)]
        maps: list[Tensor | None] = [None] * len(table)
        for name in table.column_names[len(plain) :]:
            for place, values in _maps(table[name]):
                maps[place] = values
        yield from zip(table.select(plain).to_pylist(), maps, strict=True)


def _maps(column: pa.ChunkedArray) -> Iterator[tuple[int, Float[Tensor, "c h w"]]]:
    """Yield the maps of a column with their places."""
    shape = column.type.shape
    for place, one in enumerate(column.cast(column.type.storage_type)):
        if one.is_valid:
            yield place, torch.tensor(np.asarray(one.values)).float().reshape(*shape)


def _entry(study: Study, number: int, rows: list[Row], folder: Path) -> Entry:
    """Return what is shown of a picture; what cannot be shown is told once."""
    shots: list[Shot] = []
    lines: dict[str, None] = {}
    missing: dict[str, list[str]] = {}
    for place, (row, values) in enumerate(rows):
        about = f"{row['model']}, {row['method']}"
        if row["status"] != METHOD_OK:
            missing.setdefault(row["error"], []).append(about)
            continue
        truth = f"; it is {row['truth']}" if row["truth"] else ""
        lines[f"{row['model']}: {said({**row, 'correct': None})}{truth}"] = None
        grid = study.job.models[study.job.cells[place].model].input[1:]
        try:
            pixels = drawn(study.picture(number), values, row, grid)
        except WhenceError as error:
            missing.setdefault(str(error), []).append(about)
            continue
        file = folder / f"{number:07d}-{place}.jpg"
        Image.fromarray(pixels).save(file, "JPEG", quality=_QUALITY)
        address = f"{folder.name}/{file.name}"
        shots.append(Shot(address, (pixels.shape[0], pixels.shape[1]), about))
    reasons = [error if len(of) == len(rows) else f"{'; '.join(of)}: {error}" for error, of in missing.items()]
    return Entry(study.job.pictures[number].name, list(lines), shots, reasons)
