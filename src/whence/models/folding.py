"""Fold batch norms into the convolutions before them, for sessions that run a model many times.

In eval mode a batch norm multiplies every channel by s = weight / sqrt(variance + eps) and adds to it, so that

    s (W x + b - mean) + bias  =  (s W) x + (s (b - mean) + bias),

one convolution in the place of two passes over its map, there and back. The model's own weights stay as they are: its
calls are replaced while a pass runs.
"""

import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
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

Run = Callable[[Tensor], Any]

# So many values of each tensor are looked at to see whether it was changed.
_SAMPLE = 256

_CONVOLUTION = "input", "weight", "bias", "stride", "padding", "dilation", "groups"
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
_DECIDES = {"__bool__", "__int__", "__float__", "__index__", "item", "tolist", "numpy", "__array__", "nonzero"}


class _Seen(TorchFunctionMode):
    """Sees in a run which norm reads what each convolution returned, and whether anybody else does."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Pair] = []
        self.decides = False
        self._outputs: dict[int, tuple[weakref.ref[Tensor], int, Pair]] = {}

    def __torch_function__(
        self, func: Function, types: object, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:  # noqa: ANN401
        """Call the function."""
        kwargs = kwargs or {}
        if func in _ASKS:
            return func(*args, **kwargs)
        self.decides |= getattr(func, "__name__", "") in _DECIDES
        for t in tree_leaves((args, kwargs)):
            made, version, call = self._outputs.get(id(t), (lambda: None, 0, None))
            if call is not None and isinstance(t, Tensor) and made() is t:
                norm = Norm.of(arguments(_NORM, args, kwargs)) if func is F.batch_norm else None
                # A second reader, or a first that is no norm.
                call.norm = norm if version == t._version and not call.read else None
                call.read = True
        output = func(*args, **kwargs)
        if func is F.conv2d:
            given = arguments(_CONVOLUTION, args, kwargs)
            self.calls.append(Pair(given["weight"], given.get("bias")))
            self._outputs[id(output)] = weakref.ref(output), output._version, self.calls[-1]
        return output


def _sample(t: Float[Tensor, "..."]) -> Float[Tensor, " n"]:
    """Return some values of a tensor as they lie in memory, without a copy where they lie densely."""
    t = t.detach()
    if not (t.is_contiguous() or t.is_contiguous(memory_format=torch.channels_last)):
        t = t.contiguous()
    count = min(t.numel(), _SAMPLE)
    return t.as_strided((count,), (t.numel() // count,))


class Folding:
    """A model's passes with its pairs folded, for batches that lie like ``x``; it holds a second copy of weights.

    Those of ``others`` are taken where they are of the same pair.
    """

    def __init__(self, found: Pairs, x: Float[Tensor, "b *shape"], others: Iterable["Folding"] = ()) -> None:
        self.found, self.order = found, order_of(x)
        known = [other for other in others if other.order == self.order]
        self.pairs: Pairs = {}
        for key, pair in found.items():
            same = (o.pairs[key] for o in known if key in o.pairs and o.found[key].weight is pair.weight)
            self.pairs[key] = next(same, None) or pair.folded(self.order)
        self._samples = [sample.clone() for sample in self._sampled()]

    def _sampled(self) -> Iterator[Tensor]:
        for pair in self.found.values():
            yield from (_sample(t) for t in (pair.weight, pair.bias, *(pair.norm or ())[:4]) if t is not None)

    def stands(self) -> bool:
        """Return whether the weights are what they were, to samples: ``.data`` is written to behind all versions."""
        return all(map(torch.equal, self._samples, self._sampled()))

    def outputs(self, x: Float[Tensor, "b *shape"], run: Run, *, watched: bool = False) -> Any:  # noqa: ANN401
        """Return what ``run`` returns; from a pass on in which some norm does not come, without folding.

        A mode around it, by which the run is ``watched``, sees all of torch's functions but the norms.
        """
        if not self.pairs:
            return run(x)
        unread: dict[int, tuple[Tensor, int, Pair]] = {}

        def convolve(function: Function, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
            given = arguments(_CONVOLUTION, args, kwargs)
            key = id(given["weight"])
            if key not in self.pairs or self.found[key].weight is not given["weight"]:
                return function(*args, **kwargs)
            pair = self.pairs[key]
            output = function(**{**given, "weight": pair.weight, "bias": pair.bias})
            unread[id(output)] = output, output._version, pair
            return output

        def normalise(function: Function, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
            given = arguments(_NORM, args, kwargs)
            x = given["input"]
            _, version, pair = unread.get(id(x), (x, 0, Pair(x, None)))
            if version != x._version or not pair.reads(Norm.of(given)):
                return function(*args, **kwargs)
            del unread[id(x)]
            return x

        clamps = {} if watched else CLAMPS
        with Intercepted({F.conv2d: convolve, F.batch_norm: normalise, **clamps}):
            output = run(x)
        if not unread:
            return output
        self.found, self.pairs, self._samples = {}, {}, []
        return run(x)


def folding_of(module: nn.Module, x: Float[Tensor, "b *shape"], run: Run, others: Iterable[Folding] = ()) -> Folding:
    """Return what folds a model: nothing where values decide its way, or it then does not return the same."""
    none = Folding({}, x)
    own = {id(p) for p in module.parameters() if p.ndim == 4 and p.dtype in (torch.float32, torch.float64)}
    if not own or not any(True for _ in module.buffers()):
        return none
    one = x[:1].detach()
    found: dict[int, list[Pair]] = {}
    try:
        with torch.no_grad():
            with _Seen() as seen:
                output = run(one)
            for call in seen.calls:
                found.setdefault(id(call.weight), []).append(call)
            # Every call with the same weights must be read by the same norm.
            kept = {key: calls[0] for key, calls in found.items() if key in own and all(map(calls[0].same, calls))}
            if not kept or seen.decides:
                return none
            made = Folding(kept, x, others)
            if not agree(made.outputs(one, run), output):
                return none
        with torch.enable_grad():
            leaf = one.clone().requires_grad_()
            sums = [t.sum() for t in floating(made.outputs(leaf, run)) if t.requires_grad]
            # Where the way back does not stand the clamps, it fails here.
            if sums:
                torch.autograd.grad(sums, leaf, allow_unused=True)
        return made
    except Exception:  # any way of failing means the same: the model is run as it is
        return none
