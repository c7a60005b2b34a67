"""Everything that is drawn of one picture, as pixels; pages, folders and notebooks choose from it."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, UInt8

from whence.errors import NotFiniteError, OutputError
from whence.reports.contents import Contents, Drawn, Evidence, ExplanationRow, PictureRow
from whence.reports.images import shrunk
from whence.reports.overlay import Laid, as_seen, lay, on_grid, placed

# The longest side, in pixels, of a picture that is kept in a folder.
LONGEST = 1024
_MAP = re.compile(r"maps\.npz#(\d+/[A-Za-z0-9][A-Za-z0-9_.+-]*(?:~\d+)?)")


@dataclass(frozen=True)
class ExplanationFigures:
    """One explanation: its map laid onto the picture, and the picture with the important share removed and kept."""

    laid: Laid
    evidence: Evidence | None


@dataclass(frozen=True)
class PictureFigures:
    """One picture, what the model saw of it on its input grid, and its explanations."""

    original: UInt8[np.ndarray, "H W 3"]
    seen: UInt8[np.ndarray, "h w 3"]
    explanations: tuple[ExplanationFigures, ...]


def map_name(explanation: ExplanationRow) -> str:
    """Return the name of an explanation's map inside maps.npz, which names its files too.

    Raises
    ------
    OutputError
        It is none: made of an index, the method's name and perhaps a count.
    """
    found = _MAP.fullmatch(explanation["map"])
    if found is None:
        raise OutputError(f"the result is damaged: {explanation['map'][:80]!r} names no map, as maps.npz#0/cam does")
    return found[1]


def map_of(contents: Contents, explanation: ExplanationRow) -> Float32[np.ndarray, "..."]:
    """Return an explanation's raw map.

    Raises
    ------
    OutputError
        It is missing, or no map.
    NotFiniteError
        It holds NaN or infinity.
    """
    name = map_name(explanation)
    values = contents.maps.get(name)
    if values is None or list(values.shape) != explanation["shape"] or values.ndim not in (2, 3):
        found = "missing" if values is None else f"of shape {list(values.shape)}, not {explanation['shape']}"
        raise OutputError(f"the map {name!r} is {found}: explain the picture again")
    if not np.isfinite(values).all():
        raise NotFiniteError(f"the map {name!r} holds NaN or infinity: explain the picture again")
    return np.asarray(values, np.float32)


def figures(contents: Contents) -> Iterator[PictureFigures | None]:
    """Draw picture by picture, so that only one is held at a time; None for a picture with an error.

    Raises
    ------
    OutputError
        A map or a picture's pixels are missing.
    NotFiniteError
        A map holds NaN or infinity.
    """
    for index, (row, drawn) in enumerate(zip(contents.result["pictures"], contents.drawn, strict=True)):
        if row["status"] != "ok":
            yield None
        elif drawn is None or len(drawn.evidence) != len(row["explanations"]):
            raise OutputError(f"the pixels of picture {index} are missing: explain it again")
        else:
            yield _drawn(contents, row, drawn)


def _drawn(contents: Contents, row: PictureRow, drawn: Drawn) -> PictureFigures:
    original = shrunk(drawn.original, LONGEST)
    place = placed(row["geometry"], (original.shape[0], original.shape[1]))
    explained = []
    for explanation, evidence in zip(row["explanations"], drawn.evidence, strict=True):
        heat = on_grid(map_of(contents, explanation), explanation["reduce"], place.grid)
        explained.append(ExplanationFigures(lay(original, heat, explanation["show"], place), evidence))
    return PictureFigures(original, as_seen(original, place), tuple(explained))
