"""Everything that is drawn of one picture, as pixels; pages, folders and notebooks choose from it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, UInt8

from whence.errors import NotFiniteError, OutputError
from whence.reports.contents import Contents, Drawn, Evidence, ExplanationRow, PictureRow, Seen
from whence.reports.images import shrunk
from whence.reports.look import Look
from whence.reports.names import channels_name, layer_name, map_name, part_name
from whence.reports.overlay import Laid, cut_to_input, lay, on_grid, placed
from whence.reports.small import Small, small

# The longest side, in pixels, of a picture that is kept in a folder.
LONGEST = 1024


@dataclass(frozen=True)
class ExplanationFigures:
    """One explanation: its map laid onto the picture, and the picture with the important share removed and kept.

    ``graph`` holds the two pictures that what the model saw of its graph's sets is mixed of.
    """

    laid: Laid
    evidence: Evidence | None
    small: Small
    graph: Seen | None = None


@dataclass(frozen=True)
class PictureFigures:
    """One picture, what the model saw of it on its input grid, and its explanations."""

    original: UInt8[np.ndarray, "H W 3"]
    seen: UInt8[np.ndarray, "h w 3"]
    explanations: tuple[ExplanationFigures, ...]


def maps_of(contents: Contents, explanation: ExplanationRow) -> dict[str, Float32[np.ndarray, "..."]]:
    """Return all raw maps of an explanation by their names: its own, those of its layers, parts and channels.

    Raises
    ------
    OutputError
        One is missing, or no map.
    NotFiniteError
        One holds NaN or infinity.
    """
    name = map_name(explanation)
    shapes = {name: explanation["shape"]}
    shapes |= {layer_name(name, number): row["shape"] for number, row in enumerate(explanation.get("layers", []))}
    if channels := explanation.get("channels"):
        stored = contents.maps.get(channels_name(name), np.zeros((0, 0)))
        shapes[channels_name(name)] = [len(channels), *stored.shape[-2:]]
    for part in explanation.get("parts", []):
        shapes[part_name(name, part)] = list(contents.maps.get(part_name(name, part), np.zeros(0)).shape)
    return {name: _map(contents, name, shape) for name, shape in shapes.items()}


def _map(contents: Contents, name: str, shape: Sequence[int]) -> Float32[np.ndarray, "..."]:
    values = contents.maps.get(name)
    if values is None or list(values.shape) != list(shape) or values.ndim not in (1, 2, 3):
        found = "missing" if values is None else f"of shape {list(values.shape)}, not {list(shape)}"
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
    OptionError, MissingExtraError
        The maps cannot be drawn in the look that the result states.
    """
    look = Look.of(contents.result)
    for index, (row, drawn) in enumerate(zip(contents.result["pictures"], contents.drawn, strict=True)):
        if row["status"] != "ok":
            yield None
        elif drawn is None or len(drawn.evidence) != len(row["explanations"]):
            raise OutputError(f"the pixels of picture {index} are missing: explain it again")
        else:
            yield _drawn(contents, row, drawn, look)


def _drawn(contents: Contents, row: PictureRow, drawn: Drawn, look: Look) -> PictureFigures:
    original = shrunk(drawn.original, LONGEST)
    place = placed(row["geometry"], (original.shape[0], original.shape[1]))
    seen = cut_to_input(original, place)
    explained = []
    graphs = drawn.graphs or (None,) * len(drawn.evidence)
    for explanation, evidence, graph in zip(row["explanations"], drawn.evidence, graphs, strict=True):
        maps = maps_of(contents, explanation)
        style = explanation.get("style", "centred")
        heat = on_grid(maps[map_name(explanation)], explanation["reduce"], place.grid, style)
        sign = look.sign_for(explanation["show"], explanation["reduce"])
        laid = lay(original, heat, sign, place, look)
        explained.append(ExplanationFigures(laid, evidence, small(explanation, maps, seen, laid.scale), graph))
    return PictureFigures(original, seen, tuple(explained))
