"""One explanation as one figure, drawn by Pillow alone."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

from whence.reports import legend, words
from whence.reports.colours import Scale
from whence.reports.contents import ExplanationRow, PictureRow
from whence.reports.figures import ExplanationFigures, PictureFigures
from whence.reports.look import Mode
from whence.reports.overlay import colour_bar

_PAPER, _INK, _SOFT = "#ffffff", "#1b1b22", "#595964"
_GAP = 12
_TITLE, _CAPTION = 16, 12
_BAR = 8


@dataclass(frozen=True)
class Tile:
    """One picture of the figure over its caption."""

    pixels: UInt8[np.ndarray, "H W 3"] | None
    caption: str


def sheet(
    row: PictureRow, explanation: ExplanationRow, drawn: PictureFigures, shown: ExplanationFigures, side: int
) -> Image.Image:
    """Return original, overlay, removed and kept in a row, each in a square of ``side`` pixels, and the scale."""
    tiles = tuple(_tiles(explanation, drawn, shown))
    line = _CAPTION + 6
    top = _GAP + _TITLE + _GAP
    width, height = len(tiles) * (side + _GAP) + _GAP, top + side + 2 * line + _BAR + 2 * _GAP
    canvas = Image.new("RGB", (width, height), _PAPER)
    pen = ImageDraw.Draw(canvas)
    _write(pen, (_GAP, _GAP), _title(row, explanation), _TITLE, width - 2 * _GAP, _INK)
    for index, tile in enumerate(tiles):
        left = _GAP + index * (side + _GAP)
        _place(canvas, tile.pixels, (left, top), side)
        _write(pen, (left, top + side + 6), tile.caption, _CAPTION, side, _SOFT)
    _scale(canvas, pen, shown, (2 * _GAP + side, top + side + line + 6), side)
    return canvas


def _tiles(explanation: ExplanationRow, drawn: PictureFigures, shown: ExplanationFigures) -> Iterator[Tile]:
    yield Tile(drawn.original, "picture")
    yield Tile(shown.laid.drawn(), legend.short(shown.laid.look.mode, shown.laid.whole))
    evidence, target = explanation["evidence"], explanation["target"]
    if evidence is None:
        return
    removed, kept = shown.evidence or (None, None)
    share = words.percent(evidence["share"])
    yield Tile(removed, f"without {share}: {words.measured(target, evidence['removed'])}")
    yield Tile(kept, f"only these {share}: {words.measured(target, evidence['kept'])}")


def _title(row: PictureRow, explanation: ExplanationRow) -> str:
    target = explanation["target"]
    said = f"{words.label(target)}, {words.measured(target, words.before(target))}"
    return f"{explanation['title']}: {said}  ({words.short(row['path'])})"


def _place(canvas: Image.Image, pixels: UInt8[np.ndarray, "H W 3"] | None, at: tuple[int, int], side: int) -> None:
    """Paste a picture into its square, as large as it fits."""
    if pixels is None:
        return
    height, width = pixels.shape[:2]
    factor = side / max(height, width)
    size = max(1, round(width * factor)), max(1, round(height * factor))
    fitted = Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS)
    canvas.paste(fitted, (at[0] + (side - size[0]) // 2, at[1] + (side - size[1]) // 2))


def _write(pen: ImageDraw.ImageDraw, at: tuple[int, int], text: str, size: int, width: int, colour: str) -> None:
    """Write one line, cut to ``width`` pixels."""
    font = ImageFont.load_default(size)
    said = words.cut(words.plain(text), 120)
    while font.getlength(said) > width and len(said) > 4:
        said = words.cut(said, len(said) - 1)
    pen.text(at, said, fill=colour, font=font)


def _bar(scale: Scale, mode: Mode) -> UInt8[np.ndarray, "h 256 3"]:
    """Return the scale's colours, or what becomes of a white pixel that is masked and of a black one that fades."""
    if mode not in ("masked", "alpha-scaling"):
        return colour_bar(scale, _BAR)
    grey = np.arange(256, dtype=np.uint8)[:: 1 if mode == "masked" else -1]
    return np.broadcast_to(grey[None, :, None], (_BAR, 256, 3)).copy()


def _scale(
    canvas: Image.Image, pen: ImageDraw.ImageDraw, shown: ExplanationFigures, at: tuple[int, int], side: int
) -> None:
    """Draw the colour bar under the map, with its numbers; a map without any has no scale."""
    scale, look = shown.laid.scale, shown.laid.look
    if scale.top == 0:
        _write(pen, at, legend.nothing(scale.sign), _CAPTION, side, _SOFT)
        return
    if not look.bar or look.mode == "original":
        return
    canvas.paste(Image.fromarray(_bar(scale, look.mode)).resize((side, _BAR)), at)
    font = ImageFont.load_default(_CAPTION)
    for value, anchor, left in zip(scale.ticks, ("la", "ma", "ra"), (0, side // 2, side), strict=True):
        said = words.plain(words.number(value))
        pen.text((at[0] + left, at[1] + _BAR + 4), said, fill=_SOFT, font=font, anchor=anchor)
