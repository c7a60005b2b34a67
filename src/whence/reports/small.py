"""How a map came about, in small: the channels that weigh most in it, and the layers that were explained."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

import numpy as np
from jaxtyping import Float, Float32, UInt8

from whence.reports.colours import Scale, scale_of
from whence.reports.contents import ExplanationRow
from whence.reports.images import shrunk
from whence.reports.names import channels_name, layer_name, map_name
from whence.reports.overlay import OPACITY, on_grid

# The longest side of a small map, in pixels.
_SIDE = 144
# Of more layers than these, as many are drawn, evenly spread from the first to the last.
MOST_LAYERS = 9


@dataclass(frozen=True)
class Small:
    """The maps of one explanation, laid onto what the model saw: all of it, its layers, its largest channels.

    The layers are those of ``drawn_layers``. The channels are drawn times their weights, all on one scale.
    """

    whole: UInt8[np.ndarray, "h w 3"]
    layers: tuple[UInt8[np.ndarray, "h w 3"], ...]
    channels: tuple[UInt8[np.ndarray, "h w 3"], ...]


def drawn_layers(row: ExplanationRow) -> list[int]:
    """Return which of the layers explained are drawn; those without places, or with a single one, never are."""
    shapes = [layer["shape"] for layer in row.get("layers", [])]
    placed = [number for number, shape in enumerate(shapes) if len(shape) > 1 and prod(shape[-2:]) > 1]
    if len(placed) <= MOST_LAYERS:
        return placed
    return [placed[round(i * (len(placed) - 1) / (MOST_LAYERS - 1))] for i in range(MOST_LAYERS)]


def small(
    row: ExplanationRow,
    maps: Mapping[str, Float32[np.ndarray, "..."]],
    seen: UInt8[np.ndarray, "H W 3"],
    scale: Scale,
) -> Small:
    """Draw the maps of one explanation, signed and coloured as its own map on ``scale``."""
    picture, name = shrunk(seen, _SIDE), map_name(row)
    grid = picture.shape[0], picture.shape[1]

    def blended(values: Float[np.ndarray, "h w"], on: Scale) -> UInt8[np.ndarray, "h w 3"]:
        return np.rint(picture * (1 - OPACITY) + on.rgb(values) * OPACITY).astype(np.uint8)

    layers = (on_grid(maps[layer_name(name, n)], row["reduce"], grid) for n in drawn_layers(row))
    each = [
        on_grid(np.float32(channel["weight"]) * values, "sum", grid)
        for channel, values in zip(row.get("channels", []), maps.get(channels_name(name), ()), strict=True)
    ]
    common = Scale("all", max((float(np.abs(values).max()) for values in each), default=0.0), scale.colours)
    return Small(
        blended(on_grid(maps[name], row["reduce"], grid), scale),
        tuple(blended(values, scale_of(values, scale.sign, colours=scale.colours)) for values in layers),
        tuple(blended(values, common) for values in each),
    )
