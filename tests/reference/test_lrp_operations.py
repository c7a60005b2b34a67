"""What LRP does at operations other than linear ones, against their formulas written out in numpy.

Each stands between the input and one matrix, whose outputs have relevance 2 and -1. By value: the matrix hands on
R_k = y_k v_k / z R, by LRP-0. By relevance: R_k = v_k^2 / sum v^2 R, by the w-square rule, so that outputs of 0 have
relevance, too; there R / y_k is made by a division, whose denominator is enlarged by 1e-12.
"""

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import lrp_loops as loops
from lrp_loops import Array, array
from small_nets import Lambda, relative
from whence import attribute
from whence.methods.lrp import rules
from whence.methods.lrp.composites import Composite
from whence.models.classifier import Classifier

E, SMALLEST = 1e-6, 1e-12
FORMS = ("value", "relevance")
both = pytest.mark.parametrize("form", FORMS)

Formula = Callable[[Array, Array, Array], Array]
"""Relevance of one picture's input [C, h, w] from it, the operation's output and that output's relevance."""


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def check(
    operation: Callable[[Tensor], Tensor],
    formula: Formula,
    x: Tensor,
    form: str,
    *entries: tuple,
    bound: float = 1e-12,
) -> None:
    """Compare the relevance that comes through an operation with its formula."""
    y = array(operation(x))
    flat, v = y.reshape(len(y), -1), array(noise(2, y[0].size, seed=9))
    head = nn.Linear(len(v[0]), 2, bias=False).double()
    head.weight.data = torch.from_numpy(v)
    net = Classifier(Lambda(lambda net, x: net.head(operation(x).flatten(1)), head=head).eval())
    last = () if form == "value" else (("head", rules.w_square(E)),)
    composite = Composite("test", (*entries, *last))
    answer = attribute(
        net, x, "lrp", target=lambda z: (z / z.detach()) @ z.new_tensor([2.0, -1.0]), composite=composite
    )
    by_value = [flat * v[k] / (flat @ v[k])[:, None] for k in (0, 1)]
    by_relevance = [np.ones((len(y), 1)) * v[k] ** 2 / ((v[k] ** 2).sum() + E) for k in (0, 1)]
    first, second = by_value if form == "value" else by_relevance
    r = (2 * first - second).reshape(y.shape)
    expected = np.stack([formula(*one) for one in zip(array(x), y, r, strict=True)])
    assert r.min() < 0 < r.max()
    assert expected.any()
    assert relative(answer.values, torch.from_numpy(expected)) <= bound
    assert answer.residual.max() <= 1e-10


def stabilised(z: Array, form: str = "relevance") -> Array:
    """Return the denominators where relevance is divided; by value there is no division."""
    return z + np.where(z < 0, -SMALLEST, SMALLEST) if form == "relevance" else z


# Batch norms.


def batch_norm(width: int, kind: type[nn.Module] = nn.BatchNorm2d) -> nn.Module:
    """Return a batch norm with scales of both signs."""
    layer = kind(width).double().eval()
    layer.running_mean, layer.running_var = noise(width, seed=1), noise(width, seed=2).exp()
    layer.weight.data, layer.bias.data = noise(width, seed=3), noise(width, seed=4)
    assert layer.weight.min() < 0 < layer.weight.max()
    return layer


@both
@pytest.mark.parametrize("choice", ["merge", "affine", "pass"])
def test_a_batch_norm_behind_nothing_linear_keeps_its_shifts_share_or_passes(choice: str, form: str) -> None:
    layer = batch_norm(4)
    scale = array(layer.weight / (layer.running_var + layer.eps).sqrt())[:, None, None]

    def formula(x: Array, y: Array, r: Array) -> Array:
        return r if choice == "pass" else x * scale * r / stabilised(y, form)

    check(layer, formula, noise(2, 4, 3, 3), form, ("batch-norm", choice))


MERGED = {
    "convolution": (lambda: nn.Conv2d(4, 6, 3, 2, 1, groups=2, bias=False), nn.BatchNorm2d),
    "transposed": (lambda: nn.ConvTranspose2d(4, 6, 3, 2, 1, 1, groups=2), nn.BatchNorm2d),
    "dense": (lambda: nn.Sequential(nn.Flatten(), nn.Linear(4 * 15, 6)), nn.BatchNorm1d),
}


@both
@pytest.mark.parametrize(
    ("rule", "formula"),
    [
        (rules.zero(), loops.zero()),
        (rules.alpha_beta(2, 1), loops.alpha_beta(2, 1, E)),
        (rules.generalised_gamma(0.25), loops.generalised_gamma(0.25, E)),
        (rules.flat(), loops.flat(E)),
        (rules.w_square(), loops.w_square(E)),
    ],
    ids=["zero", "alpha2-beta1", "generalised-gamma", "flat", "w-square"],
)
@pytest.mark.parametrize("operation", MERGED)
def test_a_batch_norm_is_one_with_the_linear_operation_before_it(
    operation: str, rule: rules.Rule, formula: loops.Formula, form: str
) -> None:
    build, kind = MERGED[operation]
    before, norm = build().double(), batch_norm(6, kind)
    linear = before[1] if operation == "dense" else before
    for i, parameter in enumerate(linear.parameters()):
        parameter.data = noise(*parameter.shape, seed=20 + i)
    merged, scale = copy.deepcopy(linear), (norm.weight / (norm.running_var + norm.eps).sqrt()).detach()
    if operation == "transposed":  # [in, out / groups, ...]
        merged.weight.data = torch.cat(
            [w * s[None, :, None, None] for w, s in zip(linear.weight.chunk(2), scale.chunk(2), strict=True)]
        ).detach()
    else:
        merged.weight.data = linear.weight.detach() * scale.reshape(-1, *[1] * (linear.weight.ndim - 1))
    bias = 0 if linear.bias is None else linear.bias.detach()
    merged.bias = nn.Parameter((bias - norm.running_mean) * scale + norm.bias.detach())

    def of_one(x: Array, y: Array, r: Array) -> Array:
        inputs = x.reshape(1, -1) if operation == "dense" else x[None]
        return loops.relevance(merged, inputs, r.reshape(1, -1), formula).reshape(x.shape)

    check(lambda x: norm(before(x)), of_one, noise(2, 4, 5, 3), form, ("first", rule))


# Pools.


def windows(shape: tuple[int, ...], out: tuple[int, ...], kernel: int, stride: int, padding: int):
    """Yield each output's place, and the places of its inputs in their order."""
    for c, i, j in np.ndindex(*out):
        rows, columns = (range(at * stride - padding, at * stride - padding + kernel) for at in (i, j))
        yield (c, i, j), [(c, p, q) for p in rows for q in columns if 0 <= p < shape[1] and 0 <= q < shape[2]]


@both
@pytest.mark.parametrize("choice", ["winner", "shared", "average"])
@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "ceil"), [(2, 2, 0, False), (3, 2, 1, False), (3, 2, 0, True), (3, 2, 1, True)]
)
def test_a_max_pool(kernel: int, stride: int, padding: int, ceil: bool, choice: str, form: str) -> None:
    x = noise(2, 3, 6, 8).mul(1.5).round()  # so that many are equal, also to 0
    x[:, :, :3, :3] = 0

    def formula(x: Array, y: Array, r: Array) -> Array:
        back = np.zeros_like(x)
        r = r * y / stabilised(y, form) if choice == "average" else r
        for at, places in windows(x.shape, y.shape, kernel, stride, padding):
            values = np.array([x[place] for place in places])
            if choice == "average":
                shares = values / len(values) / stabilised(values.mean())
            elif choice == "shared":
                shares = (values == y[at]) / (values == y[at]).sum()
            else:
                shares = np.arange(len(values)) == values.argmax()
            for place, share in zip(places, shares, strict=True):
                back[place] += share * r[at]
        return back

    def pool(x: Tensor) -> Tensor:
        return F.max_pool2d(x, kernel, stride, padding, ceil_mode=ceil)

    x = x if choice != "average" else x.abs() + 0.5
    check(pool, formula, x, form, ("max-pool", choice))


# Norms.


@both
@pytest.mark.parametrize("choice", ["identity", "taylor"])
@pytest.mark.parametrize("size", [3, 4])
def test_local_response_normalisation(size: int, choice: str, form: str) -> None:
    alpha, beta, k = 0.7, 0.75, 1.5

    def formula(x: Array, y: Array, r: Array) -> Array:
        if choice == "identity":
            return r * y / stabilised(y, form)
        back, a, r = np.zeros_like(x), alpha / size, r * y / stabilised(y, form)
        for at in np.ndindex(*x.shape):
            c, *place = at
            near = [i for i in range(c - size // 2, c + (size - 1) // 2 + 1) if 0 <= i < len(x)]
            squares = sum(x[(i, *place)] ** 2 for i in near)
            messages = {
                i: -2 * a * beta * x[at] * x[(i, *place)] ** 2 * (k + a * squares) ** (-beta - 1) for i in near
            }
            messages[c] = x[at] * (k + a * x[at] ** 2) ** -beta
            total = sum(messages.values())
            for i, message in messages.items():
                back[(i, *place)] += message / stabilised(total) * r[at]
        return back

    def norm(x: Tensor) -> Tensor:
        return F.local_response_norm(x, size, alpha, beta, k)

    check(norm, formula, noise(2, 6, 2, 3), form, ("local-response-norm", choice))


NORMS = {
    "layer": (lambda x, w, b: F.layer_norm(x, x.shape[1:], w, b, 1e-3), lambda x: (1, -1), True),
    "last axis": (lambda x, w, b: F.layer_norm(x, x.shape[3:], w[0, 0], b[0, 0], 1e-3), lambda x: (12, -1), True),
    "group": (lambda x, w, b: F.group_norm(x, 2, w[:, 0, 0], b[:, 0, 0], 1e-3), lambda x: (2, -1), True),
    "instance": (
        lambda x, w, b: F.instance_norm(x, None, None, w[:, 0, 0], b[:, 0, 0], True, 0.1, 1e-3),
        lambda x: (4, -1),
        True,
    ),
    "root mean square": (lambda x, w, b: F.rms_norm(x, x.shape[2:], w[0], 1e-3), lambda x: (4, -1), False),
}


@both
@pytest.mark.parametrize("name", NORMS)
def test_a_norm_is_linear_with_its_deviation_held(name: str, form: str) -> None:
    apply, rows, centred = NORMS[name]
    w, b = noise(4, 3, 5, seed=5), noise(4, 3, 5, seed=6)

    def formula(x: Array, y: Array, r: Array) -> Array:
        values = x.reshape(rows(x))
        weights = np.broadcast_to(
            array({"layer": w, "last axis": w[:1, :1], "root mean square": w[:1]}.get(name, w[:, :1, :1])), x.shape
        ).reshape(values.shape)
        r, y = r.reshape(values.shape), y.reshape(values.shape)
        back, n = np.zeros_like(values), values.shape[1]
        for row, one in enumerate(values):
            deviation = np.sqrt((one.var() if centred else np.mean(one**2)) + 1e-3)
            # One contribution of each input to each output.
            kept = np.eye(n) - (1 / n if centred else 0)
            contributions = one[:, None] * kept / deviation * weights[row]
            back[row] = (contributions * r[row] / stabilised(y[row], form)).sum(1)
        return back.reshape(x.shape)

    check(lambda x: apply(x, w, b), formula, noise(2, 4, 3, 5), form)


# Products.


@both
@pytest.mark.parametrize("choice", ["signal", "uniform"])
@pytest.mark.parametrize("weight", ["signal", "gate", "mean"])
def test_a_product_of_two_signals_is_halved_and_a_weight_has_none(weight: str, choice: str, form: str) -> None:
    def product(x: Tensor) -> Tensor:
        a, b = x.chunk(2, 1)
        return a * {"signal": lambda: b, "gate": b.sigmoid, "mean": lambda: b.mean((2, 3), keepdim=True)}[weight]()

    def formula(x: Array, y: Array, r: Array) -> Array:
        if weight != "signal" and choice == "signal":
            return np.concatenate([r, 0 * r])
        if weight != "mean":
            return np.concatenate([r / 2, r / 2])
        of_mean = r.sum((1, 2), keepdims=True) / 2
        b = x[2:]
        return np.concatenate([r / 2, b / b.sum((1, 2), keepdims=True) * of_mean])

    check(product, formula, noise(2, 4, 3, 3), form, ("product", choice), bound=1e-12 if form == "value" else 1e-9)


# Attention.


@pytest.mark.parametrize("choice", ["cp", "attn"])
@pytest.mark.parametrize("written", ["by torch", "matmul", "einsum"])
def test_attention(written: str, choice: str) -> None:
    """AttnLRP by the rules of its paper, in relevance; CP-LRP gives all to the values."""
    c = 6**-0.5

    def attention(x: Tensor) -> Tensor:
        q, k, v = x[:, 0], x[:, 1], x[:, 2]
        if written == "by torch":
            return F.scaled_dot_product_attention(q, k, v)
        if written == "einsum":
            return torch.einsum("bij,bjd->bid", (torch.einsum("bid,bjd->bij", q, k) * c).softmax(-1), v)
        return (q @ k.transpose(1, 2) * c).softmax(-1) @ v

    def formula(x: Array, y: Array, r: Array) -> Array:
        q, k, v = x
        s = q @ k.T * c
        a = np.exp(s) / np.exp(s).sum(1, keepdims=True)
        if choice == "cp":
            return np.stack([0 * q, 0 * k, v * (a.T @ (r / y))])
        r_v, r_a = v * (a.T @ (r / (2 * y))), a * ((r / (2 * y)) @ v.T)
        r_s = s * (r_a - a * r_a.sum(1, keepdims=True))
        return np.stack([q * (r_s / (2 * s / c) @ k), k * ((r_s / (2 * s / c)).T @ q), r_v])

    check(attention, formula, noise(2, 3, 5, 6), "value", ("attention", choice))
