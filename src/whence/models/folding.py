"""Fold batch norms into the convolutions before them, for sessions that run a model many times.

In eval mode a batch norm multiplies every channel by s = weight / sqrt(variance + eps) and adds to it, so that

    s (W x + b - mean) + bias  =  (s W) x + (s (b - mean) + bias),

one convolution in the place of two passes over its map, there and back. The model's own weights stay as they are: its
calls are replaced while a pass runs.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from whence.models.clamping import CLAMPS
from whence.models.operations import Function, Intercepted, arguments
from whence.models.order import order_of
from whence.models.outputs import agree

Run = Callable[[Tensor], Any]

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


Pairs = Mapping[int, Pair]
"""Pairs by the identity of the convolution's weights."""


class _Unread:
    """What convolutions returned until a batch norm reads it as it was."""

    def __init__(self) -> None:
        self.left: dict[int, tuple[Tensor, int, Pair]] = {}

    def add(self, output: Tensor, pair: Pair) -> Tensor:
        self.left[id(output)] = output, output._version, pair
        return output

    def of(self, tensor: Tensor) -> Pair | None:
        if id(tensor) not in self.left:
            return None
        _, version, pair = self.left[id(tensor)]
        return pair if version == tensor._version else None

    def read(self, tensor: Tensor) -> Tensor:
        del self.left[id(tensor)]
        return tensor


def _seen(run: Callable[[], Any]) -> tuple[Any, list[Pair]]:
    """Return what a run returns, and every convolution in it."""
    calls: list[Pair] = []
    unread = _Unread()

    def convolve(function: Function, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        given = arguments(_CONVOLUTION, args, kwargs)
        calls.append(Pair(given["weight"], given.get("bias")))
        return unread.add(function(*args, **kwargs), calls[-1])

    def normalise(function: Function, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        given = arguments(_NORM, args, kwargs)
        call = unread.of(given["input"])
        if call is not None:
            call.norm = Norm.of(given)
        return function(*args, **kwargs)

    with Intercepted({F.conv2d: convolve, F.batch_norm: normalise}):
        output = run()
    return output, calls


class Folding:
    """A model's passes with its pairs folded, for batches that lie like ``x``; it holds a second copy of weights."""

    def __init__(self, found: Pairs, x: Float[Tensor, "b *shape"]) -> None:
        self._found = found
        self.pairs: Pairs = {key: pair.folded(order_of(x)) for key, pair in found.items()}

    def outputs(self, x: Float[Tensor, "b *shape"], run: Run, *, watched: bool = False) -> Any:  # noqa: ANN401
        """Return what ``run`` returns; without folding where the model takes another way than it was seen to take.

        A mode around it, by which the run is ``watched``, sees all of torch's functions but the norms.
        """
        if not self.pairs:
            return run(x)
        unread = _Unread()

        def convolve(function: Function, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
            given = arguments(_CONVOLUTION, args, kwargs)
            key = id(given["weight"])
            if key not in self.pairs or self._found[key].weight is not given["weight"]:
                return function(*args, **kwargs)
            pair = self.pairs[key]
            return unread.add(function(**{**given, "weight": pair.weight, "bias": pair.bias}), pair)

        def normalise(function: Function, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
            given = arguments(_NORM, args, kwargs)
            pair = unread.of(given["input"])
            if pair is None or not pair.reads(Norm.of(given)):
                return function(*args, **kwargs)
            return unread.read(given["input"])

        clamps = {} if watched else CLAMPS
        with Intercepted({F.conv2d: convolve, F.batch_norm: normalise, **clamps}):
            output = run(x)
        return run(x) if unread.left else output


def folding_of(module: nn.Module, x: Float[Tensor, "b *shape"], run: Run) -> Folding:
    """Return what folds a model: nothing where, with all pairs folded, it does not return the same for one input."""
    none = Folding({}, x)
    own = {id(parameter) for parameter in module.parameters() if parameter.ndim == 4}
    if not own or not any(True for _ in module.buffers()):
        return none
    one = x[:1].detach()
    found: dict[int, list[Pair]] = {}
    try:
        with torch.no_grad():
            output, seen = _seen(lambda: run(one))
            for call in seen:
                found.setdefault(id(call.weight), []).append(call)
            # Every call with the same weights must be read by the same norm.
            kept = {key: calls[0] for key, calls in found.items() if key in own and all(map(calls[0].same, calls))}
            made = Folding(kept, x)
            if not kept or not agree(made.outputs(one, run), output):
                return none
        with torch.enable_grad():
            leaf = one.clone().requires_grad_()
            leaves = tree_leaves(made.outputs(leaf, run))
            sums = [t.sum() for t in leaves if isinstance(t, Tensor) and t.requires_grad]
            # Where the way back does not stand the clamps, it fails here.
            if sums:
                torch.autograd.grad(sums, leaf, allow_unused=True)
        return made
    except Exception:  # any way of failing means the same: the model is run as it is
        return none
