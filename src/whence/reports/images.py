"""Pixels to image files in memory, as small as they may be, and on to ``data:`` addresses."""

import base64
from dataclasses import dataclass
from io import BytesIO
from typing import Literal

import numpy as np
from jaxtyping import UInt8
from PIL import Image

Kind = Literal["png", "webp"]


@dataclass(frozen=True)
class Encoded:
    """An image file's bytes, and the (height, width) of its pixels."""

    data: bytes
    kind: Kind
    size: tuple[int, int]

    @property
    def address(self) -> str:
        """Return the whole image as a ``data:`` address."""
        return f"data:image/{self.kind};base64,{base64.b64encode(self.data).decode('ascii')}"


def shrunk(pixels: UInt8[np.ndarray, "H W c"], side: int) -> UInt8[np.ndarray, "h w c"]:
    """Return the picture with no side longer than ``side`` pixels; a smaller one is left as it is."""
    height, width = pixels.shape[:2]
    factor = side / max(height, width)
    if factor >= 1:
        return pixels
    return resized(pixels, (max(1, round(height * factor)), max(1, round(width * factor))))


def resized(pixels: UInt8[np.ndarray, "H W c"], size: tuple[int, int]) -> UInt8[np.ndarray, "h w c"]:
    """Return the picture at ``size`` = (height, width)."""
    return np.asarray(Image.fromarray(pixels).resize(size[::-1], Image.Resampling.LANCZOS))


def png(pixels: UInt8[np.ndarray, "H W c"]) -> Encoded:
    """Return the pixels without loss."""
    return png_of(Image.fromarray(pixels))


def png_of(image: Image.Image) -> Encoded:
    """Return an image of Pillow's without loss."""
    return _encoded(image, "png")


def exact(pixels: UInt8[np.ndarray, "H W c"]) -> Encoded:
    """Return the pixels without loss, smaller than PNG; for heat maps, whose colours are read as numbers."""
    return _encoded(Image.fromarray(pixels), "webp", lossless=True, quality=50, method=3)


def photo(pixels: UInt8[np.ndarray, "H W c"], quality: int = 75) -> Encoded:
    """Return the pixels as a photograph, with the loss that ``quality`` of 100 allows."""
    return _encoded(Image.fromarray(pixels), "webp", quality=quality, method=4)


def _encoded(image: Image.Image, kind: Kind, **options: bool | int) -> Encoded:
    buffer = BytesIO()
    image.save(buffer, kind.upper(), **options)
    return Encoded(buffer.getvalue(), kind, (image.height, image.width))
