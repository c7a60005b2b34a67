"""A map laid onto the picture's own pixels, with the margin that the model did not see shown as such."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, UInt8

from whence.errors import OutputError
from whence.graphs.patches import Style
from whence.pictures.preprocess import Geometry
from whence.reports.colours import Scale, Sign, scale_of, table
from whence.reports.contents import GeometryRow
from whence.reports.images import resized
from whence.reports.look import DEFAULT, Look
from whence.results import Reduce, spread

# How much of the picture the heat map covers where nobody moves the slider.
OPACITY = 0.6
# The unseen margin keeps this share of its brightness, on and between the hatching's lines.
_HATCHED, _DIMMED = 0.5, 0.32


@dataclass(frozen=True)
class Laid:
    """One map, drawn.

    ``heat`` lies on the model's input grid. All others lie on the picture: ``base``, the picture with its unseen
    margin hatched; ``layer``, the heat map above it, transparent where the model saw nothing; and each value's
    ``strength``, its place on the scale.
    """

    look: Look
    scale: Scale
    heat: UInt8[np.ndarray, "h w 3"]
    original: UInt8[np.ndarray, "H W 3"]
    base: UInt8[np.ndarray, "H W 3"]
    layer: UInt8[np.ndarray, "H W 4"]
    strength: Float[np.ndarray, "H W"]

    @property
    def whole(self) -> bool:
        """Return whether the model saw the whole picture."""
        return bool((self.layer[..., 3] > 0).all())

    def blended(self, opacity: float = OPACITY) -> UInt8[np.ndarray, "H W 3"]:
        """Return the picture under its heat map."""
        alpha = self.layer[..., 3:] / 255 * opacity
        return np.rint(self.base * (1 - alpha) + self.layer[..., :3] * alpha).astype(np.uint8)

    def drawn(self) -> UInt8[np.ndarray, "H W 3"]:
        """Return the picture and its map, as the look shows them."""
        mode = self.look.mode
        if mode == "original":
            return self.original
        if mode in ("blended", "heat-map"):
            return self.blended(OPACITY if mode == "blended" else 1.0)
        share = self.strength[..., None]
        if mode == "masked":
            shown = self.original * share
        else:
            # Eight bits of transparency, over white.
            alpha = np.floor(share * 255) / 255
            shown = np.rint(self.original * alpha + 255 * (1 - alpha))
        return np.where(self.layer[..., 3:] > 0, shown.astype(np.uint8), self.base)


def placed(row: GeometryRow | None, shown: tuple[int, int]) -> Geometry:
    """Return the geometry of the picture as it is shown, of (H, W) = ``shown`` pixels.

    Without a row, the picture shown is what the model saw.
    """
    if row is None:
        return Geometry(shown, shown, (0.0, 0.0, float(shown[0]), float(shown[1])))
    height, width = row["picture"]
    top, left, bottom, right = map(float, row["box"])
    if top == bottom or left == right:
        raise OutputError(f"the result is damaged: the box {row['box']} of a picture's geometry has no area")
    ky, kx = shown[0] / height, shown[1] / width
    return Geometry(shown, (row["grid"][0], row["grid"][1]), (top * ky, left * kx, bottom * ky, right * kx))


def on_grid(
    values: Float32[np.ndarray, "..."], how: Reduce, grid: tuple[int, int], style: Style = "centred"
) -> Float[np.ndarray, "h w"]:
    """Return a raw map [h, w] or [C, h, w] as one signed map on the model's input grid, stretched in a style.

    Values without places, [C], are the same everywhere.
    """
    places = values.shape[-2:] if values.ndim > 1 else ()
    native = torch.from_numpy(np.array(values, np.float32)).reshape(1, -1, *places)
    return spread(native, how, grid, style)[0].numpy()


def lay(
    original: UInt8[np.ndarray, "H W 3"],
    heat: Float[np.ndarray, "h w"],
    sign: Sign,
    place: Geometry,
    look: Look = DEFAULT,
) -> Laid:
    """Lay a map on the model's input grid onto the picture; ``place`` is the geometry at the picture's size."""
    scale = scale_of(heat, sign, look.outlier_perc, look.colours)
    seen = place.seen.numpy()
    wide = place.to_picture(torch.from_numpy(heat)).numpy()
    layer = np.dstack([scale.rgb(wide), np.where(seen, 255, 0).astype(np.uint8)])
    return Laid(look, scale, scale.rgb(heat), original, hatched(original, ~seen), layer, scale.unit(wide))


def hatched(pixels: UInt8[np.ndarray, "H W 3"], where: Bool[np.ndarray, "H W"]) -> UInt8[np.ndarray, "H W 3"]:
    """Return the picture dimmed and hatched in the places ``where``."""
    if not where.any():
        return pixels
    height, width = where.shape
    period = max(6, max(height, width) // 50)
    lines = np.add.outer(np.arange(height), np.arange(width)) % period < period / 3
    bright = np.where(lines, _HATCHED, _DIMMED)[..., None]
    grey = pixels.mean(axis=2, keepdims=True)
    return np.where(where[..., None], 64 + grey * bright, pixels).astype(np.uint8)


def cut_to_input(original: UInt8[np.ndarray, "H W 3"], place: Geometry) -> UInt8[np.ndarray, "h w 3"]:
    """Return what the model saw of the picture, on its input grid; black where it saw padding."""
    (height, width), (top, left, bottom, right) = place.grid, place.box
    ky, kx = height / abs(bottom - top), width / abs(right - left)
    fine = resized(original, (max(1, round(place.picture[0] * ky)), max(1, round(place.picture[1] * kx))))
    rows = np.floor(top * ky + np.sign(bottom - top) * (np.arange(height) + 0.5)).astype(int)
    columns = np.floor(left * kx + np.sign(right - left) * (np.arange(width) + 0.5)).astype(int)
    inside = np.logical_and.outer(_within(rows, fine.shape[0]), _within(columns, fine.shape[1]))
    found = fine[rows.clip(0, fine.shape[0] - 1)[:, None], columns.clip(0, fine.shape[1] - 1)]
    return np.where(inside[..., None], found, 0).astype(np.uint8)


def _within(places: np.ndarray, length: int) -> Bool[np.ndarray, " n"]:
    return np.asarray((places >= 0) & (places < length))


def colour_bar(scale: Scale, height: int = 1) -> UInt8[np.ndarray, "h 256 3"]:
    """Return the scale's colours from left to right."""
    return np.repeat(table(scale.sign, scale.colours)[None], height, axis=0)
