"""Relevance has a balance: what was started with is what inputs, biases, constants and stabilisers got."""

from collections import Counter
from collections.abc import Callable, Sequence
from copy import deepcopy

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from lrp_nets import CLASSES, KINDS, lrp, net_of, pooled, stirred, without_biases
from torch import Tensor, nn

from small_nets import SIZE, Lambda, pictures, relative
from whence.methods.lrp import dealing, named
from whence.methods.lrp.balance import Ledger
from whence.methods.lrp.composites import Composite
from whence.methods.lrp.linear import Node
from whence.models import running
from whence.models.classifier import Classifier
from whence.models.folding import Folding
from whence.pictures.preprocess import Preprocess
from whence.results import Attribution

TOLERANCE = 1e-10
PIXELS = Preprocess(resize=(SIZE, SIZE), mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))
COMPOSITES = [*named.NAMED, "preset-b-flat-until-2", "auto"]
# A composite that carries R, one that carries R / value, and one that does both.
FORMS = ["preset-b-flat-until-2", "epsilon-alpha2-beta1", "epsilon-gamma-box"]
# All composites run on these; on each of the others one of each form.
MAIN = ["in_place", "depthwise", "concatenation", "positions", "explicit_attention"]
OTHERS = [(kind, form) for kind in KINDS if kind not in MAIN for form in FORMS]
EACH = [(kind, FORMS[i % 3]) for i, kind in enumerate(KINDS)]


def moved(answer: Attribution) -> Tensor:
    """Return for each picture the largest amount that anyone got or gave."""
    b = answer.balance
    amounts = [b.start, b.input, b.bias, b.constants, b.stabiliser, *b.other.values()]
    return torch.stack([*amounts, answer.values.abs().flatten(1).sum(1)]).abs().amax(0)


def assert_balanced(answer: Attribution) -> None:
    b = answer.balance
    got = b.input + b.bias + b.constants + b.stabiliser + sum(b.other.values(), torch.zeros_like(b.input))
    assert ((b.start - got).abs() <= TOLERANCE * moved(answer)).all()
    torch.testing.assert_close(b.input, answer.values.sum((1, 2, 3)), rtol=1e-12, atol=0)
    assert not any("without a rule" in note for notes in answer.notes for note in notes)


def explained(net: nn.Module, x: Tensor, **options: object) -> Attribution:
    """Explain class 1, and check that the model returns inside what it returns outside, bit for bit."""
    inside: list[Tensor] = []

    def target(output: Tensor) -> Tensor:
        inside.append(output.detach().clone())
        return output[:, 1]

    plain = net(x.clone()).detach()
    answer = lrp(net, x, target=target, **options)
    assert (inside[0] - plain).abs().max() <= 1e-12 * plain.abs().max()
    assert torch.equal(answer.score, inside[0][:, 1])
    return answer


@pytest.mark.parametrize(("kind", "composite"), [*((kind, c) for kind in MAIN for c in COMPOSITES), *OTHERS])
def test_the_balance_of_every_composite_and_of_every_kind_of_net(kind: str, composite: str) -> None:
    assert_balanced(explained(net_of(kind), pictures(), composite=composite))


@pytest.mark.parametrize(("kind", "composite"), EACH)
@pytest.mark.parametrize("bias", ["ignore", "distribute"])
def test_biases_that_are_ignored_or_handed_on_keep_nothing(kind: str, composite: str, bias: str) -> None:
    answer = explained(net_of(kind), pictures(), composite=composite, bias=bias)
    assert_balanced(answer)
    assert (answer.balance.bias == 0).all()


@pytest.mark.parametrize(("kind", "composite"), EACH)
def test_a_batch_gives_the_values_the_balance_and_the_layers_of_its_pictures(kind: str, composite: str) -> None:
    net, x = net_of(kind), pictures(3)
    together = lrp(net, x, composite=composite, layer="all")
    alone = lrp(net, x[1:2], composite=composite, layer="all")
    assert relative(together.values[1:2], alone.values) <= TOLERANCE
    mine, one, scale = together.picture(1).balance, alone.balance, moved(alone)
    for name in ("start", "input", "bias", "constants", "stabiliser"):
        assert (getattr(mine, name) - getattr(one, name)).abs() <= TOLERANCE * scale, name
    assert list(together.layers) == list(alone.layers)
    for name, r in alone.layers.items():
        assert relative(together.layers[name][1:2], r) <= TOLERANCE, name
        assert (mine.layers[name] - one.layers[name]).abs() <= TOLERANCE * max(float(r.abs().sum()), float(scale))


@pytest.mark.parametrize("bias", ["absorb", "distribute"])
@pytest.mark.parametrize(("kind", "composite"), EACH)
def test_large_maps_dealt_out_picture_by_picture_are_the_same(
    kind: str, composite: str, bias: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    net, x = Classifier(net_of(kind), preprocess=PIXELS), pictures(3)
    options = {"composite": composite, "bias": bias, "layer": "all"}
    together = lrp(net, x, **options)
    entered: list[int] = []
    enter = Ledger.enter
    monkeypatch.setattr(Ledger, "enter", lambda self, parts: (entered.append(len(parts)), enter(self, parts))[1])
    monkeypatch.setattr(dealing, "_LARGE", 1)
    each = lrp(net, x, **options)
    assert set(entered) == {3}
    assert relative(each.values, together.values) <= TOLERANCE
    for name in ("start", "input", "bias", "constants", "stabiliser"):
        found, expected = (getattr(answer.balance, name) for answer in (each, together))
        assert (found - expected).abs().max() <= TOLERANCE * moved(together).max(), name
    assert all(relative(each.layers[name], r) <= TOLERANCE for name, r in together.layers.items())


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("composite", ["epsilon-plus", "epsilon-alpha2-beta1", "epsilon-gamma-box", "lrp-0"])
def test_a_merged_scale_is_the_same_in_the_weights_and_in_the_outputs(
    composite: str, turned: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    net, x = deepcopy(net_of("in_place")), pictures()
    with torch.no_grad():
        for layer in net.modules():
            if isinstance(layer, nn.BatchNorm2d) and not turned:
                layer.weight.abs_()
    found = []
    # Where layers are looked at, norms are merged on the way.
    monkeypatch.setattr(running, "folding_of", lambda module, x, run, others: Folding({}, x))
    for outside in (False, True):
        monkeypatch.setattr(Node, "scales_outputs", property(lambda node, to=outside: to and node.scale is not None))
        found.append(lrp(net, x, composite=composite))
    one, other = found
    assert relative(other.values, one.values) <= TOLERANCE
    assert turned or not torch.equal(other.values, one.values)
    for name in ("input", "bias", "stabiliser"):
        apart = (getattr(other.balance, name) - getattr(one.balance, name)).abs().max()
        assert apart <= TOLERANCE * moved(one).max(), name


def test_what_a_rectifier_writes_over_is_not_kept_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[Node] = []
    monkeypatch.setattr(Node, "own_memory", lambda self, storage: kept.append(self))
    relu = nn.ReLU(inplace=True)
    layers = (nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3), nn.Conv2d(4, CLASSES, 3))
    net = nn.Sequential(layers[0], relu, layers[1], relu, layers[2], nn.AdaptiveAvgPool2d(1), nn.Flatten())
    lrp(stirred(net), pictures(), composite="epsilon-plus")
    assert kept == []


def test_as_many_pictures_as_tokens_are_told_apart() -> None:
    """Torch's attention module puts tokens before pictures, and both into one axis."""
    net, x = net_of("positions"), pictures(16)
    together = lrp(net, x, composite="epsilon-plus")
    alone = lrp(net, x[3:4], composite="epsilon-plus")
    assert_balanced(together)
    torch.testing.assert_close(together.balance.bias[3:4], alone.balance.bias, rtol=TOLERANCE, atol=0)


# What auto may choose, by an operation that decides it, with tiny stabilisers.
CONSERVING = [named.lrp_0(), *(named.auto(Counter([seen]), 1e-14) for seen in ("softmax", "gelu", "relu"))]


@pytest.mark.parametrize(("kind", "which"), [(kind, 1 + i % 3) for i, kind in enumerate(KINDS)])
def test_without_biases_and_constants_everything_comes_to_the_input(kind: str, which: int) -> None:
    net = without_biases(stirred(KINDS[kind]()))
    for composite in (CONSERVING[0], CONSERVING[which]):
        answer = lrp(net, pictures(), composite=composite)
        assert (answer.values.sum((1, 2, 3)) - answer.score).abs().max() <= 1e-8 * answer.score.abs().min()


def test_what_auto_chooses_is_said() -> None:
    for kind, chosen in (
        ("residual", "epsilon-gamma-box"),
        ("concatenation", "epsilon-plus-flat with fallback"),
        ("depthwise", "epsilon-gamma-box"),
        ("gelu_and_layer_norm", "epsilon-gamma-box"),
        ("attention", "cp-lrp with box"),
        ("explicit_attention", "cp-lrp with box"),
    ):
        net = net_of(kind)
        answer = lrp(net, pictures())
        assert all(f"auto chose {chosen}" in notes for notes in answer.notes)


def test_z_plus_alone_loses_what_its_neurons_without_positive_contributions_get() -> None:
    """In the net of a linear bottleneck it is the fallback that conserves."""
    net, x = without_biases(stirred(KINDS["depthwise"]())), pictures()
    lost = lrp(net, x, composite=named.epsilon_plus(1e-14))
    assert (lost.values.sum((1, 2, 3)) - lost.score).abs().max() > 1e-3 * lost.score.abs().max()
    assert_balanced(lost)


def add(net: nn.Module, x: Tensor) -> Tensor:
    return x + net.norm(net.conv(x))


def add_in_place(net: nn.Module, x: Tensor) -> Tensor:
    y = net.conv(x)
    y += x
    return y.relu_()


def write_to_the_shortcut(net: nn.Module, x: Tensor) -> Tensor:
    x = net.conv(x)
    x += net.conv(x)
    return x.mul_(0.5)


def concatenate(net: nn.Module, x: Tensor) -> Tensor:
    return net.mix(torch.cat([x, net.conv(net.norm(x).relu())], 1))


def weigh(net: nn.Module, x: Tensor) -> Tensor:
    return x * net.conv(x).mean((2, 3), keepdim=True).sigmoid()


def gelu(net: nn.Module, x: Tensor) -> Tensor:
    return F.gelu(net.norm(net.conv(x)))


def alone(net: nn.Module, x: Tensor) -> Tensor:
    return net.norm(F.leaky_relu(x, 0.2))


def half(net: nn.Module, x: Tensor) -> Tensor:
    return F.max_pool2d(x, 2, ceil_mode=True) - 0.3


def layer_norm(net: nn.Module, x: Tensor) -> Tensor:
    return F.layer_norm(x.permute(0, 2, 3, 1), (4,), net.norm.weight, net.norm.bias).permute(0, 3, 1, 2)


def attend(net: nn.Module, x: Tensor) -> Tensor:
    tokens = x.flatten(2).transpose(1, 2)
    return x + F.scaled_dot_product_attention(tokens, tokens * 0.3, tokens).transpose(1, 2).reshape(x.shape)


BLOCKS = [add, add_in_place, write_to_the_shortcut, concatenate, weigh, gelu, alone, half, layer_norm, attend]


def built(blocks: Sequence[Callable[[nn.Module, Tensor], Tensor]]) -> nn.Module:
    """Return a net of 4 channels: a convolution, blocks one after the other, the mean, a linear layer."""

    def block(forward: Callable[[nn.Module, Tensor], Tensor]) -> nn.Module:
        conv, norm, mix = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Conv2d(8, 4, 1, bias=False)
        return Lambda(forward, conv=conv, norm=norm, mix=mix)

    last = Lambda(lambda net, x: net.head(pooled(x)), head=nn.Linear(4, CLASSES))
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), *map(block, blocks), last)


@settings(max_examples=20, deadline=None)
@given(
    blocks=st.lists(st.sampled_from(BLOCKS), min_size=1, max_size=4),
    composite=st.sampled_from(COMPOSITES),
    bias=st.sampled_from(["absorb", "absorb", "distribute"]),
    seed=st.integers(0, 10_000),
)
def test_the_balance_of_nets_put_together_at_random(
    blocks: list[Callable[[nn.Module, Tensor], Tensor]], composite: str, bias: str, seed: int
) -> None:
    net, x = stirred(built(blocks), seed, 8), pictures(size=8, seed=seed)
    answer = explained(net, x, composite=composite, bias=bias)
    assert_balanced(answer)
    alone = lrp(net, x[1:], composite=composite, bias=bias)
    assert (answer.values[1:] - alone.values).abs().max() <= TOLERANCE * moved(alone).max()


@settings(max_examples=15, deadline=None)
@given(
    blocks=st.lists(st.sampled_from([b for b in BLOCKS if b is not half]), min_size=1, max_size=3),
    composite=st.sampled_from(CONSERVING),
    seed=st.integers(0, 10_000),
)
def test_nets_put_together_at_random_conserve_without_biases(
    blocks: list[Callable[[nn.Module, Tensor], Tensor]], composite: Composite, seed: int
) -> None:
    net = without_biases(stirred(built(blocks), seed, 8))
    answer = lrp(net, pictures(size=8, seed=seed), composite=composite)
    assert (answer.values.sum((1, 2, 3)) - answer.score).abs().max() <= 1e-8 * moved(answer).max()


@pytest.mark.parametrize("composite", FORMS)
def test_what_is_written_to_in_place_counts_as_what_it_was(composite: str) -> None:
    """Two readers of one convolution, a shortcut that is written to: as if everything were done out of place."""

    def aside(net: nn.Module, x: Tensor) -> Tensor:
        x = net.stem(x)
        y = net.conv(x)
        z = net.norm(y)
        x = ((x + y) * 0.5).relu()
        return net.head(pooled(torch.cat([x, z[:, 2:], y[:, 2:], z], 1)))

    net, x = stirred(KINDS["written_to"]()), pictures()
    found = lrp(net, x, composite=composite)
    net.function = aside
    assert relative(found.values, lrp(net, x, composite=composite).values) <= TOLERANCE
