"""What a user adds: rules, composites, places, handlers; and what is said of operations that nobody knows."""

from collections.abc import Iterator
from copy import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from lrp_nets import lrp, net_of, stirred
from torch import Tensor, nn
from torch.overrides import wrap_torch_function

from small_nets import Lambda, pictures, relative
from whence.errors import OptionError, UnknownNameError, UnsupportedError
from whence.methods.lrp import named, operations, rules
from whence.methods.lrp.composites import Composite, Depth, Where, holds
from whence.methods.lrp.linear import Node
from whence.methods.lrp.operations import handles
from whence.methods.lrp.propagation import Propagation
from whence.methods.lrp.rules import Group, Part, Rule, Stabiliser

TOLERANCE = 1e-10
FORMS = ["lrp-0", "epsilon-plus-flat", "preset-b-flat-until-2"]


def absolute() -> Rule:
    """Return a rule of a user's own: in proportion to |a_j w_jk|, whatever the sign; biases get nothing."""

    def negated(w: Tensor) -> Tensor:
        return -w.abs()

    return Rule("absolute", (Group((Part("positive", torch.abs), Part("negative", negated))),), Stabiliser(1e-9))


def squared() -> Rule:
    """Return another: half of it alike to all inputs, half in proportion to w^2, also to inputs of zero."""
    return Rule("squared", (Group((Part("ones", torch.ones_like),), 0.5), Group((Part("ones", torch.square),), 0.5)))


def two_layers() -> nn.Module:
    def forward(net: nn.Module, x: Tensor) -> Tensor:
        return net.head(torch.tanh(net.first(x.flatten(1))))

    return stirred(Lambda(forward, first=nn.Linear(12, 6), head=nn.Linear(6, 3)), size=2)


def test_a_rule_of_one_s_own_is_what_its_loop_is() -> None:
    net, x = two_layers(), pictures(size=2)
    hidden = torch.tanh(net.first(x.flatten(1))).detach()
    expected = torch.zeros(2, 12).double()
    for i in range(2):
        z = net.head(hidden[i])[1].detach()
        for j in range(6):
            # The target's own logit by the rule absolute, then each hidden unit by the rule squared.
            mine = (hidden[i, j] * net.head.weight[1, j]).abs()
            r = z * mine / ((hidden[i] * net.head.weight[1]).abs().sum() + 1e-9)
            w = net.first.weight[j].detach().square()
            expected[i] += (r * (0.5 / (12 + 1e-6) + 0.5 * w / (w.sum() + 1e-6))).detach()
    mine = Composite("mine", (("head", absolute()), ("first", squared())))
    found = lrp(net, x, composite=mine)
    assert relative(found.values, expected.reshape(x.shape)) <= TOLERANCE
    assert found.residual.max() <= TOLERANCE
    assert found.options["composite"] is mine


@pytest.mark.parametrize("where", ["down", "convolution", "last"])
def test_a_rule_of_one_s_own_is_in_balance_anywhere(where: str) -> None:
    for rule in (absolute(), squared()):
        found = lrp(net_of("depthwise"), pictures(), composite=Composite("mine", ((_place(where), rule),)))
        assert found.residual.max() <= 1e-9


def _place(where: str) -> str:
    return "depthwise" if where == "down" else where


# Places

NODES = ["stem.0", "block.conv", "down", "head"]


def at(net: nn.Module, where: Where) -> list[str]:
    """Return the names of the linear operations at a place, from the first to the last."""
    seen: list[Node] = []

    def look(node: Node) -> bool:
        # As it is now: what it holds goes with the pass.
        seen.append(copy(node))
        return False

    lrp(net, pictures(), composite=Composite("look", ((look, rules.epsilon()), (where, rules.zero()))))
    return [node.name for node in reversed(seen) if holds(where, node)]


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ("convolution", NODES[:3]),
        ("linear", NODES[3:]),
        ("first", NODES[:1]),
        ("last", NODES[3:]),
        ("down", ["down"]),
        ("block.*", ["block.conv"]),
        ("*o*", ["block.conv", "down"]),
        (nn.Conv2d, NODES[:3]),
        (nn.Linear, NODES[3:]),
        (nn.Module, NODES),
        (nn.BatchNorm2d, []),
        (Depth(0, 0), NODES[:1]),
        (Depth(1, 2), NODES[1:3]),
        (Depth(2, 99), NODES[2:]),
        (Depth(0.0, 0.5), NODES[:2]),
        (Depth(0.5, 1.0), NODES[2:]),
        (lambda node: node.weight.shape[0] == 6, NODES[:2]),
        (lambda node: node.first or node.last, [NODES[0], NODES[3]]),
    ],
)
def test_a_place_is_every_operation_that_stands_there(where: Where, expected: list[str]) -> None:
    net = net_of("residual")
    assert at(net, where) == expected
    # And there the rule works, and nowhere else.
    rule = rules.epsilon(0.3)
    found = lrp(net, pictures(), composite=Composite("here", ((where, rule),)))
    by_name = lrp(net, pictures(), composite=Composite("by name", tuple((name, rule) for name in expected)))
    assert torch.equal(found.values, by_name.values)


def test_parallel_branches_are_first_and_last_together() -> None:
    net = net_of("branches")
    assert sorted(at(net, "first")) == ["first", "wide", "wide"]  # with and without its batch norm
    assert at(net, "last") == ["head"]
    assert at(net, Depth(1, 1)) == ["second"]


def test_the_first_entry_that_fits_is_taken() -> None:
    net, x = net_of("residual"), pictures()
    entries = (("down", rules.zero()), ("convolution", rules.epsilon(0.5)), ("*", rules.z_plus()))
    found = lrp(net, x, composite=Composite("ordered", entries))
    named_one = (*((n, rules.epsilon(0.5)) for n in NODES[:2]), ("head", rules.z_plus()))
    assert torch.equal(found.values, lrp(net, x, composite=Composite("by name", named_one)).values)


@pytest.mark.parametrize(
    ("where", "rule", "match"),
    [
        ("batch-norm", rules.epsilon(), r"'batch-norm' takes one of \('merge', 'affine', 'pass'\), not a rule"),
        (
            "max-pool",
            "shred",
            "'shred' at 'max-pool' is none of batch-norm: merge or affine or pass; max-pool: winner",
        ),
        ("down", "merge", "'merge' at 'down' is none of batch-norm"),
        ("down", rules.epsilon, "at 'down' is no rule: rules.epsilon"),
        (3, rules.epsilon(), "3 is no place: give a kind, a layer, a Depth"),
    ],
)
def test_what_means_nothing_in_a_composite_is_refused(where: Any, rule: Any, match: str) -> None:
    mine = Composite("mine", ())
    # Past the checks of types that tests run with.
    object.__setattr__(mine, "entries", ((where, rule),))
    with pytest.raises(OptionError, match=f"composite 'mine': .*{match}"):
        mine.__post_init__()
    if isinstance(where, str) and isinstance(rule, str | Rule):
        with pytest.raises(OptionError, match=match):
            Composite("mine", ((where, rule),))


def test_a_pattern_that_fits_no_layer_is_refused_with_the_nearest() -> None:
    mine = Composite("mine", (("convolution", rules.z_plus()), ("blok.*", rules.epsilon())))
    with pytest.raises(OptionError, match=r"no layer and no operation is called 'blok.\*': did you mean 'block"):
        lrp(net_of("residual"), pictures(), composite=mine)
    with pytest.raises(OptionError, match="'convolutions': did you mean 'convolution'"):
        lrp(net_of("residual"), pictures(), composite=Composite("mine", (("convolutions", rules.z_plus()),)))
    # A kind of operation need not be there.
    lrp(net_of("residual"), pictures(), composite=Composite("mine", (("max-pool", "average"),)))


@pytest.mark.parametrize("name", ["epsilon-pluss", "preset-c-flat-until-2", "preset-a-flat-until-", "LRP"])
def test_an_unknown_name_is_refused_with_the_nearest(name: str) -> None:
    with pytest.raises(UnknownNameError, match=f"no composite {name!r}: "):
        lrp(net_of("residual"), pictures(), composite=name)


@pytest.mark.parametrize(("alpha", "beta"), [(2, 2), (0, -1), (-1, -2), (1, 1)])
def test_alpha_and_beta_that_do_not_sum_to_the_whole_are_refused(alpha: int, beta: int) -> None:
    with pytest.raises(ValueError, match="alpha - beta = 1"):
        rules.alpha_beta(alpha, beta)


def test_a_composite_of_the_literature_can_be_built_on() -> None:
    net, x = net_of("residual"), pictures()
    entries = (("down", rules.gamma(0.1)), *named.epsilon_plus(1e-9).entries)
    found = lrp(net, x, composite=Composite("mine", entries), layer=("down", "relu#1"))
    plain = lrp(net, x, composite=named.epsilon_plus(1e-9), layer=("down", "relu#1"))
    assert torch.equal(found.layers["down"], plain.layers["down"])
    assert relative(found.values, plain.values) > 1e-3


# Handlers


@wrap_torch_function(lambda x: (x,))
def swish(x: Tensor) -> Tensor:
    """A function that asks whether it is intercepted, made of one that has no rule."""
    return x / (1 + torch.sinc(x).mul(0) + (-x).exp())


class Swish(torch.autograd.Function):
    """The same, behind the back of everybody."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x * x.sigmoid()

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return g * (x.sigmoid() + x * x.sigmoid() * (1 - x.sigmoid()))


def with_activation(activation: Any, first: Any = None) -> nn.Module:
    """Return a net that runs an activation, and something before its first layer."""

    def forward(net: nn.Module, x: Tensor) -> Tensor:
        x = x if first is None else first(x)
        return net.head(activation(net.conv(activation(net.stem(x)))).mean((2, 3)))

    layers = {"stem": nn.Conv2d(3, 4, 3), "conv": nn.Conv2d(4, 4, 3), "head": nn.Linear(4, 5)}
    return stirred(Lambda(forward, **layers))


@pytest.fixture
def handled() -> Iterator[list[str]]:
    """Enter a handler for swish, by which everything goes on as it comes."""
    calls: list[str] = []

    @handles(swish)
    def run(run: Propagation, function: Any, x: Tensor) -> Tensor:
        calls.append("called")
        return x * (function(x.detach()) / x.detach())

    yield calls
    del operations._TABLE[swish]


@pytest.mark.parametrize("composite", FORMS)
def test_a_handler_of_one_s_own_is_taken(composite: str, handled: list[str]) -> None:
    x = pictures()
    found = lrp(with_activation(swish), x, composite=composite, strict=True)
    assert handled == ["called"] * 2
    assert found.residual.max() <= TOLERANCE
    assert not any("without a rule" in note for note in found.notes[0])
    assert relative(found.values, lrp(with_activation(F.silu), x, composite=composite).values) <= TOLERANCE


def test_without_a_handler_what_it_is_made_of_is_counted_named_and_refused() -> None:
    net, x = with_activation(swish), pictures()
    found = lrp(net, x, composite="lrp-0")
    notes = [note for note in found.notes[0] if "without a rule" in note]
    assert len(notes) == 1
    assert "sinc (2)" in notes[0]
    assert "first-order expansion" in notes[0]
    assert all(notes[0] in of_picture for of_picture in found.notes)
    with pytest.raises(UnsupportedError, match=r"lrp with strict: .*without a rule of their own: sinc \(2\)"):
        lrp(net, x, composite="lrp-0", strict=True)


def test_an_autograd_function_is_an_operation_that_nobody_knows() -> None:
    """It hands back by its first-order expansion: value times gradient, and what that misses shows."""
    net, x = with_activation(Swish.apply), pictures()
    found = lrp(net, x, composite="lrp-0")
    assert any("without a rule of their own: Swish (2)" in note for note in found.notes[0])
    leaf = x.clone().requires_grad_()
    (g,) = torch.autograd.grad(net(leaf)[:, 1].sum(), leaf)
    assert relative(found.values, x * g) <= TOLERANCE
    assert (found.residual > 1e-3).all()
    with pytest.raises(UnsupportedError, match=r"without a rule of their own: Swish \(2\)"):
        lrp(net, x, composite="lrp-0", strict=True)
    assert not lrp(with_activation(F.silu), x, composite="lrp-0", strict=True).residual.max() > TOLERANCE


@pytest.mark.parametrize("composite", ["epsilon-plus-flat", "epsilon-gamma-box", "auto"])
def test_an_autograd_function_behind_the_first_layer_stands_in_no_rule_s_way(composite: str) -> None:
    found = lrp(with_activation(Swish.apply), pictures(), composite=composite)
    assert any("Swish (2)" in note for note in found.notes[0])
    whole = lrp(with_activation(F.silu), pictures(), composite=composite)
    assert relative(found.values, whole.values) < 1
    assert (found.values != 0).flatten(1).all(1).all()


def test_an_autograd_function_through_which_relevance_itself_would_go_is_refused() -> None:
    x = pictures()
    for composite in ("epsilon-plus-flat", "auto"):
        with pytest.raises(UnsupportedError, match=r"nobody sees into Swish, .*take a composite without flat"):
            lrp(with_activation(F.relu, Swish.apply), x, composite=composite)
    for options in ({"composite": "preset-b-flat-until-2"}, {"composite": "lrp-0", "bias": "distribute"}):
        with pytest.raises(UnsupportedError, match="nobody sees into Swish"):
            lrp(with_activation(Swish.apply), x, **options)
    assert lrp(with_activation(F.relu, Swish.apply), x, composite="epsilon-plus").values.isfinite().all()


def test_a_model_without_unknown_operations_is_not_refused() -> None:
    for kind in ("residual", "depthwise", "attention", "positions", "concatenation", "standardised_weights"):
        assert lrp(net_of(kind), pictures(), strict=True).residual.max() <= TOLERANCE
