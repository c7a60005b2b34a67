"""Whatever happens on the way, LRP leaves model, input and process as they were, and nothing of its own behind."""

import gc
import sys
import warnings
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from lrp_nets import KINDS, lrp, net_of, stirred
from torch import Tensor, nn
from torch.overrides import wrap_torch_function

from small_nets import Lambda, SmallNet, drawn, pictures
from whence.errors import UnsupportedError
from whence.methods.lrp import named, operations, rules
from whence.methods.lrp.composites import Composite
from whence.methods.lrp.linear import Node
from whence.methods.lrp.operations import handles
from whence.methods.lrp.propagation import Propagation
from whence.methods.lrp.rules import Group, Part, Rule
from whence.models.classifier import Classifier

sys.path.append(str(Path(__file__).parents[1] / "promises"))
from test_untouched import untouched

FORMS = ["lrp-0", "epsilon-plus-flat", "preset-b-flat-until-2", "auto"]
ERRORS: list[type[BaseException]] = [ValueError, KeyboardInterrupt]
OPTIONS: list[dict[str, Any]] = [
    {},
    {"layer": "all"},
    {"layer": "relu#1", "keep": "stem:0+3"},
    {"start": "sglrp-two-pass"},
    {"start": "clrp2"},
    {"bias": "distribute"},
]


def prepared(kind: str) -> tuple[nn.Module, Tensor]:
    """Return a net in train mode with gradients and hooks of the user's own, and an input that wants gradients."""
    net, x = stirred(KINDS[kind]()).train(), pictures().requires_grad_()
    for p in net.parameters():
        p.grad = torch.full_like(p, 3.0)
    next(net.parameters()).requires_grad_(False)
    for layer in net.modules():
        layer.register_forward_hook(lambda *_: None)
    x.grad = torch.ones_like(x)
    return net, x


@pytest.mark.parametrize("kind", ["in_place", "written_to", "attention", "standardised_weights"])
@pytest.mark.parametrize("composite", FORMS)
def test_a_call_leaves_everything_as_it_was(composite: str, kind: str) -> None:
    net, x = prepared(kind)
    with untouched(net, x):
        lrp(net, x, composite=composite)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_no_option_leaves_a_trace(options: dict[str, Any]) -> None:
    net, x = prepared("in_place")
    with untouched(net, x):
        lrp(net, x, **options)


# Errors in the middle


def failing(error: type[BaseException], at: int) -> tuple[Composite, list[int]]:
    """Return a composite whose rule raises when it has been asked for weights for the ``at``-th time."""
    calls = [0]

    def weights(w: Tensor) -> Tensor:
        calls[0] += 1
        if calls[0] == at:
            raise error("stop")
        return w

    rule = Rule("failing", (Group((Part("all", weights),)),))
    return Composite("failing", (("convolution", rule),)), calls


@pytest.mark.parametrize("at", [1, 2, 3])
@pytest.mark.parametrize("error", ERRORS, ids=lambda e: e.__name__)
@pytest.mark.parametrize("options", [OPTIONS[0], OPTIONS[1], OPTIONS[3]], ids=str)
def test_a_rule_that_raises_on_the_way_back(options: dict[str, Any], error: type[BaseException], at: int) -> None:
    net, x = prepared("in_place")
    composite, calls = failing(error, at)
    with untouched(net, x), pytest.raises(error, match="stop"):
        lrp(net, x, composite=composite, **options)
    assert calls == [at]
    # And the next call is none the worse for it.
    fresh = stirred(KINDS["in_place"]()).train()
    assert torch.equal(lrp(net, x).values, lrp(fresh, x).values)


@pytest.mark.parametrize("error", ERRORS, ids=lambda e: e.__name__)
def test_a_place_that_raises_on_the_way_back(error: type[BaseException]) -> None:
    def where(node: Node) -> bool:
        if node.name == "block.conv":
            raise error("stop")
        return False

    net, x = prepared("residual")
    with untouched(net, x), pytest.raises(error, match="stop"):
        lrp(net, x, composite=Composite("failing", ((where, rules.flat()),)))


@wrap_torch_function(lambda x: (x,))
def identity(x: Tensor) -> Tensor:
    return x * 1


@pytest.fixture
def raising() -> Iterator[list[type[BaseException]]]:
    """Enter a handler for ``identity`` that raises what it is given, in the middle of an operation of its own."""
    given: list[type[BaseException]] = []

    @handles(identity, expands=True)
    def run(propagation: Propagation, function: Any, x: Tensor) -> Tensor:
        with propagation:
            y = x.relu()
            if given:
                raise given[0]("stop")
            return y

    yield given
    del operations._TABLE[identity]


@pytest.mark.parametrize("composite", FORMS)
@pytest.mark.parametrize("error", ERRORS, ids=lambda e: e.__name__)
def test_a_handler_that_raises_on_the_way_forward(
    error: type[BaseException], composite: str, raising: list[type[BaseException]]
) -> None:
    net = stirred(
        nn.Sequential(SmallNet().stem, Lambda(lambda net, x: identity(x)), nn.Flatten(), nn.Linear(1536, 5))
    )
    x = pictures()
    expected = lrp(net, x, composite=composite).values
    raising.append(error)
    net.train()
    with untouched(net, x), pytest.raises((error, Exception), match="stop"):
        lrp(net, x, composite=composite, layer="all")
    raising.clear()
    assert torch.equal(lrp(net.eval(), x, composite=composite).values, expected)


@pytest.mark.parametrize("error", ERRORS, ids=lambda e: e.__name__)
def test_attention_that_raises_in_the_middle(error: type[BaseException], monkeypatch: pytest.MonkeyPatch) -> None:
    """What is known of the attention that runs goes with it."""
    net, x = net_of("positions"), pictures()
    expected = lrp(net, x)

    def fail(*_: object) -> Tensor:
        raise error("stop")

    with monkeypatch.context() as patch:
        patch.setattr(Propagation, "carry", fail)
        with untouched(net, x), pytest.raises((error, Exception), match="stop"):
            lrp(net, x)
    again = lrp(net, x)
    assert torch.equal(again.values, expected.values)
    assert torch.equal(again.balance.bias, expected.balance.bias)


# Threads


@pytest.mark.parametrize("kind", ["in_place", "positions"])
def test_threads_on_one_model_get_what_each_would_get_alone(kind: str) -> None:
    net = stirred(KINDS[kind]()).train()
    jobs = [(seed, form) for seed in range(2) for form in FORMS]
    expected = [lrp(Classifier(net), pictures(seed=seed), composite=form).values for seed, form in jobs]
    shared = Classifier(net)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda job: lrp(shared, pictures(seed=job[0]), composite=job[1]).values, jobs))
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    assert all(layer.training for layer in net.modules())


def test_a_forward_of_another_thread_is_not_intercepted() -> None:
    net, x = net_of("residual"), pictures()
    others = pictures(3, seed=1)
    plain = net(others).detach()
    seen: list[Tensor] = []

    def where(node: Node) -> bool:
        with ThreadPoolExecutor(1) as pool:
            seen.append(pool.submit(lambda: net(others)).result())
        return False

    inside = Lambda(lambda module, x: (where(None), x)[1])  # type: ignore[arg-type]
    lrp(nn.Sequential(net, inside), x, composite=Composite("looking", ((where, rules.zero()),)))
    assert len(seen) > 2
    assert all(torch.equal(output, plain) and not hasattr(output, "_whence_lrp") for output in seen)


# What is refused


def test_a_script_is_refused_with_a_sentence() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        script = torch.jit.trace(nn.Conv2d(3, 4, 3).double(), pictures())
    for net in (script, nn.Sequential(script, nn.ReLU(), nn.Flatten(), nn.Linear(4 * 14 * 14, 5)).double()):
        with pytest.raises(UnsupportedError, match="holds a script, which cannot be seen into: explain the module"):
            lrp(net, pictures())


def test_statistics_of_the_batch_are_refused() -> None:
    """A batch norm without running statistics uses those of the batch in eval mode, too."""
    norm = nn.BatchNorm2d(4, track_running_stats=False)
    net = drawn(nn.Sequential(nn.Conv2d(3, 4, 3), norm, nn.Flatten(), nn.Linear(4 * 14 * 14, 5)))
    x = pictures()
    with (
        untouched(net, x),
        pytest.raises(UnsupportedError, match="statistics of the batch, which mixes its pictures"),
    ):
        lrp(net, x)


# Nothing stays behind


def attributes(*tensors: Tensor) -> list[str]:
    return [name for t in tensors for name in vars(t)]


@pytest.mark.parametrize(("kind", "composite"), [(kind, FORMS[i % 4]) for i, kind in enumerate(KINDS)])
def test_nothing_of_ours_is_on_the_user_s_tensors(kind: str, composite: str) -> None:
    net, x = net_of(kind), pictures().requires_grad_()
    lrp(net, x, composite=composite, layer="all")
    assert attributes(x, *net.parameters(), *net.buffers()) == []


def alive() -> int:
    """Return how many operations and runs are alive."""
    return sum(isinstance(thing, Node | Propagation) for thing in gc.get_objects())


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("kind", ["in_place", "written_to", "attention", "concatenation", "branches"])
def test_activations_go_with_the_call(kind: str, options: dict[str, Any]) -> None:
    """At once, without the collector: a circle that goes through autograd's graph it could not take apart."""
    if kind != "in_place" and ("layer" in options and options["layer"] != "all"):
        options = {"layer": "all"}
    activations: list[weakref.ref[Tensor]] = []
    net = stirred(KINDS[kind]())
    for layer in net.modules():
        layer.register_forward_hook(lambda *args: activations.append(weakref.ref(args[2])))
    gc.collect()
    gc.disable()
    try:
        before = alive()
        for composite in FORMS[1:3]:
            answer = lrp(net, pictures(), composite=composite, **options)
            assert [ref() for ref in activations if ref() is not None] == []
            assert not answer.values.requires_grad
            assert all(not r.requires_grad for r in answer.layers.values())
        assert alive() == before
    finally:
        gc.enable()
    assert len(activations) >= 10


@pytest.mark.filterwarnings("ignore")
def test_activations_go_also_when_a_rule_raises() -> None:
    net, composite = net_of("in_place"), failing(ValueError, 2)[0]
    gc.collect()
    before = alive()
    with pytest.raises(ValueError, match="stop"):
        lrp(net, pictures(), composite=composite)
    gc.collect()
    assert alive() == before


def test_the_same_call_gives_the_same_bits() -> None:
    for kind in ("residual", "positions", "squeeze_excitation"):
        net, x = net_of(kind), pictures()
        first, second = (lrp(net, x, composite=replace(named.epsilon_plus_flat(), name="mine")) for _ in range(2))
        assert torch.equal(first.values, second.values)
        assert torch.equal(first.balance.bias, second.balance.bias)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode], ids=lambda mode: mode.__name__)
def test_grad_modes_around_the_call_change_nothing(mode: Callable[[], Any]) -> None:
    net, x = net_of("in_place"), pictures()
    expected = lrp(net, x, layer="all", start="clrp1")
    with mode():
        found = lrp(net, x, layer="all", start="clrp1")
    assert torch.equal(found.values, expected.values)
    assert all(torch.equal(found.layers[name], r) for name, r in expected.layers.items())


@pytest.mark.filterwarnings("ignore:Full backward hook is firing")
@pytest.mark.parametrize("composite", FORMS)
def test_backward_hooks_of_the_user_s_change_nothing(composite: str) -> None:
    """Torch runs a module with such hooks between two identities that nobody sees into."""
    layers = nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 12 * 12, 5)
    net, x = stirred(nn.Sequential(*layers)), pictures()
    expected = lrp(net, x, composite=composite)
    for layer in net.modules():
        layer.register_full_backward_hook(lambda *_: None)
    found = lrp(net, x, composite=composite, strict=True)
    assert torch.equal(found.values, expected.values)
