"""Sheets of signed maps, for the pages on layer-wise relevance propagation."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from whence.reports.colours import scale_of

SIDE, GAP, LINE, MARGIN = 128, 6, 20, 176
# The largest values, which make up this share of a map's sum in per cent, share the last colour.
OUTLIERS = 3

Pixels = UInt8[np.ndarray, "h w 3"]


def coloured(heat: Float[Tensor, "h w"]) -> Pixels:
    """Return a map as pixels: orange speaks for the class, blue against it."""
    values = heat.detach().numpy()
    return scale_of(values, "all", OUTLIERS).rgb(values)


def ranks_alike(one: Float[Tensor, "h w"], other: Float[Tensor, "h w"]) -> float:
    """Return the rank correlation of two maps' places: 1 for the same order, 0 for none."""
    ranks = torch.stack([heat.flatten().argsort().argsort().double() for heat in (one, other)])
    return float(torch.corrcoef(ranks)[0, 1])


def sheet(columns: Sequence[str], rows: Sequence[tuple[str, Sequence[Pixels]]]) -> Image.Image:
    """Return rows of pictures, each with its name on the left, the columns' names above."""
    step = SIDE + GAP
    canvas = Image.new("RGB", (MARGIN + len(columns) * step, LINE + len(rows) * step), "white")
    pen, font = ImageDraw.Draw(canvas), ImageFont.load_default(12)
    for column, name in enumerate(columns):
        pen.text((MARGIN + column * step, 3), name, fill="#222222", font=font)
    for row, (name, pictures) in enumerate(rows):
        top = LINE + row * step
        pen.text((GAP, top + SIDE // 2), name, fill="#222222", font=font, anchor="lm")
        for column, pixels in enumerate(pictures):
            small = Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.BOX)
            canvas.paste(small, (MARGIN + column * step, top))
    # Dust does not compress; fewer colours keep the file small.
    return canvas.quantize(200, dither=Image.Dither.NONE)
