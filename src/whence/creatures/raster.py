"""From polygons to pixels: how much of each pixel a shape covers."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float
from PIL import Image, ImageDraw

from whence.creatures.shapes import Polygon, Shape

Canvas = Float[np.ndarray, "h w 3"]
Coverage = Float[np.ndarray, "h w"]

# Polygons are drawn this many times larger and averaged, for smooth edges.
_FINER = 2
# The rim around every part, as a share of the picture's side: about one pixel in 64.
_RIM = 1 / 64


@dataclass(frozen=True)
class Stencil:
    """Which share of each pixel a part covers: ``inner`` without its rim, ``whole`` with it."""

    inner: Coverage
    whole: Coverage

    def paint(self, canvas: Canvas, inner: Float[np.ndarray, "..."], rim: Float[np.ndarray, "3"]) -> Canvas:
        """Return the canvas with the part painted over it, in a colour [3] or in one for each pixel [h, w, 3]."""
        inside, covered = self.inner[..., None], self.whole[..., None]
        painted: Canvas = canvas * (1 - covered) + rim * (covered - inside) + inner * inside
        return painted

    @cached_property
    def centroid(self) -> tuple[float, float]:
        """Return the (x, y) of the part's middle, in pixels."""
        places, total = np.arange(len(self.whole)), self.whole.sum()
        return float(self.whole.sum(axis=0) @ places / total), float(self.whole.sum(axis=1) @ places / total)


def stencil(shape: Shape, size: int) -> Stencil:
    """Rasterise a shape given in pixels on a square picture of ``size`` pixels."""
    # Two channels of one picture, since that is drawn and averaged in one go; the third stays empty.
    image = Image.new("RGB", (size * _FINER, size * _FINER))
    pen = ImageDraw.Draw(image)
    outlines = [_finer(polygon) for polygon in shape]
    for outline in outlines:
        pen.line([*outline, *outline[:2]], fill=(0, 255, 0), width=round(2 * _RIM * size * _FINER))
    for outline in outlines:
        pen.polygon(outline, fill=(255, 255, 0))
    covered = np.asarray(image.reduce(_FINER), dtype=np.float32) / 255
    return Stencil(inner=covered[..., 0], whole=covered[..., 1])


def _finer(polygon: Polygon) -> list[float]:
    """Return the corners in the finer pixels, flat as Pillow takes them; both count from a pixel's middle."""
    corners: list[float] = ((polygon + 0.5) * _FINER - 0.5).ravel().tolist()
    return corners
