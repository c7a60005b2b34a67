"""Fold batch norms into the convolutions before them, for sessions that run a model many times.

In eval mode a batch norm multiplies every channel by s = weight / sqrt(variance + eps) and adds to it, so that

    s (W x + b - mean) + bias  =  (s W) x + (s (b - mean) + bias),

one convolution in the place of two passes over its map, there and back. So are zeros that a call of their own sets
around a map for a convolution. The model's own weights stay as they are: its calls are replaced while a pass runs.
"""

import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from whence.models.clamping import CLAMPS
from whence.models.operations import Function, Intercepted, arguments
from whence.models.order import order_of
from whence.models.outputs import agree, floating
from whence.models.padding import Pad

Run = Callable[[Tensor], Any]

# So many values of each tensor, or up to twice as many, are looked at to see whether it was changed.
_SAMPLE = 256

# How far gradients may be apart, relative (L2): rounding moves a few values over a rectifier's kink.
_KINKS = 1e-2

_CONVOLUTION = "input", "weight", "bias", "stride", "padding", "dilation", "groups"
_PAD = "input", "pad", "mode", "value"
_NORM = "input", "running_mean", "running_var", "weight", "bias", "training", "momentum", "eps"


class Norm(NamedTuple):
    """What a batch norm in eval mode reads beside its input."""

    mean: Float[Tensor, " k"]
    variance: Float[Tensor, " k"]
    weight: Float[Tensor, " k"] | None
    bias: Float[Tensor, " k"] | None
    eps: float

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> "Norm | None":
        """Return it for the arguments of ``F.batch_norm``, None where its statistics are those of the batch."""
        mean, variance = given["running_mean"], given["running_var"]
        if given.get("training") or mean is None or variance is None:
            return None
        return cls(mean, variance, given.get("weight"), given.get("bias"), given.get("eps", 1e-5))


@dataclass
class Pair:
    """A convolution's weights, and the batch norm that reads what it returns."""

    weight: Float[Tensor, "k c h w"]
    bias: Float[Tensor, " k"] | None
    norm: Norm | None = None
    read: bool = False

    def reads(self, norm: Norm | None) -> bool:
        """Return whether a norm is this one: it reads the same tensors."""
        if norm is None or self.norm is None:
            return False
        return norm.eps == self.norm.eps and all(a is b for a, b in zip(norm[:4], self.norm[:4], strict=True))

    def read_by(
        self, function: Function | None, args: tuple[Any, ...], kwargs: Mapping[str, Any], changed: bool
    ) -> None:
        """Note what reads what the convolution returned."""
        if function in _ASKS:
            return
        norm = Norm.of(arguments(_NORM, args, kwargs)) if function is F.batch_norm else None
        # A second reader, or a first that is no norm.
        self.norm = None if changed or self.read else norm
        self.read = True

    def same(self, other: "Pair") -> bool:
        """Return whether both are made of the same tensors, norms included."""
        return self.bias is other.bias and self.reads(other.norm)

    @torch.no_grad()
    def folded(self, order: torch.memory_format) -> "Pair":
        """Return it with s W, in the memory order of the pictures, and s (b - mean) + bias."""
        if self.norm is None:
            raise ValueError("a convolution that no norm reads is not folded")
        mean, variance, weight, bias, eps = self.norm
        s = (variance + eps).rsqrt()
        s = s if weight is None else s * weight
        shift = s * (-mean if self.bias is None else self.bias - mean)
        scaled = (self.weight * s[:, None, None, None]).contiguous(memory_format=order)
        return Pair(scaled, shift if bias is None else shift + bias, self.norm)


Pairs = dict[int, Pair]
"""Pairs by the identity of the convolution's weights."""


@dataclass
class Padded:
    """A call that sets zeros around a map, and the weights of the convolution that alone reads what it returned."""

    pad: Pad | None
    weight: Float[Tensor, "k c h w"] | None = None
    read: bool = False

    def read_by(
        self, function: Function | None, args: tuple[Any, ...], kwargs: Mapping[str, Any], changed: bool
    ) -> None:
        """Note what reads what the call returned."""
        given = arguments(_CONVOLUTION, args, kwargs) if function is F.conv2d else {}
        fits = bool(given and self.pad and self.pad.let_into(given))
        self.weight = given["weight"] if fits and not (changed or self.read) else None
        self.read = True

    def same(self, other: "Padded") -> bool:
        """Return whether both set the same zeros for the same convolution."""
        return self.pad == other.pad and self.weight is other.weight


# What asks a tensor for nothing that its values decide.
_ASKS = {
    *(
        Tensor.__len__,
        Tensor.dim,
        Tensor.size,
        Tensor.numel,
        Tensor.stride,
        Tensor.is_contiguous,
        Tensor.is_floating_point,
    ),
    *(getattr(Tensor, name).__get__ for name in ("shape", "ndim", "dtype", "device", "requires_grad", "is_cuda")),
}
# What makes numbers of a tensor, by which a model may take another way for another picture.
_NUMBERS = {"__bool__", "__int__", "__float__", "__index__", "item", "tolist", "numpy", "__array__", "__contains__"}
_TESTS = {"equal", "allclose", "is_nonzero", "nonzero", "argwhere", "unique", "unique_consecutive", "masked_select"}


def _decides(function: Function, args: tuple[Any, ...]) -> bool:
    name = getattr(function, "__name__", "")
    by_mask = name == "__getitem__" and any(
        isinstance(t, Tensor) and t.dtype in (torch.bool, torch.uint8) for t in tree_leaves(args[1:])
    )
    return by_mask or name in _NUMBERS or name in _TESTS or (name == "where" and len(args) == 1)


class _Seen(TorchFunctionMode):
    """Sees in a run which norm reads what each convolution returned, and whether anybody else does."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Pair] = []
        self.pads: list[Padded] = []
        self.decides = False
        self._outputs: dict[int, tuple[weakref.ref[Tensor], int, Pair | Padded]] = {}

    def __torch_function__(
        self, func: Function, types: object, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:  # noqa: ANN401
        """Call the function."""
        kwargs = kwargs or {}
        self.decides |= _decides(func, args)
        for t in tree_leaves((args, kwargs)):
            made, version, call = self._outputs.get(id(t), (lambda: None, 0, None))
            if call is not None and isinstance(t, Tensor) and made() is t:
                call.read_by(func, args, kwargs, version != t._version)
        output = func(*args, **kwargs)
        if func is F.conv2d:
            given = arguments(_CONVOLUTION, args, kwargs)
            self.calls.append(Pair(given["weight"], given.get("bias")))
            self._outputs[id(output)] = weakref.ref(output), output._version, self.calls[-1]
        elif func is F.pad:
            self.pads.append(Padded(Pad.of(arguments(_PAD, args, kwargs))))
            self._outputs[id(output)] = weakref.ref(output), output._version, self.pads[-1]
        return output

    def keep(self) -> None:
        """Note that somebody holds what outlives the run, and may read it later."""
        for made, _, call in self._outputs.values():
            if made() is not None:
                call.read_by(None, (), {}, True)


def _sample(t: Float[Tensor, "..."]) -> Float[Tensor, " n"]:
    """Return some values of a tensor as they lie in memory, without a copy where they lie densely."""
    t = t.detach()
    if not (t.is_contiguous() or t.is_contiguous(memory_format=torch.channels_last)):
        t = t.contiguous()
    every = max(1, t.numel() // _SAMPLE)
    return t.as_strided((-(-t.numel() // every),), (every,))


class _Pass:
    """What stands in the place of a model's calls in one pass, and what of it was not yet read as foreseen."""

    def __init__(self, folding: "Folding") -> None:
        self.folding = folding
        self.unread: dict[int, tuple[Tensor, int, Pair]] = {}
        self.unset: dict[int, tuple[Tensor, int, Padded]] = {}
        self._foreseen = iter(folding.pads)

    def pad(self, function: Function, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        """Hand on the map itself, for a convolution that sets the zeros."""
        given = arguments(_PAD, args, kwargs)
        foreseen = next(self._foreseen, None)
        if foreseen is None or foreseen.weight is None or foreseen.pad != Pad.of(given):
            return function(*args, **kwargs)
        # Another object, by which it is known from the map that others may read.
        x = given["input"].view_as(given["input"])
        self.unset[id(x)] = x, x._version, foreseen
        return x

    def convolve(self, function: Function, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        """Convolve with folded weights, and zeros around the map where they are still to be set."""
        given = arguments(_CONVOLUTION, args, kwargs)
        x, weight = given["input"], given["weight"]
        pair = self.folding.pair(weight, given.get("bias"))
        if pair is not None:
            given = {**given, "weight": pair.weight, "bias": pair.bias}
        _, version, padded = self.unset.get(id(x), (x, 0, Padded(None)))
        if padded.pad is not None and padded.weight is weight and version == x._version:
            within = padded.pad.let_into(given)
            if within is not None:
                given = within
                del self.unset[id(x)]
        output = function(**given)
        if pair is not None:
            self.unread[id(output)] = output, output._version, pair
        return output

    def normalise(self, function: Function, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        """Return what was normalised by the convolution itself."""
        given = arguments(_NORM, args, kwargs)
        x = given["input"]
        _, version, pair = self.unread.get(id(x), (x, 0, Pair(x, None)))
        if version != x._version or not pair.reads(Norm.of(given)):
            return function(*args, **kwargs)
        del self.unread[id(x)]
        return x


class Folding:
    """A model's passes with its pairs folded, for batches that lie like ``x``; it holds a second copy of weights.

    Those of ``others`` are taken where they are of the same pair. ``pads`` are all of a pass, as they come.
    """

    def __init__(
        self,
        found: Pairs,
        x: Float[Tensor, "b *shape"],
        others: Iterable["Folding"] = (),
        pads: Sequence[Padded] = (),
    ) -> None:
        self.found, self.order, self.pads = found, order_of(x), pads
        known = [other for other in others if other.order == self.order]
        self.pairs: Pairs = {}
        for key, pair in found.items():
            same = (o.pairs[key] for o in known if key in o.pairs and o.found[key].weight is pair.weight)
            self.pairs[key] = next(same, None) or pair.folded(self.order)
        self._samples = [sample.clone() for sample in self._sampled()]

    def pair(self, weight: Tensor, bias: Tensor | None) -> Pair | None:
        """Return what a convolution's weights are folded to, None where they are not."""
        found = self.found.get(id(weight))
        known = found is not None and found.weight is weight and found.bias is bias
        return self.pairs[id(weight)] if known else None

    def _sampled(self) -> Iterator[Tensor]:
        for pair in self.found.values():
            yield from (_sample(t) for t in (pair.weight, pair.bias, *(pair.norm or ())[:4]) if t is not None)

    def stands(self) -> bool:
        """Return whether the weights are what they were, to samples: ``.data`` is written to behind all versions."""
        return all(map(torch.equal, self._samples, self._sampled()))

    def outputs(self, x: Float[Tensor, "b *shape"], run: Run, *, watched: bool = False) -> Any:  # noqa: ANN401
        """Return what ``run`` returns; from a pass on that does not go as foreseen, without folding.

        A mode around it, by which the run is ``watched``, sees all of torch's functions but the norms.
        """
        if not self.pairs:
            return run(x)
        replaced = _Pass(self)
        more = {} if watched else {F.pad: replaced.pad, **CLAMPS}
        ended = False
        # An error may be of our making: if it is not, the model raises it again.
        with (
            suppress(Exception),
            Intercepted({F.conv2d: replaced.convolve, F.batch_norm: replaced.normalise, **more}),
        ):
            output = run(x)
            ended = True
        if ended and not replaced.unread and not replaced.unset:
            return output
        output = run(x)
        self.found, self.pairs, self.pads, self._samples = {}, {}, (), []
        return output


def _gradient(output: Any, x: Tensor) -> Tensor | None:  # noqa: ANN401
    """Return the gradient of a sum of all that was returned, each with a weight of its own."""
    sums = [t.flatten() @ torch.linspace(-1, 1, t.numel()).to(t) for t in floating(output) if t.requires_grad]
    return torch.autograd.grad(sums, x, allow_unused=True)[0] if sums else None


def _near(one: Tensor | None, other: Tensor | None) -> bool:
    """Return whether two gradients are the same but for kinks on whose other side rounding brings a few values."""
    if one is None or other is None:
        return one is other
    return bool((one - other).norm() <= _KINKS * other.norm())


def folding_of(module: nn.Module, x: Float[Tensor, "b *shape"], run: Run, others: Iterable[Folding] = ()) -> Folding:
    """Return what folds a model: nothing where values decide its way, or outputs or gradients are not the same."""
    none = Folding({}, x)
    own = {id(p) for p in module.parameters() if p.ndim == 4 and p.dtype in (torch.float32, torch.float64)}
    if not own or not any(True for _ in module.buffers()):
        return none
    one = x[:1].detach()
    # A model may go another way for several pictures, and where gradients are recorded.
    two = torch.cat((one, one)).requires_grad_()
    found: dict[int, list[Pair]] = {}
    try:
        with torch.no_grad(), _Seen() as alone:
            output = run(one)
        alone.keep()
        if alone.decides or not any(call.norm for call in alone.calls):
            return none
        with torch.enable_grad():
            with _Seen() as both:
                outputs = run(two)
            gradient = _gradient(outputs, two)
        for call in alone.calls + both.calls:
            found.setdefault(id(call.weight), []).append(call)
        # Every call with the same weights must be read by the same norm.
        kept = {key: calls[0] for key, calls in found.items() if key in own and all(map(calls[0].same, calls))}
        if not kept or both.decides:
            return none
        pads = [
            p if id(p.weight) in own and p.same(q) else Padded(None)
            for p, q in zip(alone.pads, both.pads, strict=False)
        ]
        made = Folding(kept, x, others, pads)
        with torch.no_grad():
            same = agree(made.outputs(one, run), output)
        with torch.enable_grad():
            folded = made.outputs(two, run)
            same = same and agree(folded, outputs) and _near(_gradient(folded, two), gradient)
        return made if same else none
    except Exception:  # any way of failing means the same: the model is run as it is
        return none
