"""From results and drawn pixels to what the page's template says and shows; no markup here."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from jaxtyping import UInt8

from whence.reports import balance as balances
from whence.reports import legend, words
from whence.reports.contents import ExplanationRow, PictureRow
from whence.reports.figures import ExplanationFigures, PictureFigures
from whence.reports.graph_view import GraphView, graph_view
from whence.reports.images import Encoded, exact, photo, shrunk
from whence.reports.names import map_name
from whence.reports.overlay import Laid, colour_bar
from whence.reports.plot import Curve, Plot, plot
from whence.reports.small import Small, drawn_layers
from whence.results import CLASS_AGNOSTIC

# The longest side, in pixels, of a picture on the page, and the one at which it is shown where there is room.
_LONGEST, _SHOWN = 560, 400
# A heat map under a slider is looked through, not read.
_LAYER_QUALITY = 60

# Takes an image and a name for it, and returns the address under which the page finds it.
Keep = Callable[[str, Encoded], str]


@dataclass(frozen=True)
class Image:
    """An image on the page: its address, the size at which it is shown and what it shows, in words."""

    address: str
    height: int
    width: int
    alt: str


@dataclass(frozen=True)
class Exhibit:
    """One picture of the evidence: what was done to it, what the model then says, and what follows from that."""

    image: Image | None
    caption: str
    value: str
    bar: float | None
    finding: words.Finding | None


@dataclass(frozen=True)
class Part:
    """One small map that stands beside or behind another one, with its name, and the weight or share it has."""

    image: Image
    name: str
    value: str | None = None


@dataclass(frozen=True)
class LayerLine:
    """A layer in the table of all: the shape of its map, and its relevance where that is handed back."""

    name: str
    shape: str
    relevance: str | None
    share: str | None


@dataclass(frozen=True)
class ExplanationView:
    """One card; ``channels`` ends with the sum of them all, ``table`` is empty where every layer is drawn."""

    row: ExplanationRow
    target: str
    value: str
    evidence: tuple[Exhibit, ...]
    curves: Plot | None
    base: Image
    layer: Image | None
    caption: str
    heat: Image
    bar: Image | None
    ticks: tuple[str, ...]
    legend: str
    balance: balances.Balance | None
    layers: tuple[Part, ...]
    table: tuple[LayerLine, ...]
    channels: tuple[Part, ...]
    facts: Mapping[str, str]
    graph: GraphView | None


@dataclass(frozen=True)
class PictureView:
    """One section: a picture with its explanations, or with its error."""

    row: PictureRow
    name: str
    verdict: str | None
    original: Image | None
    explanations: tuple[ExplanationView, ...]


def picture_view(index: int, row: PictureRow, drawn: PictureFigures | None, keep: Keep) -> PictureView:
    """Return one picture's section; ``keep`` takes its images."""
    name = words.short(row["path"])
    if drawn is None:
        return PictureView(row, name, None, None, ())
    original = _image(f"{index}-page", photo(shrunk(drawn.original, _LONGEST)), f"The picture {name}", keep)
    explanations = tuple(
        _explanation(explanation, figures, drawn, partial(_named, keep, map_name(explanation).replace("/", "-")))
        for explanation, figures in zip(row["explanations"], drawn.explanations, strict=True)
    )
    return PictureView(row, name, words.verdict(row), original, explanations)


def _named(keep: Keep, prefix: str, name: str, encoded: Encoded) -> str:
    return keep(f"{prefix}-page-{name}", encoded)


def _image(name: str, encoded: Encoded, alt: str, keep: Keep) -> Image:
    height, width = encoded.size
    factor = _SHOWN / max(height, width)
    return Image(keep(name, encoded), max(1, round(height * factor)), max(1, round(width * factor)), alt)


def _explanation(row: ExplanationRow, drawn: ExplanationFigures, of: PictureFigures, keep: Keep) -> ExplanationView:
    target, laid, title = words.label(row["target"]), drawn.laid, row["title"]
    blended = laid.look.mode == "blended"
    return ExplanationView(
        row=row,
        target=target,
        value=words.measured(row["target"], words.before(row["target"])),
        evidence=_evidence(row, drawn, of, keep),
        curves=_curves(row),
        base=_base(laid, title, keep),
        layer=_image("layer", photo(shrunk(laid.layer, _LONGEST), _LAYER_QUALITY), "", keep) if blended else None,
        caption=legend.on_picture(laid.look.mode, laid.whole),
        heat=_image(
            "map", exact(shrunk(laid.heat, _SHOWN)), f"Map of {title} for {target}, without the picture", keep
        ),
        bar=_image("bar", exact(colour_bar(laid.scale)), "", keep) if laid.look.bar and laid.scale.top else None,
        ticks=tuple(words.number(tick) for tick in laid.scale.ticks),
        legend=legend.OF_SETS
        if row["graph"]
        else legend.of_scale(laid.scale, row["reduce"], laid.look, agnostic=CLASS_AGNOSTIC in row["notes"]),
        balance=balances.balance(row),
        layers=tuple(_layers(row, drawn.small, keep)),
        table=tuple(_table(row)) if len(drawn.small.layers) < len(row.get("layers", [])) else (),
        channels=tuple(_channels(row, drawn.small, keep)),
        facts=_facts(row),
        graph=None if row["graph"] is None else graph_view(row["graph"], drawn.graph, target),
    )


def _base(laid: Laid, title: str, keep: Keep) -> Image:
    """Return what lies under the layer, or, in a look without one, the picture and its map in that look."""
    mode = laid.look.mode
    if mode == "blended":
        return _image("base", photo(shrunk(laid.base, _LONGEST)), f"The picture under the map of {title}", keep)
    shown = shrunk(laid.drawn(), _LONGEST)
    alt = f"Map of {title}, drawn as {mode}"
    return _image("base", exact(shown) if mode == "heat-map" else photo(shown), alt, keep)


def _layers(row: ExplanationRow, drawn: Small, keep: Keep) -> Iterator[Part]:
    for number, pixels in zip(drawn_layers(row), drawn.layers, strict=True):
        name = row["layers"][number]["name"]
        image = _small(f"layer-{number}", pixels, f"Map at the layer {name}", keep)
        held = balances.held(row, name)
        yield Part(image, name, None if held is None else held.said)


def _table(row: ExplanationRow) -> Iterator[LayerLine]:
    for layer in row.get("layers", []):
        held = balances.held(row, layer["name"])
        amount = None if held is None else words.number(held.amount)
        share = None if held is None or held.share is None else held.said
        yield LayerLine(layer["name"], _times(layer["shape"]), amount, share)


def _channels(row: ExplanationRow, drawn: Small, keep: Keep) -> Iterator[Part]:
    for channel, pixels in zip(row.get("channels", []), drawn.channels, strict=True):
        name = f"Channel {channel['index']}"
        image = _small(f"channel-{channel['index']}", pixels, f"{name}, times its weight", keep)
        yield Part(image, name, f"× {words.number(channel['weight'])}")
    if drawn.channels:
        name = f"Sum of all {row.get('channels_total', len(drawn.channels))} channels"
        yield Part(_small("sum", drawn.whole, name, keep), name)


def _small(name: str, pixels: UInt8[np.ndarray, "h w 3"], alt: str, keep: Keep) -> Image:
    return _image(name, photo(pixels, _LAYER_QUALITY), alt, keep)


def _evidence(row: ExplanationRow, drawn: ExplanationFigures, of: PictureFigures, keep: Keep) -> tuple[Exhibit, ...]:
    evidence, target = row["evidence"], row["target"]
    if evidence is None:
        return ()
    share = words.percent(evidence["share"])
    needed, sufficient = words.findings(target, evidence)
    removed, kept = drawn.evidence or (None, None)

    def exhibit(
        name: str, pixels: UInt8[np.ndarray, "h w 3"] | None, caption: str, value: float, said: words.Finding | None
    ) -> Exhibit:
        image = None if pixels is None else _image(name, photo(shrunk(pixels, _LONGEST)), caption, keep)
        bar = None if target["probability"] is None else round(100 * value, 2)
        return Exhibit(image, caption, words.measured(target, value), bar, said)

    return (
        exhibit("whole", of.seen, "The whole picture, as the model sees it", words.before(target), None),
        exhibit(
            "removed", removed, f"The important {share} {words.taken_away(evidence)}", evidence["removed"], needed
        ),
        exhibit("kept", kept, f"Only the important {share} kept", evidence["kept"], sufficient),
    )


def _curves(row: ExplanationRow) -> Plot | None:
    """Return the curves of deletion and insertion, None where they were not asked for."""
    evidence = row["evidence"]
    if evidence is None or "deletion" not in evidence or "insertion" not in evidence:
        return None
    kinds = (("Deletion", evidence["deletion"]), ("Insertion", evidence["insertion"]))
    curves = [Curve(name, f"area {c['area']:.3f}", c["share"], c["value"]) for name, c in kinds]
    return plot(curves, "score" if row["target"]["probability"] is None else "probability")


def _facts(row: ExplanationRow) -> dict[str, str]:
    """Return the small print of one explanation, in the order in which it is shown."""
    passes = [f"{count} {kind}" for kind, count in row["passes"].items() if count]
    facts = {
        "Layer": row["layer"],
        "Score": words.number(row["target"]["score"]),
        "Residual": None if row["residual"] is None else words.number(row["residual"]),
        "Passes": ", ".join(passes) or "none",
        "Time": f"{words.number(row['seconds'])} s",
        "Map": _times(row["shape"]),
        "Options": ", ".join(f"{key} = {_value(value)}" for key, value in row["options"].items()) or "none",
    }
    return {name: text for name, text in facts.items() if text is not None}


def _times(shape: Sequence[int]) -> str:
    return " × ".join(map(str, shape))


def _value(value: object) -> str:
    if isinstance(value, dict):
        return " + ".join(f"{key}: {_value(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return " + ".join(_value(item) for item in value)
    if value is None:
        return "none"
    return ("yes" if value else "no") if isinstance(value, bool) else str(value)
