"""The figure of an attention graph for papers, as SVG and as PNG, both of one drawing."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

from whence.graphs.graph import AttentionGraph
from whence.reports import words
from whence.reports.contents import GraphRow
from whence.reports.graph_drawing import PAPER, Box, Drawing, Fan, Line, Shape, Shown, Text, Units, drawing
from whence.reports.graph_layout import rows
from whence.reports.images import png as png_file
from whence.reports.images import png_of, resized
from whence.reports.page import render

# Pixels of the PNG, and of pictures inside the SVG, for each of the drawing's units.
SCALE = 2
# Slanting lines are drawn this much larger, so that they have no steps.
_FINER = 3


def svg(graph: GraphRow, picture: UInt8[np.ndarray, "H W 3"], base: UInt8[np.ndarray, "h w 3"], label: str) -> str:
    """Return the figure as SVG with its pictures inside; its title is ``label``.

    Raises
    ------
    OutputError
        The graph is damaged, or of another size than ``picture`` and ``base``, which it is mixed of.
    """
    drawn = _drawing(graph, picture, base, label)
    return render("graph.svg.j2", {"drawing": drawn, "address": _address, "label": _legal(label), "legal": _legal})


def png(graph: GraphRow, picture: UInt8[np.ndarray, "H W 3"], base: UInt8[np.ndarray, "h w 3"], label: str) -> bytes:
    """Return the figure as a PNG, two pixels for each unit of the SVG; raises as ``svg``."""
    return png_of(image(graph, picture, base, label)).data


def image(
    graph: GraphRow, picture: UInt8[np.ndarray, "H W 3"], base: UInt8[np.ndarray, "h w 3"], label: str
) -> Image.Image:
    """Return the figure as an image, two pixels for each unit of the SVG; raises as ``svg``."""
    return painted(_drawing(graph, picture, base, label))


def _drawing(
    graph: GraphRow, picture: UInt8[np.ndarray, "H W 3"], base: UInt8[np.ndarray, "h w 3"], label: str
) -> Drawing:
    return drawing(AttentionGraph.from_json(graph, picture, base), rows(graph), label)


def _legal(text: str) -> str:
    """Return text without the characters that XML forbids or that change the order of others."""
    return "".join(c if c.isprintable() else " " for c in text)


def stretched(shape: Shown) -> UInt8[np.ndarray, "h w 3"]:
    """Return a picture in the pixels that it takes in the figure."""
    return resized(shape.pixels, (_pixels(shape.h), _pixels(shape.w)))


def _address(shape: Shown) -> str:
    return png_file(stretched(shape)).address


def painted(drawn: Drawing) -> Image.Image:
    """Return a drawing as an image."""
    canvas = Image.new("RGB", (drawn.width * SCALE, drawn.height * SCALE), PAPER)
    pen = ImageDraw.Draw(canvas)
    for shape in drawn.shapes:
        _paint(canvas, pen, shape)
    return canvas


def _paint(canvas: Image.Image, pen: ImageDraw.ImageDraw, shape: Shape) -> None:
    match shape:
        case Text():
            _write(pen, shape)
        case Box():
            _frame(pen, shape, 0, shape.colour)
            if shape.width:
                _frame(pen, shape, shape.width, PAPER)
        case Line():
            pen.line((_point(shape.x, shape.y), _point(shape.to_x, shape.to_y)), shape.colour, _pixels(shape.width))
        case Fan():
            _fan(canvas, shape)
        case Shown():
            canvas.paste(Image.fromarray(stretched(shape)), _point(shape.x, shape.y))


def _pixels(units: Units) -> int:
    return round(units * SCALE)


def _point(x: Units, y: Units) -> tuple[int, int]:
    return _pixels(x), _pixels(y)


def _frame(pen: ImageDraw.ImageDraw, box: Box, inside: Units, colour: str) -> None:
    """Fill a box as far as ``inside`` its edges."""
    left, top = _point(box.x + inside, box.y + inside)
    right, bottom = _point(box.x + box.w - inside, box.y + box.h - inside)
    pen.rectangle((left, top, right - 1, bottom - 1), fill=colour)


def _write(pen: ImageDraw.ImageDraw, text: Text) -> None:
    font, anchor = ImageFont.load_default(text.size * SCALE), {"start": "ls", "middle": "ms"}[text.anchor]
    # Pillow's own font has no bold letters.
    thick, around = (2, text.outline) if text.outline else (int(text.bold), text.colour)
    at, said = _point(text.x, text.y), words.plain(text.said)
    pen.text(at, said, text.colour, font, anchor, stroke_width=thick, stroke_fill=around)


def _fan(canvas: Image.Image, fan: Fan) -> None:
    """Draw slanting lines in a finer strip of the sheet."""
    top, bottom = (_pixels(edge) for edge in _span(fan.lines))
    fine = SCALE * _FINER
    strip = Image.new("L", (canvas.width * _FINER, (bottom - top) * _FINER))
    pen = ImageDraw.Draw(strip)
    for line in fan.lines:
        ends = [fine * x for x in (line.x, line.y, line.to_x, line.to_y)]
        pen.line((ends[0], ends[1] - top * _FINER, ends[2], ends[3] - top * _FINER), 255, round(fine * line.width))
    mask = strip.resize((canvas.width, bottom - top), Image.Resampling.BOX)
    canvas.paste(Image.new("RGB", mask.size, fan.lines[0].colour), (0, top), mask)


def _span(lines: Sequence[Line]) -> tuple[Units, Units]:
    return min(line.y for line in lines), max(line.to_y for line in lines)
