"""Where in a picture a filter is active, drawn on it."""

import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image

from whence.reports.images import resized

# Around the place where a filter is active, and how much of the picture's brightness the rest keeps.
_LINE = np.array([255, 216, 77], np.uint8)
_DIMMED = 0.45


def outlined(
    pixels: UInt8[np.ndarray, "h w 3"], field: Bool[np.ndarray, "h w"], side: int
) -> UInt8[np.ndarray, "H W 3"]:
    """Return the picture with its longer side of ``side`` pixels, the ``field`` outlined and the rest dimmed."""
    height, width = pixels.shape[:2]
    factor = side / max(height, width)
    size = max(1, round(height * factor)), max(1, round(width * factor))
    picture, inside = resized(pixels, size), _enlarged(field, size)
    dimmed = np.where(inside[..., None], picture, np.rint(picture * _DIMMED)).astype(np.uint8)
    return np.where((inside & ~_eroded(inside))[..., None], _LINE, dimmed)


def _enlarged(field: Bool[np.ndarray, "h w"], size: tuple[int, int]) -> Bool[np.ndarray, "H W"]:
    """Return a field at another size, its edges smooth."""
    grey = Image.fromarray(field.astype(np.uint8) * 255).resize(size[::-1], Image.Resampling.BILINEAR)
    return np.asarray(grey) >= 128


def _eroded(inside: Bool[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """Return the places whose eight neighbours all lie inside; what is beyond the picture counts as inside."""
    wide = np.pad(inside, 1, constant_values=True)
    windows = np.lib.stride_tricks.sliding_window_view(wide, (3, 3))
    return np.asarray(windows.all((2, 3)))
