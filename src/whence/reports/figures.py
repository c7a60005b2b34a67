"""Everything that is drawn of one picture, as pixels; pages, folders and notebooks choose from it."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8

from whence.errors import OutputError
from whence.reports.contents import Contents, Drawn, Evidence, ExplanationRow, PictureRow
from whence.reports.images import shrunk
from whence.reports.overlay import Laid, as_seen, lay, on_grid, placed

# The longest side, in pixels, of a picture that is kept in a folder.
LONGEST = 1024
_ADDRESS = "maps.npz#"


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
    """Return the name of an explanation's map inside maps.npz."""
    return explanation["map"].removeprefix(_ADDRESS)


def figures(contents: Contents) -> Iterator[PictureFigures | None]:
    """Draw picture by picture, so that only one is held at a time; None for a picture with an error.

    Raises
    ------
    OutputError
        A map or a picture's pixels are missing.
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
        name = map_name(explanation)
        if name not in contents.maps:
            raise OutputError(f"the map {name!r} is missing from maps.npz: explain the picture again")
        heat = on_grid(contents.maps[name], explanation["reduce"], place.grid)
        explained.append(ExplanationFigures(lay(original, heat, explanation["show"], place), evidence))
    return PictureFigures(original, as_seen(original, place), tuple(explained))
