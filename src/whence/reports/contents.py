"""What a report is made of: the result as published, its maps, and the pixels that it shows."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from math import isfinite
from types import NoneType, UnionType
from typing import (
    Any,
    Literal,
    NotRequired,
    TypedDict,
    Union,
    cast,
    get_args,
    get_origin,
    get_type_hints,
    is_typeddict,
)

import numpy as np
from jaxtyping import Float32, UInt8

from whence.errors import OutputError
from whence.graphs.graph import Criterion, Measured, Proof, State
from whence.graphs.patches import Style
from whence.results import Reduce

SCHEMA = 1


class ModelRow(TypedDict):
    """The model: ``input`` is [C, H, W]; ``device`` and ``precision`` are None where they were not kept."""

    name: str
    spec: str
    fingerprint: str
    input: list[int]
    device: NotRequired[str | None]
    precision: NotRequired[str | None]


class ClassRow(TypedDict):
    """One of the classes that the model finds most probable."""

    index: int
    label: str
    probability: float


class TargetRow(TypedDict):
    """What is explained: ``index`` is -1, ``label`` and ``probability`` None, where it is no class."""

    index: int
    label: str | None
    probability: float | None
    score: float


class PassesRow(TypedDict):
    """How many samples went through the model, or through a part of it."""

    forward: int
    backward: int
    partial: int


class CurveRow(TypedDict):
    """A number while ever more of the picture is changed: ``value`` at each ``share``, and the area under it."""

    area: float
    share: list[float]
    value: list[float]


class EvidenceRow(TypedDict):
    """The target's probability without the most important ``share`` of the area, and with that share alone.

    Where the target has no probability, its score. ``deletion`` and ``insertion`` are its curves along the whole
    ranking, where they were asked for. More keys may follow.
    """

    share: float
    baseline: str
    removed: float
    kept: float
    deletion: NotRequired[CurveRow]
    insertion: NotRequired[CurveRow]


class ChannelRow(TypedDict):
    """One of the channels that weigh most in a map."""

    index: int
    weight: float


class LayerRow(TypedDict):
    """One of several layers explained: the shape of its map, [C] where it has no places."""

    name: str
    shape: list[int]


class BalanceRow(TypedDict):
    """Where relevance went, as in ``whence.results.Balance``; ``layers`` are sums at the layers asked for."""

    start: float
    input: float
    bias: float
    constants: float
    stabiliser: float
    other: dict[str, float]
    layers: dict[str, float]


class SufficientRow(TypedDict):
    """A set of patches that suffices, by their numbers."""

    patches: list[int]
    value: float
    proof: Proof


class VerdictRow(TypedDict):
    """What the model says of a set of patches: ``top`` where the class is its first."""

    patches: list[int]
    value: float
    top: bool


class NodeRow(VerdictRow):
    """A set of patches in a graph, ``expanded`` where the sets without each patch stand there too."""

    expanded: bool


class EdgeRow(TypedDict):
    """From one of the graph's nodes to the one without a patch, by their places."""

    parent: int
    child: int
    patch: int


class GraphRow(TypedDict):
    """Sets of patches that suffice for a decision, as in ``whence.graphs.AttentionGraph``; ``size`` is [H, W].

    Patch numbers are ``grid`` * row + column. More keys may follow.
    """

    grid: int
    size: list[int]
    style: Style
    baseline: str
    threshold: float
    criterion: Criterion
    overlap: int
    expand: float
    measured: Measured
    whole: float
    empty: float
    state: State
    evaluations: int
    spent: dict[str, int]
    formula: str
    necessary: list[int]
    roots: list[SufficientRow]
    found: list[SufficientRow]
    nodes: list[NodeRow]
    edges: list[EdgeRow]
    evaluated: list[VerdictRow]


class ExplanationRow(TypedDict):
    """One method's answer for one target; ``map`` says where the raw map lies.

    ``style`` says how the map is stretched from its grid onto the input, centred where it is not told. ``balance`` is
    None for a method that hands back no relevance. The maps of ``channels``, of ``channels_total`` in
    all, lie under the map's name and ``.channels``, those of ``layers`` under it and ``.layer-0``, ``.layer-1`` and
    so on, those of ``parts``, extra maps by name, under it and ``.part-NAME``.
    """

    method: str
    title: str
    options: dict[str, object]
    layer: str | None
    target: TargetRow
    map: str
    shape: list[int]
    reduce: Reduce
    show: Literal["positive", "signed"]
    style: NotRequired[Style]
    residual: float | None
    balance: NotRequired[BalanceRow | None]
    passes: PassesRow
    seconds: float
    evidence: EvidenceRow | None
    graph: GraphRow | None
    layers: NotRequired[list[LayerRow]]
    parts: NotRequired[list[str]]
    channels: NotRequired[list[ChannelRow]]
    channels_total: NotRequired[int]
    notes: list[str]


class GeometryRow(TypedDict):
    """Where the model's input grid lies on the picture, as in ``whence.pictures.preprocess.Geometry``."""

    picture: list[int]
    grid: list[int]
    box: list[float]


class LeftOutRow(TypedDict):
    """A method that could not explain a picture which others explained."""

    method: str
    reason: str


class PictureRow(TypedDict):
    """One picture: ``status`` is "ok" or the error; ``size`` is [H, W]; ``truth`` is a label's text."""

    path: str
    sha256: str | None
    decoded: list[str]
    status: str
    size: list[int] | None
    geometry: GeometryRow | None
    truth: str | None
    top: list[ClassRow]
    left_out: NotRequired[list[LeftOutRow]]
    explanations: list[ExplanationRow]


class LookRow(TypedDict):
    """How the maps are drawn, as in ``whence.reports.look.Look``; ``sign`` is null where each method says it."""

    mode: str
    sign: str | None
    outlier_perc: float
    colours: str
    bar: bool


class Result(TypedDict):
    """result.json, schema 1; ``versions`` names the libraries that the numbers depend on."""

    schema: int
    whence: str
    versions: NotRequired[dict[str, str]]
    seed: int
    report: str
    look: NotRequired[LookRow]
    model: ModelRow
    pictures: list[PictureRow]


Evidence = tuple[UInt8[np.ndarray, "h w 3"], UInt8[np.ndarray, "h w 3"]]
Seen = tuple[UInt8[np.ndarray, "_ _ 3"], UInt8[np.ndarray, "_ _ 3"]]
"""What the model sees of a picture, and of the baseline that stands where its patches are taken away."""


@dataclass(frozen=True)
class Drawn:
    """The pixels that a report shows of one picture.

    ``original`` is the picture, of any size with its proportions, or what the model saw of it where the geometry
    is not known. ``evidence`` holds for each explanation the picture with the important share removed and with
    that share alone, on the model's input grid, or None. ``graphs`` holds for each explanation the two pictures that
    its graph's are mixed of, or None; it is empty where no explanation has any.
    """

    original: UInt8[np.ndarray, "H W 3"]
    evidence: tuple[Evidence | None, ...]
    graphs: tuple[Seen | None, ...] = ()


@dataclass(frozen=True)
class Contents:
    """Everything that a report shows.

    ``maps`` are raw and signed, [h, w] or [C, h, w], or [C] where a layer has no places, under the names that follow
    ``maps.npz#`` in the result.
    ``drawn`` has None for a picture with an error.
    """

    result: Result
    maps: Mapping[str, Float32[np.ndarray, "..."]]
    drawn: Sequence[Drawn | None]


def schema() -> dict[str, Any]:
    """Return the JSON schema of result.json (draft 2020-12)."""
    text = files(__package__).joinpath("result.schema.json").read_text("utf-8")
    return cast(dict[str, Any], json.loads(text))


def checked(value: object) -> Result:
    """Return ``value`` as a result.

    Raises
    ------
    OutputError
        It is of another schema, or some part of it is missing or of the wrong type; the message says which.
    """
    found = value.get("schema") if isinstance(value, dict) else None
    if found != SCHEMA:
        raise OutputError(f"the result is of schema {found!r}, and this whence reads schema {SCHEMA}: update whence")
    for fault in _faults(value, Result, "result"):
        raise OutputError(f"the result is damaged: {fault}")
    return cast(Result, value)


def _faults(value: object, kind: Any, where: str) -> Iterator[str]:  # noqa: ANN401  (any annotation)
    """Yield what in ``value`` does not fit the annotation ``kind``."""
    origin, arguments = get_origin(kind), get_args(kind)
    if is_typeddict(kind):
        yield from _row_faults(value, kind, where)
    elif origin in (Union, UnionType):
        if all(any(_faults(value, one, where)) for one in arguments):
            yield from _faults(value, arguments[0], where)
    elif origin is Literal:
        if value not in arguments:
            yield f"{where} is {value!r}, not one of {', '.join(map(repr, arguments))}"
    elif origin is list and isinstance(value, list):
        for index, item in enumerate(value):
            yield from _faults(item, arguments[0], f"{where}[{index}]")
    elif origin is dict and isinstance(value, dict):
        for key, item in value.items():
            yield from _faults(item, arguments[1], f"{where}.{key}")
    elif not _plain(value, origin or kind):
        yield f"{where} is {str(value)[:40]!r}, not {getattr(kind, '__name__', kind)}"


def _row_faults(value: object, kind: Any, where: str) -> Iterator[str]:  # noqa: ANN401
    if not isinstance(value, dict):
        yield f"{where} is no object"
        return
    for key, annotation in get_type_hints(kind).items():
        if key in value:
            yield from _faults(value[key], annotation, f"{where}.{key}")
        elif key in kind.__required_keys__:
            yield f"{where}.{key} is missing"


def _plain(value: object, kind: type) -> bool:
    """Return whether ``value`` is one; a whole number is a number, and true and false are none."""
    if kind is object or (kind is NoneType and value is None):
        return True
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)
    return isinstance(value, kind) and not (kind is int and isinstance(value, bool))
