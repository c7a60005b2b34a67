"""What is known of a picture, a model and a run; and how it and an answer stand in result.json."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import cast

import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8
from torch import Tensor

from whence.graphs.graph import AttentionGraph
from whence.metrics.evidence import CURVES, AreaCurve, Evidence
from whence.pictures.preprocess import Geometry
from whence.registry import shaped
from whence.reports.contents import (
    BalanceRow,
    CurveRow,
    Drawn,
    EvidenceRow,
    ExplanationRow,
    ModelRow,
    PictureRow,
    Seen,
)
from whence.reports.names import channels_name, layer_name, map_name, part_name
from whence.results import Attribution, Balance, Channels, Passes, reduced

# The layers of one explanation are kept with all their channels up to this many values, which take 32 MB.
_MOST_VALUES = 2**23


@dataclass(frozen=True)
class ClassProbability:
    """A class and the probability that the model gives it."""

    index: int
    label: str
    probability: float


@dataclass(frozen=True)
class LeftOut:
    """A method that could not explain a picture which others explained, and why."""

    method: str
    reason: str


@dataclass(frozen=True, eq=False)
class Subject:
    """One picture, and what the model makes of it.

    ``shown`` are the pixels to be shown, [H, W, 3]: the picture's own, shrunk where it is very large, or, where
    ``geometry`` is None, what the model saw of them. ``top`` are the most probable classes, none where the model
    returns no logits. ``left_out`` are the methods asked for that could not explain it.
    """

    name: str
    sha256: str
    decoded: tuple[str, ...]
    size: tuple[int, int]
    geometry: Geometry | None
    shown: UInt8[np.ndarray, "H W 3"]
    top: tuple[ClassProbability, ...]
    truth: str | None = None
    left_out: tuple[LeftOut, ...] = ()


@dataclass(frozen=True)
class ModelFacts:
    """Which model was explained, where and in what it computed: ``input`` is [C, H, W]; None where not known."""

    name: str
    spec: str
    fingerprint: str
    input: tuple[int, ...]
    device: str | None = None
    precision: str | None = None


@dataclass(frozen=True)
class Versions:
    """What made a result: the version of whence, and those of the libraries that the numbers depend on."""

    whence: str
    libraries: Mapping[str, str]

    @classmethod
    def now(cls) -> "Versions":
        """Return those that are installed."""
        return cls(version("whence"), {"torch": torch.__version__, "numpy": np.__version__})


def model_row(model: ModelFacts) -> ModelRow:
    """Return a model as result.json has it."""
    return {
        "name": model.name,
        "spec": model.spec,
        "fingerprint": model.fingerprint,
        "input": list(model.input),
        "device": model.device,
        "precision": model.precision,
    }


def model_of(row: ModelRow) -> ModelFacts:
    """Return a model that result.json has."""
    return ModelFacts(
        row["name"], row["spec"], row["fingerprint"], tuple(row["input"]), row.get("device"), row.get("precision")
    )


def failed_row(name: str, error: Exception) -> PictureRow:
    """Return a picture that could not be explained as result.json has it."""
    return {
        "path": name, "sha256": None, "decoded": [], "status": str(error), "size": None,
        "geometry": None, "truth": None, "top": [], "explanations": [],
    }  # fmt: skip


def picture_row(subject: Subject, rows: list[ExplanationRow]) -> PictureRow:
    """Return a picture with its explanations as result.json has it."""
    place = subject.geometry
    return {
        "path": subject.name,
        "sha256": subject.sha256 or None,
        "decoded": list(subject.decoded),
        "status": "ok",
        "size": list(subject.size),
        "geometry": None
        if place is None
        else {"picture": list(place.picture), "grid": list(place.grid), "box": list(place.box)},
        "truth": subject.truth,
        "top": [{"index": c.index, "label": c.label, "probability": c.probability} for c in subject.top],
        "left_out": [{"method": one.method, "reason": one.reason} for one in subject.left_out],
        "explanations": rows,
    }


def subject_of(row: PictureRow, drawn: Drawn) -> Subject:
    """Return a picture that result.json has."""
    place = row["geometry"]
    geometry = None
    if place is not None:
        (height, width), (h, w), (top, left, bottom, right) = place["picture"], place["grid"], place["box"]
        geometry = Geometry((height, width), (h, w), (top, left, bottom, right))
    height, width = row["size"] or drawn.original.shape[:2]
    return Subject(
        name=row["path"],
        sha256=row["sha256"] or "",
        decoded=tuple(row["decoded"]),
        size=(height, width),
        geometry=geometry,
        shown=drawn.original,
        top=tuple(ClassProbability(c["index"], c["label"], c["probability"]) for c in row["top"]),
        truth=row["truth"],
        left_out=tuple(LeftOut(one["method"], one["reason"]) for one in row.get("left_out", [])),
    )


def plain(value: object) -> object:
    """Return an option as JSON can hold it."""
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, Tensor | np.ndarray):
        return shaped(value)
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(name := getattr(value, "name", None), str):
        return f"{type(value).__name__} {name}"
    return f"function {getattr(value, '__name__', type(value).__name__)}" if callable(value) else repr(value)


def maps_of(key: str, answer: Attribution, channels: Channels | None) -> dict[str, Float32[np.ndarray, "..."]]:
    """Return the raw maps of an answer for one picture, by their names in maps.npz."""
    maps = {key: _array(bare(answer.values[0]))}
    maps |= {layer_name(key, number): values for number, values in enumerate(layer_maps(answer).values())}
    maps |= {part_name(key, name): _array(bare(values[0])) for name, values in answer.parts.items()}
    return maps if channels is None else {**maps, channels_name(key): _array(channels.maps[0])}


def layer_maps(answer: Attribution) -> dict[str, Float32[np.ndarray, "..."]]:
    """Return the map of each layer of an answer for one picture as it is kept: of many, one value a place."""
    whole = sum(values.numel() for values in answer.layers.values()) <= _MOST_VALUES
    return {
        name: _array(bare(values[0] if whole else reduced(values, answer.reduce)))
        for name, values in answer.layers.items()
    }


def bare(values: Float[Tensor, "c *spatial"]) -> Float[Tensor, "..."]:
    """Return a map [1, h, w] or [C, h, w] as [h, w] or [C, h, w], and values without places as [C]."""
    if values.ndim != 3:
        return values.flatten()
    return values[0] if values.shape[0] == 1 else values


def evidence_row(evidence: Evidence | None) -> EvidenceRow | None:
    """Return the evidence of one map as result.json has it."""
    if evidence is None:
        return None
    row = {name: getattr(evidence, name) for name in ("share", "baseline", "removed", "kept")}
    curves = {
        name: {"area": curve.area, "share": list(curve.share), "value": list(curve.value)}
        for name, curve in evidence.curves.items()
    }
    return cast(EvidenceRow, row | curves)


def evidence_of(row: EvidenceRow | None) -> Evidence | None:
    """Return the evidence that result.json has."""
    if row is None:
        return None
    kept = ((name, cast(CurveRow | None, row.get(name))) for name in CURVES)
    curves = {name: AreaCurve(c["area"], tuple(c["share"]), tuple(c["value"])) for name, c in kept if c}
    return Evidence(row["share"], row["baseline"], row["removed"], row["kept"], curves)


def balance_row(balance: Balance | None) -> BalanceRow | None:
    """Return the balance of one picture as result.json has it."""
    if balance is None:
        return None
    other, layers = ({name: float(t[0]) for name, t in table.items()} for table in (balance.other, balance.layers))
    return {
        "start": float(balance.start[0]),
        "input": float(balance.input[0]),
        "bias": float(balance.bias[0]),
        "constants": float(balance.constants[0]),
        "stabiliser": float(balance.stabiliser[0]),
        "other": other,
        "layers": layers,
    }


def seen_of(graph: AttentionGraph) -> Seen | None:
    """Return the pictures that what the model saw of a graph's sets is mixed of; None where it holds none."""
    return None if graph.picture is None or graph.base is None else (graph.picture, graph.base)


def _balance_of(row: BalanceRow | None) -> Balance | None:
    if row is None:
        return None
    other, layers = ({name: _exactly([v]) for name, v in table.items()} for table in (row["other"], row["layers"]))
    start, given, bias = _exactly([row["start"]]), _exactly([row["input"]]), _exactly([row["bias"]])
    return Balance(start, given, bias, _exactly([row["constants"]]), _exactly([row["stabiliser"]]), other, layers)


def _array(values: Tensor) -> Float32[np.ndarray, "..."]:
    return values.detach().float().numpy()


def attribution_of(
    row: ExplanationRow,
    maps: Mapping[str, Float32[np.ndarray, "..."]],
    model: ModelFacts,
    subject: Subject,
    seen: Seen | None = None,
) -> Attribution:
    """Return a method's answer that result.json and maps.npz have: without what they do not keep.

    ``seen`` are the pictures of its graph.
    """
    key = map_name(row)
    layers = enumerate(row.get("layers", []))

    def values(name: str) -> Tensor:
        found = torch.from_numpy(maps[name])
        return found[None, None] if found.ndim == 2 else found[None]

    return Attribution(
        method=row["method"],
        options=row["options"],
        values=values(key),
        target=torch.tensor([row["target"]["index"]]),
        score=_exactly([row["target"]["score"]]),
        passes=Passes(**row["passes"]),
        input_size=tuple(subject.geometry.grid if subject.geometry else model.input[1:]),
        notes=(tuple(row["notes"]),),
        reduce=row["reduce"],
        show=row["show"],
        residual=None if row["residual"] is None else _exactly([row["residual"]]),
        layer=row["layer"],
        balance=_balance_of(row.get("balance")),
        graphs=() if row["graph"] is None else (AttentionGraph.from_json(row["graph"], *(seen or ())),),
        style=row.get("style", "centred"),
        layers={layer["name"]: values(layer_name(key, number)) for number, layer in layers},
        parts={name: values(part_name(key, name)) for name in row.get("parts", [])},
        seconds=row["seconds"],
    )


def channels_of(row: ExplanationRow, maps: Mapping[str, Float32[np.ndarray, "..."]]) -> Channels | None:
    """Return the channels that result.json and maps.npz have of an answer."""
    top = row.get("channels", [])
    if not top:
        return None
    index, weight = torch.tensor([[c["index"] for c in top]]), _exactly([[c["weight"] for c in top]])
    return Channels(
        index, weight, torch.from_numpy(maps[channels_name(map_name(row))])[None], row.get("channels_total", len(top))
    )


def _exactly(numbers: Sequence[float] | Sequence[Sequence[float]]) -> Tensor:
    """Return numbers so that they are written again as they were read."""
    return torch.tensor(numbers, dtype=torch.float64)
