"""What a method hands over: plain data, no model in sight."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from whence.errors import OptionError
from whence.graphs.graph import AttentionGraph
from whence.graphs.patches import PatchGrid, Style

Reduce = Literal["sum", "abs-sum", "abs-max"]
# The note of a map that is the same whatever is explained; a report reads it off.
CLASS_AGNOSTIC = "this method gives the same map for every class"


@dataclass(frozen=True)
class Passes:
    """How many samples went through the model: forward, backward, and through a part of it only."""

    forward: int = 0
    backward: int = 0
    partial: int = 0

    def __add__(self, other: "Passes") -> "Passes":
        """Add kind by kind."""
        return Passes(self.forward + other.forward, self.backward + other.backward, self.partial + other.partial)

    def __sub__(self, other: "Passes") -> "Passes":
        """Subtract kind by kind."""
        return Passes(self.forward - other.forward, self.backward - other.backward, self.partial - other.partial)

    def share(self, count: int) -> "Passes":
        """Return one picture's even share of what ``count`` pictures took, rounded up so that no pass is lost."""
        return Passes(-(-self.forward // count), -(-self.backward // count), -(-self.partial // count))


@dataclass(frozen=True, eq=False)
class Curve:
    """A number while ever more of the picture is changed: ``value`` [B, n] at ``share`` [n] of its area, 0 to 1."""

    share: Float[Tensor, " n"]
    value: Float[Tensor, "b n"]


@dataclass(frozen=True, eq=False)
class Measured:
    """What a metric says of each map: ``value`` [B], NaN where it is not defined, which a note then explains.

    ``curve`` is what the value is the area of, where it is one. ``passes`` count those of a method run again.
    """

    value: Float[Tensor, " b"]
    curve: Curve | None = None
    passes: Passes = Passes()
    notes: tuple[tuple[str, ...], ...] = ()


@dataclass(frozen=True, eq=False)
class Channels:
    """The channels that weigh most, of ``total``: ``index`` and ``weight`` [B, k], ``maps`` [B, k, *spatial]."""

    index: Int[Tensor, "b k"]
    weight: Float[Tensor, "b k"]
    maps: Float[Tensor, "b k *spatial"]
    total: int


def reduced(values: Float[Tensor, "b c *spatial"], how: Reduce) -> Float[Tensor, "b *spatial"]:
    """Return one value a place from the channels' values."""
    if how == "sum":
        return values.sum(1)
    if how == "abs-sum":
        return values.abs().sum(1)
    return values.abs().amax(1)


def spread(
    values: Float[Tensor, "b c *spatial"], how: Reduce, size: tuple[int, ...], style: Style = "centred"
) -> Float[Tensor, "b H W"]:
    """Return one signed map a picture from the channels' values, stretched to ``size`` (H, W) in a style.

    ``centred`` is bilinear interpolation between the middles of cells. Values that lie in no places, [B, C], are the
    same everywhere.
    """
    flat = reduced(values if values.ndim == 4 else values.flatten(1)[..., None, None], how)
    if tuple(flat.shape[1:]) == tuple(size):
        return flat
    if flat.shape[1:].numel() == 1:
        # Interpolation would round, and rank places that are equal.
        return flat.expand(-1, *size).clone()
    if style != "centred":
        return PatchGrid(flat.shape[1], (size[0], size[1]), style).spread(flat)
    return F.interpolate(flat[:, None], size=size, mode="bilinear", align_corners=False)[:, 0]


@dataclass(frozen=True, eq=False)
class Score:
    """The number explained, ``value`` [B], and its class, ``index`` [B]: -1 where a callable made it.

    ``logits`` [B, K] are those that it was read from, None where a callable made it.
    """

    value: Float[Tensor, " b"]
    index: Int[Tensor, " b"]
    logits: Float[Tensor, "b classes"] | None = None


@dataclass(frozen=True, eq=False)
class Balance:
    """Where relevance went, each [B], float64: what was started with, and what everyone got of it.

    ``stabiliser`` is what denominators took that were enlarged, ``other`` what operations took whose rule does not
    hand on all that it gets. ``layers`` holds the sums at the layers that were asked for.
    """

    start: Float[Tensor, " b"]
    input: Float[Tensor, " b"]
    bias: Float[Tensor, " b"]
    constants: Float[Tensor, " b"]
    stabiliser: Float[Tensor, " b"]
    other: Mapping[str, Float[Tensor, " b"]] = field(default_factory=dict)
    layers: Mapping[str, Float[Tensor, " b"]] = field(default_factory=dict)

    @property
    def unaccounted(self) -> Float[Tensor, " b"]:
        """What nobody got: 0 where every operation is known."""
        got = self.input + self.bias + self.constants + self.stabiliser
        return self.start - sum(self.other.values(), start=got)

    def mapped(self, change: Callable[[Tensor], Tensor]) -> "Balance":
        """Return the balance with every amount changed."""
        plain = {name: change(getattr(self, name)) for name in _AMOUNTS}
        other, layers = ({name: change(t) for name, t in table.items()} for table in (self.other, self.layers))
        return replace(self, **plain, other=other, layers=layers)

    def minus(self, subtracted: "Balance", factor: Float[Tensor, " b"]) -> "Balance":
        """Return the balance of a difference of two maps, the second one times ``factor``."""
        plain = {name: getattr(self, name) - factor * getattr(subtracted, name) for name in _AMOUNTS}
        other, layers = (
            {name: mine.get(name, 0) - factor * theirs.get(name, 0) for name in {**mine, **theirs}}
            for mine, theirs in ((self.other, subtracted.other), (self.layers, subtracted.layers))
        )
        return replace(self, **plain, other=other, layers=layers)


_AMOUNTS = ("start", "input", "bias", "constants", "stabiliser")


@dataclass(frozen=True, eq=False)
class Answer:
    """What a method returns for one chunk of a batch; an ``Attribution`` says more of each of these.

    ``options`` are those that it chose itself where none was given.
    """

    values: Float[Tensor, "b c *spatial"]
    score: Score
    residual: Float[Tensor, " b"] | None = None
    layer: str | None = None
    layers: Mapping[str, Float[Tensor, "b *_"]] = field(default_factory=dict)
    parts: Mapping[str, Float[Tensor, "b c *_"]] = field(default_factory=dict)
    weights: Float[Tensor, "b k"] | None = None
    activation: Float[Tensor, "b k *spatial"] | None = None
    balance: Balance | None = None
    graphs: tuple[AttentionGraph, ...] = ()
    style: Style = "centred"
    notes: tuple[tuple[str, ...], ...] = ()
    options: Mapping[str, object] = field(default_factory=dict)


def own_entries(value: object, rows: Sequence[int], count: int | None = None) -> object:
    """Return an option for some of the pictures, of ``count``: a tensor [B, C, H, W] holds one entry a picture.

    Raises
    ------
    OptionError
        The tensor has another number of entries.
    """
    if isinstance(value, tuple):
        return tuple(own_entries(one, rows, count) for one in value)
    if not isinstance(value, Tensor) or value.ndim != 4 or len(value) == 1:
        return value
    if count is not None and len(value) != count:
        raise OptionError(f"an option of shape {list(value.shape)} for {count} pictures: give one entry a picture")
    return value[list(rows)]


@dataclass(frozen=True, eq=False)
class Attribution:
    """A method's answer for a batch of B pictures.

    Attributes
    ----------
    method, options
        The method's name and every option it ran with.
    values
        float [B, C or 1, *spatial], signed, raw, in the method's own resolution; high speaks for the class.
    target
        int64 [B]: the class explained, -1 for a callable, the first class of a contrast.
    score
        [B]: the number explained.
    logits
        [B, K]: what the model said of the pictures, None where the score is no class's.
    residual
        [B] or None: how far the method misses its own law (completeness, conservation), relative.
    passes
        Samples that went through the model, over the whole batch.
    input_size
        (H, W) of the model's input, on which ``heatmap`` lies.
    reduce, show
        How channels become one map, and whether the map is to be read with its sign.
    layer
        The layer explained, None for methods that need none.
    layers, parts
        Maps by layer where several were asked for; extra maps by name.
    weights, activation
        [B, K] and [B, K, *spatial] where channels are weighed.
    balance
        Where the relevance went, for methods that hand it back.
    graphs
        One graph of sufficient sets a picture, for methods that look for them.
    style
        How values are stretched from their own grid onto the input, as ``whence.graphs.patches.PatchGrid`` says.
    notes
        For each picture the sentences that a reader must know.
    seconds
        Wall time of the whole batch.
    """

    method: str
    options: Mapping[str, object]
    values: Float[Tensor, "b c *spatial"]
    target: Int[Tensor, " b"]
    score: Float[Tensor, " b"]
    passes: Passes
    input_size: tuple[int, ...]
    notes: tuple[tuple[str, ...], ...]
    reduce: Reduce = "sum"
    show: Literal["positive", "signed"] = "signed"
    logits: Float[Tensor, "b classes"] | None = None
    residual: Float[Tensor, " b"] | None = None
    layer: str | None = None
    layers: Mapping[str, Float[Tensor, "b *_"]] = field(default_factory=dict)
    parts: Mapping[str, Float[Tensor, "b c *_"]] = field(default_factory=dict)
    weights: Float[Tensor, "b k"] | None = None
    activation: Float[Tensor, "b k *spatial"] | None = None
    balance: Balance | None = None
    graphs: tuple[AttentionGraph, ...] = ()
    style: Style = "centred"
    seconds: float = 0.0

    def __len__(self) -> int:
        """Return how many pictures were explained."""
        return int(self.values.shape[0])

    @property
    def interrupted(self) -> bool:
        """Whether it holds what a search had found when it was interrupted."""
        return any(graph.state == "interrupted" for graph in self.graphs)

    def __repr__(self) -> str:
        """Return one line for a terminal."""
        shape = "x".join(str(n) for n in self.values.shape)
        return f"Attribution({self.method!r}, values {shape}, target {self.target.tolist()}, {self.passes})"

    def heatmap(self, size: tuple[int, int] | None = None) -> Float[Tensor, "b H W"]:
        """Return the values reduced to one signed map a picture, stretched onto the input grid or onto ``size``."""
        return spread(self.values, self.reduce, size or self.input_size, self.style)

    def channels(self, top: int = 8) -> Channels:
        """Return the channels with the largest absolute weight, largest first.

        Raises
        ------
        OptionError
            The method weighs no channels, or ``top`` is less than 1.
        """
        if self.weights is None or self.activation is None:
            raise OptionError(f"{self.method} weighs no channels: the CAM methods do")
        if top < 1:
            raise OptionError(f"channels(top={top}): ask for at least one channel")
        index = self.weights.abs().topk(min(top, self.weights.shape[1]), dim=1).indices
        rows = torch.arange(len(self))[:, None].to(index.device)
        return Channels(index, self.weights.gather(1, index), self.activation[rows, index], self.weights.shape[1])

    def cpu(self) -> "Attribution":
        """Return the answer with all its tensors on the CPU."""

        def moved(value: Any) -> Any:  # noqa: ANN401  (a field is a tensor, a table of them, or plain)
            if isinstance(value, Tensor):
                return value.cpu()
            if isinstance(value, Balance):
                return value.mapped(Tensor.cpu)
            return {name: moved(t) for name, t in value.items()} if isinstance(value, dict) else value

        return replace(self, **{f.name: moved(getattr(self, f.name)) for f in fields(self) if f.name != "options"})

    def picture(self, index: int) -> "Attribution":
        """Return the answer for one picture, as a batch of one that shares no memory with the others.

        Its passes and seconds are its even share of the batch's.
        """

        def one(t: Tensor) -> Tensor:
            return t[index : index + 1].clone()

        def maybe(t: Tensor | None) -> Tensor | None:
            return None if t is None else one(t)

        return replace(
            self,
            options={name: own_entries(value, [index]) for name, value in self.options.items()},
            values=one(self.values),
            target=one(self.target),
            score=one(self.score),
            logits=maybe(self.logits),
            residual=maybe(self.residual),
            passes=self.passes.share(len(self)),
            notes=(self.notes[index],),
            layers={name: one(t) for name, t in self.layers.items()},
            parts={name: one(t) for name, t in self.parts.items()},
            weights=maybe(self.weights),
            activation=maybe(self.activation),
            balance=None if self.balance is None else self.balance.mapped(one),
            graphs=self.graphs[index : index + 1],
            seconds=self.seconds / len(self),
        )


def concatenated(pieces: Sequence[Attribution]) -> Attribution:
    """Return one answer from the answers for consecutive slices of a batch."""
    first = pieces[0]
    if len(pieces) == 1:
        return first

    def joined(tensors: Sequence[Tensor | None]) -> Tensor | None:
        return None if tensors[0] is None else torch.cat([t for t in tensors if t is not None])

    return replace(
        first,
        values=torch.cat([p.values for p in pieces]),
        target=torch.cat([p.target for p in pieces]),
        score=torch.cat([p.score for p in pieces]),
        logits=joined([p.logits for p in pieces]),
        residual=joined([p.residual for p in pieces]),
        passes=sum((p.passes for p in pieces), Passes()),
        notes=tuple(note for p in pieces for note in p.notes),
        layers={name: torch.cat([p.layers[name] for p in pieces]) for name in first.layers},
        parts={name: torch.cat([p.parts[name] for p in pieces]) for name in first.parts},
        weights=joined([p.weights for p in pieces]),
        activation=joined([p.activation for p in pieces]),
        balance=_joined_balances([p.balance for p in pieces if p.balance is not None]),
        graphs=tuple(graph for p in pieces for graph in p.graphs),
        seconds=sum(p.seconds for p in pieces),
    )


def _joined_balances(pieces: Sequence[Balance]) -> Balance | None:
    if not pieces:
        return None
    plain = {name: torch.cat([getattr(p, name) for p in pieces]) for name in _AMOUNTS}
    # An operation may have had something to take in some of the slices only.
    taking = {name: None for p in pieces for name in p.other}
    other = {name: torch.cat([p.other.get(name, torch.zeros_like(p.start)) for p in pieces]) for name in taking}
    layers = {name: torch.cat([p.layers[name] for p in pieces]) for name in pieces[0].layers}
    return replace(pieces[0], **plain, other=other, layers=layers)
