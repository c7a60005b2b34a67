"""Relevance of linear operations neuron by neuron, in numpy, as the papers write it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np
from torch import Tensor, nn

Array = np.ndarray


@dataclass
class Neuron:
    """One output: inputs ``a`` and weights ``w``, of which the last is the bias, an input of 1; its relevance ``r``.

    ``low`` and ``high`` bound each input; ``rms`` is the root of the mean square of all outputs of the operation.
    """

    a: Array
    w: Array
    r: float
    low: Array
    high: Array
    rms: float = 0.0

    @property
    def z(self) -> float:
        return float((self.a * self.w).sum())


Formula = Callable[[Neuron], Array]
"""What each input of a neuron gets, the bias last."""


def enlarged(z: float, by: float) -> float:
    """Return z + by sgn z, with sgn 0 = +1."""
    return z + by if z >= 0 else z - by


def shared(contributions: Array, epsilon: float, r: float) -> Array:
    """Deal out r in proportion to contributions; where there are none, nothing."""
    z = contributions.sum()
    return contributions * r / enlarged(z, epsilon) if contributions.any() else 0 * contributions


def zero() -> Formula:
    return lambda n: n.a * n.w * n.r / n.z if n.z != 0 else 0 * n.w


def epsilon(by: float, how: str) -> Formula:
    def formula(n: Neuron) -> Array:
        sign = 1 if n.z >= 0 else -1
        denominator = {"plain": n.z + sign * by, "clip": sign * max(abs(n.z), by), "rms": n.z + sign * by * n.rms}
        return n.a * n.w * n.r / denominator[how]

    return formula


def gamma(gamma: float, by: float) -> Formula:
    return lambda n: shared(n.a * (n.w + gamma * np.maximum(n.w, 0)), by, n.r)


def generalised_gamma(gamma: float, by: float) -> Formula:
    def formula(n: Neuron) -> Array:
        above, below = np.maximum(n.a, 0), np.minimum(n.a, 0)
        up, down = n.w + gamma * np.maximum(n.w, 0), n.w + gamma * np.minimum(n.w, 0)
        if n.z == 0:
            return 0 * n.w
        return shared(above * up + below * down if n.z > 0 else above * down + below * up, by, n.r)

    return formula


def alpha_beta(alpha: float, beta: float, by: float, fallback: bool = False) -> Formula:
    def formula(n: Neuron) -> Array:
        positive, negative = np.maximum(n.a * n.w, 0), np.minimum(n.a * n.w, 0)
        if fallback and not positive.any():
            return shared(negative, by, (alpha - beta) * n.r)
        if fallback and not negative.any():
            return shared(positive, by, (alpha - beta) * n.r)
        return shared(positive, by, alpha * n.r) - shared(negative, by, beta * n.r)

    return formula


def without_bias(contributions: Callable[[Neuron], Array], by: float) -> Formula:
    """Return the formula in which the bias has no part."""

    def formula(n: Neuron) -> Array:
        found = contributions(n)
        found[-1] = 0
        return shared(found, by, n.r)

    return formula


def w_square(by: float) -> Formula:
    return without_bias(lambda n: n.w**2, by)


def flat(by: float) -> Formula:
    return without_bias(lambda n: np.ones_like(n.w), by)


def box(by: float) -> Formula:
    return without_bias(lambda n: n.a * n.w - n.low * np.maximum(n.w, 0) - n.high * np.minimum(n.w, 0), by)


# Which inputs an output reads, and with what weights.

Wires = list[tuple[Array, Array, float]]


@cache
def wires(op: nn.Module, shape: tuple[int, ...]) -> Wires:
    """Return for each output where its inputs lie in a flattened input of ``shape``, their weights, and its bias."""
    weight = op.weight.detach().numpy()
    bias = np.zeros(1000) if op.bias is None else op.bias.detach().numpy()
    if isinstance(op, nn.Linear):
        return [(np.arange(len(row)), row, bias[k]) for k, row in enumerate(weight)]
    of = _transposed if op.transposed else _convolution
    return [
        (np.array([np.ravel_multi_index(at, shape) for at, _ in read], int), np.array([w for _, w in read]), bias[k])
        for k, read in of(op, weight, shape)
    ]


Read = Iterator[tuple[int, list[tuple[tuple[int, ...], float]]]]


def _convolution(op: nn.Module, weight: Array, shape: tuple[int, ...]) -> Read:
    width, kernel = weight.shape[1], weight.shape[2:]
    for k in range(len(weight)):
        first = k // (len(weight) // op.groups) * width
        for place in np.ndindex(*_places(op, kernel, shape[1:])):
            read = []
            for c, *offset in np.ndindex(*weight.shape[1:]):
                at = [p * s - e + o * d for p, s, e, o, d in _axes(op, place, offset)]
                if all(0 <= i < side for i, side in zip(at, shape[1:], strict=True)):
                    read.append(((first + c, *at), weight[(k, c, *offset)]))
            yield k, read


def _places(op: nn.Module, kernel: tuple[int, ...], sides: tuple[int, ...]) -> list[int]:
    settings = zip(sides, kernel, op.stride, op.padding, op.dilation, strict=True)
    return [(side + 2 * edge - gap * (length - 1) - 1) // step + 1 for side, length, step, edge, gap in settings]


def _axes(op: nn.Module, place: tuple[int, ...], offset: list[int]) -> Iterator[tuple[int, ...]]:
    return zip(place, op.stride, op.padding, offset, op.dilation, strict=True)


def _transposed(op: nn.Module, weight: Array, shape: tuple[int, ...]) -> Read:
    width, kernel = weight.shape[1], weight.shape[2:]
    settings = zip(shape[1:], kernel, op.stride, op.padding, op.dilation, op.output_padding, strict=True)
    out = [(side - 1) * step - 2 * edge + gap * (n - 1) + end + 1 for side, n, step, edge, gap, end in settings]
    read: dict[tuple[int, ...], list] = {index: [] for index in np.ndindex(width * op.groups, *out)}
    for c, *place in np.ndindex(*shape):
        first = c // (shape[0] // op.groups) * width
        for k, *offset in np.ndindex(*weight.shape[1:]):
            at = (first + k, *(p * s - e + o * d for p, s, e, o, d in _axes(op, tuple(place), offset)))
            if at in read:
                read[at].append(((c, *place), weight[(c, k, *offset)]))
    for (k, *_), found in read.items():
        yield k, found


def values(op: nn.Module, x: Array) -> Array:
    """Return an operation's outputs [B, K], from its inputs."""
    table = wires(op, x.shape[1:])
    return np.array([[one[index] @ w + b for index, w, b in table] for one in x.reshape(len(x), -1)])


def relevance(
    op: nn.Module,
    x: Array,
    r: Array,
    formula: Formula,
    bias: str = "absorb",
    bounds: tuple[Array, Array] | None = None,
) -> Array:
    """Return the relevance of the inputs ``x`` [B, ...] where the outputs have ``r`` [B, K].

    Inputs lie between ``bounds``, without them between the least and the greatest of their picture and channel.
    """
    table, back = wires(op, x.shape[1:]), np.zeros_like(x).reshape(len(x), -1)
    places = tuple(range(2, x.ndim)) or (1,)
    low, high = bounds or (x.min(places, keepdims=True), x.max(places, keepdims=True))
    low, high = (np.broadcast_to(t, x.shape).reshape(len(x), -1) for t in (low, high))
    for b, one in enumerate(x.reshape(len(x), -1)):
        own = [0.0 if bias == "ignore" else shift for *_, shift in table]
        rms = np.sqrt(
            np.mean([(one[index] @ w + shift) ** 2 for (index, w, _), shift in zip(table, own, strict=True)])
        )
        for k, (index, w, _) in enumerate(table):
            a, weights = np.append(one[index], 1.0), np.append(w, own[k])
            ends = (np.append(end[b, index], 1.0) for end in (low, high))
            got = formula(Neuron(a, weights, r[b, k], *ends, rms))
            back[b, index] += got[:-1] + (got[-1] / len(index) if bias == "distribute" and len(index) else 0)
    return back.reshape(x.shape)


def array(x: Tensor) -> Array:
    return x.detach().numpy()
