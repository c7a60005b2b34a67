"""Where everything lies in the figure of an attention graph, as shapes that any format can be drawn of."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import ClassVar, Literal, cast

import numpy as np
from jaxtyping import UInt8
from PIL.ImageFont import FreeTypeFont, load_default

from whence.graphs.graph import AttentionGraph, Edge, Node, name
from whence.reports import words
from whence.reports.graph_layout import Rows

Units = float | int
"""Lengths on the sheet; what an SVG calls pixels."""
INK, SOFT, PAPER, STROKE = "#1b1b22", "#595964", "#ffffff", "#8c8c99"
# Blue, orange and grey are told apart with any kind of colour blindness, their widths without any colour.
_BORDERS = {"suffices": ("#0072b2", 4.5), "expanded": ("#e69f00", 3.0), "below": ("#9a9aa5", 1.5)}
_MARGIN, _GUTTER, _GAP = 24, 40, 14
_PANEL, _COLUMN = 300, 440
# The widest row, and the sides of a node's picture: one of a full row can still be read.
_ACROSS, _LEAST, _LARGEST = 1204, 72, 112
# The least side of a node's picture that its frame fits into, and the least size of a number.
_FLATTEST, _READABLE = 12, 5
# A graph wider than this has the whole picture above it, a narrower one beside it.
_NARROW = 700
_SMALL, _TEXT, _BOLD, _TITLE = 11, 13, 15, 19
_LINE = 17
# Between two rows of nodes: with lines, the least height that holds their labels; without.
_HEIGHTS, _APART = range(64, 420, 16), 30
_LABEL = 15


@dataclass(frozen=True)
class Text:
    """One line of text on its base line; ``outline`` is the colour around its letters, "" for none."""

    x: Units
    y: Units
    said: str
    size: Units
    anchor: Literal["start", "middle"] = "start"
    bold: bool = False
    colour: str = INK
    outline: str = ""
    kind: ClassVar[str] = "text"


@dataclass(frozen=True)
class Box:
    """A rectangle filled or, with a ``width``, framed inside its edges."""

    x: Units
    y: Units
    w: Units
    h: Units
    colour: str
    width: Units = 0
    kind: ClassVar[str] = "box"


@dataclass(frozen=True)
class Line:
    """A straight line."""

    x: Units
    y: Units
    to_x: Units
    to_y: Units
    width: Units
    colour: str = STROKE
    kind: ClassVar[str] = "line"


@dataclass(frozen=True)
class Fan:
    """The lines between two rows of nodes, all of one colour."""

    lines: tuple[Line, ...]
    kind: ClassVar[str] = "fan"


@dataclass(frozen=True, eq=False)
class Shown:
    """A picture stretched over a rectangle."""

    x: Units
    y: Units
    w: Units
    h: Units
    pixels: UInt8[np.ndarray, "H W 3"]
    kind: ClassVar[str] = "picture"


Shape = Text | Box | Line | Fan | Shown


@dataclass(frozen=True)
class Drawing:
    """A white sheet with shapes, the later above the earlier."""

    width: int
    height: int
    shapes: tuple[Shape, ...]


@dataclass(frozen=True)
class _Placed:
    """A node's picture on the sheet, and the lines of text beneath it."""

    node: Node
    x: Units
    y: Units
    w: Units
    h: Units
    caption: tuple[Text, ...]

    @property
    def middle(self) -> Units:
        return self.x + self.w / 2

    @property
    def bottom(self) -> Units:
        return self.caption[-1].y + 6


def drawing(graph: AttentionGraph, order: Rows, label: str) -> Drawing:
    """Return the figure of a graph that holds its pictures, its nodes in the given rows."""
    cut = tuple(_telling(graph, row) for row in order)
    side = _side(cut)
    across = max((len(row) * (side + _GAP) - _GAP for row in cut), default=0)
    beside = 0 < across <= _NARROW
    top = _MARGIN + _TITLE + _MARGIN
    panel = list(_panel(graph, top))
    # The words stand under the whole picture, or, where that lies above the graph, beside it.
    x, y = (_MARGIN, _bottom(panel) + _LINE) if beside else (_MARGIN + _PANEL + _GUTTER, top)
    told = list(_words(graph, x, y, _PANEL if beside else _COLUMN))
    panel += [*told, *_left_out(graph, order, cut, x, _bottom(told) + _LINE)]
    below = _bottom(panel) + 2 * _MARGIN
    left, start = (_MARGIN + _PANEL + _GUTTER, top) if beside else (_MARGIN, below)
    width = left + across if beside else max(_MARGIN + across, _MARGIN + _PANEL + _GUTTER + _COLUMN)
    nodes = list(_graph(graph, cut, side, (left + (width - left) / 2, start)))
    title = Text(_MARGIN, _MARGIN + _TITLE, fitted(label, _TITLE, width - _MARGIN), _TITLE, bold=True)
    shapes = (title, *panel, *nodes)
    return Drawing(round(width) + _MARGIN, round(max(map(_end, shapes))) + _MARGIN, shapes)


def _telling(graph: AttentionGraph, row: Sequence[int]) -> tuple[int, ...]:
    """Return as many of a row's nodes as can be shown: roots, those that go on below, then what costs most."""
    roots = {root.patches for root in graph.roots}

    def rank(at: int) -> tuple[bool, bool, float]:
        node = graph.nodes[at]
        return node.patches not in roots, not node.expanded, node.value

    chosen = sorted(row, key=rank)[: (_ACROSS + _GAP) // (_LEAST + _GAP)]
    return tuple(at for at in row if at in chosen)


def _side(rows: Rows) -> int:
    widest = max(map(len, rows), default=1)
    return max(_LEAST, min(_LARGEST, (_ACROSS + _GAP) // widest - _GAP))


def _left_out(graph: AttentionGraph, order: Rows, cut: Rows, x: Units, y: Units) -> Iterator[Text]:
    for whole, row in zip(order, cut, strict=True):
        if len(row) < len(whole):
            count = len(graph.nodes[whole[0]].patches)
            said = f"{len(row)} of {len(whole)} sets of {count} patch{'es' * (count != 1)} are shown"
            yield Text(x, y, said, _TEXT, colour=SOFT)
            y += _LINE


def _panel(graph: AttentionGraph, top: Units) -> Iterator[Shape]:
    """Yield the whole picture as the model sees it, with the patches where they lie, and their numbers."""
    height, width = graph.places.size
    h, w = (max(1, round(_PANEL * side / max(height, width))) for side in (height, width))
    assert graph.picture is not None
    yield Shown(_MARGIN, top, w, h, graph.picture)
    down, across = ([share * length for share in graph.places.edges(axis)] for axis, length in ((0, h), (1, w)))
    for colour, thick in ((INK, 1.5), (PAPER, 0.5)):
        yield from (Line(_MARGIN, top + y, _MARGIN + w, top + y, thick, colour) for y in down[1:-1])
        yield from (Line(_MARGIN + x, top, _MARGIN + x, top + h, thick, colour) for x in across[1:-1])
    size = min(_SMALL, 0.4 * min(h, w) / graph.places.side)
    if size < _READABLE:
        return
    for row, (y, y_end) in enumerate(pairwise(down)):
        for column, (x, x_end) in enumerate(pairwise(across)):
            said = str(graph.places.side * row + column)
            yield Text(
                _MARGIN + (x + x_end) / 2, top + (y + y_end) / 2 + 0.36 * size, said, size, "middle", True, PAPER, INK
            )


def _words(graph: AttentionGraph, x: Units, y: Units, width: Units) -> Iterator[Shape]:
    """Yield the formula, what colours and numbers stand for, and what was done."""
    y += _TEXT
    for said in f"Suffices: {graph.formula}".replace(" or ", " or\n").split("\n"):
        for line in wrapped(said, _TEXT, width):
            yield Text(x, y, line, _TEXT, bold=True)
            y += _LINE
    y += 4
    for kind, meaning in _meanings(graph).items():
        colour, thick = _BORDERS[kind]
        yield Box(x, y - 12, 26, 15, colour, thick)
        yield Text(x + 34, y, meaning, _TEXT)
        y += _LINE + 4
    y += 4
    for said in _facts(graph):
        for line in wrapped(said, _TEXT, width):
            yield Text(x, y, line, _TEXT, colour=SOFT)
            y += _LINE


def _meanings(graph: AttentionGraph) -> Mapping[str, str]:
    above, expand = (f"above {100 * share:g} %" for share in (graph.threshold, graph.expand))
    stays = "the class stays first"
    return {
        "suffices": f"suffices: { {'ratio': above, 'top1': stays, 'both': f'{above}, {stays}'}[graph.criterion] }",
        "expanded": expand,
        "below": f"{expand.removeprefix('above ')} or less",
    }


def _facts(graph: AttentionGraph) -> Iterator[str]:
    side, whole = graph.places.side, graph.whole
    said = words.percent(whole) if graph.measured == "probability" else words.number(whole)
    yield f"Per cent are shares of the whole picture's {graph.measured}, {said}."
    if graph.edges:
        yield "On a line: the patch taken away, and the points that are lost."
    yield f"{side} x {side} patches ({graph.places.style}), taken away: {graph.baseline}."
    stopped = {"complete": "", "budget": "; stopped by its budget", "interrupted": "; interrupted"}[graph.state]
    yield f"Sets evaluated: {graph.evaluations}{stopped}."


def _graph(graph: AttentionGraph, rows: Rows, side: int, at: tuple[Units, Units]) -> Iterator[Shape]:
    """Yield the nodes row by row, each row in the middle, and the lines between them."""
    middle, y = at
    placed: dict[int, _Placed] = {}
    upper: tuple[int, ...] = ()
    for row in rows:
        left = middle - (len(row) * (side + _GAP) - _GAP) / 2
        xs = {number: left + place * (side + _GAP) for place, number in enumerate(row)}
        edges = [edge for edge in graph.edges if edge.parent in upper and edge.child in row]
        if edges:
            floor = max(placed[number].bottom for number in upper)
            ends = [(placed[edge.parent], xs[edge.child] + side / 2, _loss(graph, edge)) for edge in edges]
            y, fan, labels = _between(ends, [_lost(graph, edge) for edge in edges], floor)
            yield from (fan, *labels)
        elif upper:
            y = max(placed[number].bottom for number in upper) + _APART
        for number in row:
            placed[number] = _place(graph, number, xs[number], y, side)
            yield from _node(graph, placed[number])
        upper = row


def _loss(graph: AttentionGraph, edge: Edge) -> Units:
    return graph.share(graph.nodes[edge.parent].value) - graph.share(graph.nodes[edge.child].value)


def _lost(graph: AttentionGraph, edge: Edge) -> str:
    points = round(100 * _loss(graph, edge))
    return f"P{edge.patch} {f'−{points}' if points > 0 else f'+{-points}'}"


def _between(
    ends: Sequence[tuple[_Placed, Units, Units]], said: Sequence[str], floor: Units
) -> tuple[Units, Fan, list[Shape]]:
    """Return where the next row begins, the lines that lead there, and their labels, none above another."""
    for height in _HEIGHTS:
        lines = [
            Line(above.middle, above.bottom, x, floor + height, 0.8 + 3.5 * max(0.0, min(1.0, loss)))
            for above, x, loss in ends
        ]
        labels = _labels(lines, said, floor, height)
        if len(labels) == len(lines):
            break
    written = [Text(box.x + box.w / 2, box.y + 11, one, _SMALL, "middle") for one, box in labels]
    return floor + height, Fan(tuple(lines)), [*(box for _, box in labels), *written]


def _labels(lines: Sequence[Line], said: Sequence[str], floor: Units, height: Units) -> list[tuple[str, Box]]:
    """Return labels with their boxes, each on its line where it hides few others; without those that find no room."""
    found: list[tuple[str, Box]] = []
    for line, one in zip(lines, said, strict=True):
        wide = 1.08 * length(one, _SMALL) + 7
        spots = [Box(_x(line, y) - wide / 2, y - _LABEL / 2, wide, _LABEL, PAPER) for y in _levels(floor, height)]
        free = [spot for spot in spots if not any(_meet(spot, other) for _, other in found)]
        if free:
            found.append((one, min(free, key=lambda spot: _hidden(spot, lines))))
    return found


def _levels(floor: Units, height: Units) -> list[Units]:
    """Return where a label may stand between two rows, the middle first."""
    least = floor + 6 + _LABEL / 2
    levels = [least + 6 * step for step in range(int(height - 12 - _LABEL) // 6 + 1)]
    return sorted(levels, key=lambda y: abs(y - floor - height / 2))


def _x(line: Line, y: Units) -> Units:
    """Return where a line is at the height ``y``."""
    return line.x + (y - line.y) / (line.to_y - line.y) * (line.to_x - line.x)


def _hidden(spot: Box, lines: Sequence[Line]) -> int:
    """Return how many lines run behind a label."""
    return sum(
        min(_x(line, spot.y), _x(line, spot.y + spot.h)) < spot.x + spot.w
        and max(_x(line, spot.y), _x(line, spot.y + spot.h)) > spot.x
        for line in lines
    )


def _meet(one: Box, other: Box) -> bool:
    apart = abs(one.x + one.w / 2 - other.x - other.w / 2)
    return apart < (one.w + other.w) / 2 and abs(one.y - other.y) < one.h


def _place(graph: AttentionGraph, number: int, x: Units, y: Units, side: int) -> _Placed:
    """Return a node with its share, and a root with its proof and its patches, beneath."""
    node, (height, width) = graph.nodes[number], graph.places.size
    # A node's frame and some pixels must fit into the flattest picture.
    h, w = (max(_FLATTEST, round(side * length / max(height, width))) for length in (height, width))
    middle, below = x + side / 2, y + h + _BOLD + 2
    caption = [Text(middle, below, _share(graph, node), _BOLD, "middle", bold=True)]
    for root in graph.roots:
        if root.patches == node.patches:
            named = name(node.patches)
            fits = length(named, _SMALL) <= side + _GAP - 4
            said = (root.proof, named if fits else f"{len(node.patches)} patches")
            caption += [Text(middle, below + 14 * n, one, _SMALL, "middle") for n, one in enumerate(said, 1)]
    return _Placed(node, x + (side - w) / 2, y, w, h, tuple(caption))


def _share(graph: AttentionGraph, node: Node) -> str:
    share = graph.share(node.value)
    return "< 1 %" if 0 < share < 0.005 else f"{100 * share:.0f} %".replace("-", "−")


def _node(graph: AttentionGraph, at: _Placed) -> Iterator[Shape]:
    above = graph.share(at.node.value) > graph.expand
    kind = "suffices" if graph.suffices(at.node) else "expanded" if above else "below"
    colour, thick = _BORDERS[kind]
    yield Box(at.x, at.y, at.w, at.h, colour, thick)
    inner = (at.x + thick, at.y + thick, at.w - 2 * thick, at.h - 2 * thick)
    yield Shown(*inner, graph.seen(at.node.patches))
    yield from at.caption


def _end(shape: Shape) -> Units:
    """Return how far down a shape reaches."""
    if isinstance(shape, Fan):
        return max(line.to_y for line in shape.lines)
    if isinstance(shape, Line):
        return shape.to_y
    return shape.y if isinstance(shape, Text) else shape.y + shape.h


def _bottom(shapes: Sequence[Shape]) -> Units:
    return max(map(_end, shapes))


def length(text: str, size: Units) -> Units:
    """Return how long a line of text is, in the letters of Pillow's own font."""
    return _font(size).getlength(words.plain(text))


@cache
def _font(size: Units) -> FreeTypeFont:
    return cast(FreeTypeFont, load_default(size))


def fitted(text: str, size: Units, width: Units) -> str:
    """Return text cut to a width."""
    said = words.cut(text, 240)
    while len(said) > 4 and 1.08 * length(said, size) > width:
        said = words.cut(said, len(said) - 1)
    return said


def wrapped(text: str, size: Units, width: Units) -> list[str]:
    """Return text in lines of at most a width."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if 1.08 * length(longer, size) > width and lines[-1]:
            lines.append(word)
        else:
            lines[-1] = longer
    return [fitted(line, size, width) for line in lines]
