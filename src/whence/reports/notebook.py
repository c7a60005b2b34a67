"""What a notebook shows of a result: a table with small figures, or one figure."""

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import NamedTuple

from PIL import Image

from whence.reports import graph_figure, words
from whence.reports.balance import balance
from whence.reports.contents import Contents, ExplanationRow, PictureRow
from whence.reports.figures import ExplanationFigures, PictureFigures, figures
from whence.reports.images import Encoded, png_of
from whence.reports.page import render
from whence.reports.sheet import sheet

# A notebook keeps every output in its file: this is what all figures of one table may take there, in bytes.
_BUDGET = 120_000
_SIDES = (220, 180, 140, 100, 72)
_MOST_FIGURES, _MOST_LINES, _MOST_ERRORS = 6, 15, 5
# The side of one picture where the figure stands alone.
_ALONE = 280


Drawn = Callable[..., Image.Image]
"""Draws a figure whose pictures have a ``side`` of so many pixels."""


class Explained(NamedTuple):
    """One explanation of one picture, in words and in pixels."""

    picture: PictureRow
    row: ExplanationRow
    of: PictureFigures
    drawn: ExplanationFigures


@dataclass(frozen=True)
class Line:
    """One line of the table, its texts cut to what fits."""

    picture: str
    method: str
    target: str
    value: str
    removed: str
    kept: str


def html(contents: Contents) -> str:
    """Return a table with small PNG figures, everything escaped, without script, below 200 KB."""
    pictures = contents.result["pictures"]
    every = [(picture, row) for picture in pictures for row in picture["explanations"]]
    failed = [(words.short(picture["path"]), picture["status"]) for picture in pictures if picture["status"] != "ok"]
    values = {
        "model": words.cut(contents.result["model"]["name"], 80),
        "lines": [_line(*pair) for pair in every[:_MOST_LINES]],
        "more": max(0, len(every) - _MOST_LINES),
        "balances": list(_balances(every[:_MOST_LINES])),
        "failed": [(words.cut(name, 80), words.cut(error, 300)) for name, error in failed[:_MOST_ERRORS]],
        "figures": _small_figures(contents),
    }
    return render("notebook.html.j2", values)


def png(contents: Contents) -> bytes:
    """Return the figure as a PNG file."""
    return png_of(figure(contents)).data


def show(contents: Contents) -> None:
    """Show the figure: in a running notebook there, elsewhere in the system's viewer of pictures."""
    ipython = sys.modules.get("IPython")
    if ipython is not None and ipython.get_ipython() is not None:
        ipython.display.display(figure(contents))
    else:
        figure(contents).show()


def figure(contents: Contents) -> Image.Image:
    """Return one figure: for each explanation a row with the picture, its map, removed, kept and the scale.

    Where it has a graph, that follows.
    """
    every = islice(_explained(contents), _MOST_FIGURES)
    rows = [drawn(side=_ALONE) for explained in every for drawn, _ in _drawings(explained)]
    width, height = max((row.width for row in rows), default=1), sum(row.height for row in rows)
    canvas = Image.new("RGB", (width, max(1, height)), "#ffffff")
    top = 0
    for row in rows:
        canvas.paste(row, (0, top))
        top += row.height
    return canvas


def _explained(contents: Contents) -> Iterator[Explained]:
    for picture, of in zip(contents.result["pictures"], figures(contents), strict=True):
        if of is not None:
            for row, drawn in zip(picture["explanations"], of.explanations, strict=True):
                yield Explained(picture, row, of, drawn)


def _line(picture: PictureRow, row: ExplanationRow) -> Line:
    target, evidence = row["target"], row["evidence"]
    texts = (words.cut(text, 80) for text in (words.short(picture["path"]), row["title"], words.label(target)))
    values = (words.before(target), evidence and evidence["removed"], evidence and evidence["kept"])
    return Line(*texts, *("–" if value is None else words.measured(target, value) for value in values))


def _balances(every: Sequence[tuple[PictureRow, ExplanationRow]]) -> Iterator[tuple[str, str]]:
    """Yield where the relevance went, for the methods that hand it back."""
    for _, row in every:
        if (told := balance(row)) is not None:
            yield words.cut(row["title"], 80), words.cut(told.text, 200)


def _small_figures(contents: Contents) -> list[tuple[Encoded, str]]:
    """Return the first explanations' figures, together within the budget, with their words."""
    first = [drawing for explained in islice(_explained(contents), _MOST_FIGURES) for drawing in _drawings(explained)]
    return [(_within(drawn, _BUDGET // len(first)), said) for drawn, said in first]


def _drawings(explained: Explained) -> Iterator[tuple[Drawn, str]]:
    """Yield what is drawn of an explanation, with what it shows in words."""
    title = words.cut(explained.row["title"], 80)
    yield (
        partial(sheet, *explained),
        f"{title}: the picture, its map, and the picture without and with only the important share",
    )
    graph, seen, target = explained.row["graph"], explained.drawn.graph, explained.row["target"]
    if graph is not None and seen is not None:
        whole = graph_figure.image(graph, *seen, words.labelled(target))
        yield (
            partial(_shrunk, whole),
            f"{title}: the sets of patches that suffice, and what is left without each patch",
        )


def _shrunk(whole: Image.Image, side: int) -> Image.Image:
    """Return a graph's figure at half its size beside pictures of 280 pixels a side, else as much smaller."""
    return whole.resize(
        (whole.width * side // (2 * _ALONE), whole.height * side // (2 * _ALONE)), Image.Resampling.BOX
    )


def _within(drawn: Drawn, budget: int) -> Encoded:
    """Return the largest figure that takes at most ``budget`` bytes, or the smallest."""
    for side in _SIDES:
        figure = png_of(_of_few_colours(drawn(side=side)))
        if len(figure.data) <= budget:
            break
    return figure


def _of_few_colours(image: Image.Image) -> Image.Image:
    """Return the image in a palette of its own 256 colours, dithered so that the scale stays smooth."""
    palette = image.quantize(256, method=Image.Quantize.FASTOCTREE)
    return image.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG)
