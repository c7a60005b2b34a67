"""Promise 1: whatever happens, a model, its input and the global state are after a call what they were before."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_module
from torch.overrides import _get_current_function_mode_stack

from small_nets import SmallNet, drawn, net_for, pictures, tiny_options
from whence import attribute, methods
from whence.errors import WhenceError
from whence.models.classifier import Classifier
from whence.models.session import opened

METHODS = methods.names()
CONVOLUTIONAL = [name for name in METHODS if methods.facts(name).needs != "attention"]
GLOBAL_HOOKS = [name for name, value in vars(torch_module).items() if name.startswith("_global_") and value == {}]


def tensor_state(t: Tensor | None) -> object:
    if t is None:
        return None
    version = None if t.is_inference() else t._version
    content = t.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
    grad = tensor_state(t.grad) if t.is_leaf else None
    return id(t), t.data_ptr(), version, content, t.requires_grad, t.is_leaf, t._backward_hooks, grad


def module_state(module: nn.Module) -> dict[str, object]:
    """Return everything that an instance holds; tensors with their content."""
    held: dict[str, object] = {"identity": id(module), "class": type(module)}
    for key, value in vars(module).items():
        if key in ("_parameters", "_buffers"):
            held[key] = {name: tensor_state(t) for name, t in value.items()}
        elif isinstance(value, dict):
            held[key] = [(name, id(item)) for name, item in value.items()]
        else:
            held[key] = value if isinstance(value, bool | int | float | str) else id(value)
    return held


def world_state() -> dict[str, object]:
    """Return the state of the process that a call could change.

    Python's own generator is missing: the checks of signatures that these tests run under draw from it.
    """
    return {
        "torch generator": torch.get_rng_state().numpy().tobytes(),
        "numpy generator": str(np.random.get_state()),  # noqa: NPY002  (it is the global one that is meant)
        "grad mode": torch.is_grad_enabled(),
        "inference mode": torch.is_inference_mode_enabled(),
        "autocast": (torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu")),
        "autocast cache": torch.is_autocast_cache_enabled(),
        "default type": torch.get_default_dtype(),
        "threads": torch.get_num_threads(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "function modes": len(_get_current_function_mode_stack()),
        "global hooks": [len(getattr(torch_module, name)) for name in GLOBAL_HOOKS],
    }


def state(module: nn.Module, *tensors: Tensor) -> dict[str, object]:
    modules = {path or "the model": module_state(m) for path, m in module.named_modules(remove_duplicate=False)}
    return {**modules, "inputs": [tensor_state(t) for t in tensors], "world": world_state()}


@contextmanager
def untouched(module: nn.Module, *tensors: Tensor) -> Iterator[None]:
    """Assert that nothing of the model, the tensors and the process differs when the block ends."""
    before = state(module, *tensors)
    yield
    after = state(module, *tensors)
    assert after.keys() == before.keys()
    for part in before:
        assert after[part] == before[part], part


def explained(method: str, net: nn.Module, x: Tensor, target: Any = 1) -> Tensor:
    return attribute(Classifier(net), x, method, target=target, **tiny_options(methods.facts(method))).values


# How a model and its input may come; each returns the net to be explained.


def as_it_is(net: nn.Module) -> nn.Module:
    return net


def in_train_mode(net: nn.Module) -> nn.Module:
    return net.train()


def partly_in_train_mode(net: nn.Module) -> nn.Module:
    next(net.children()).train()
    return net


def frozen(net: nn.Module) -> nn.Module:
    return net.requires_grad_(False)


def with_gradients(net: nn.Module) -> nn.Module:
    for p in net.parameters():
        p.grad = torch.full_like(p, 3.0)
    return net


def with_hooks(net: nn.Module) -> nn.Module:
    for layer in net.modules():
        layer.register_forward_hook(lambda *_: None)
        layer.register_forward_pre_hook(lambda *_: None)
        layer.register_state_dict_pre_hook(lambda *_: None)
    return net


def with_backward_hooks(net: nn.Module) -> nn.Module:
    if isinstance(net, SmallNet):
        net = drawn(SmallNet(inplace=False))  # torch itself refuses backward hooks where layers work in place
    for layer in net.modules():
        layer.register_full_backward_hook(lambda *_: None)
    return net


def with_own_forwards(net: nn.Module) -> nn.Module:
    for layer in net.modules():
        layer.forward = layer.forward  # a method bound to the instance, as wrappers of other libraries leave it
    return net


WAYS = [
    as_it_is,
    in_train_mode,
    partly_in_train_mode,
    frozen,
    with_gradients,
    with_hooks,
    with_backward_hooks,
    with_own_forwards,
]


@pytest.mark.filterwarnings("ignore:Full backward hook is firing")
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
@pytest.mark.parametrize("method", METHODS)
def test_a_call_leaves_everything_as_it_was(method: str, way: Callable[[nn.Module], nn.Module]) -> None:
    net = way(net_for(method))
    x = pictures().requires_grad_()
    x.grad = torch.ones_like(x)
    with untouched(net, x):
        explained(method, net, x)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad], ids=lambda m: m.__name__)
@pytest.mark.parametrize("method", METHODS)
def test_the_grad_mode_around_a_call_changes_nothing(method: str, mode: Callable[[], Any]) -> None:
    net = net_for(method)
    expected = explained(method, net, pictures())
    with mode():
        x = pictures()
        with untouched(net, x):
            values = explained(method, net, x)
    assert torch.equal(values, expected)
    assert not values.requires_grad


@pytest.mark.parametrize("method", METHODS)
def test_an_autocast_around_a_call_is_still_there_after_it(method: str) -> None:
    net, x = net_for(method).float(), pictures().float()
    with torch.autocast("cpu", dtype=torch.bfloat16), untouched(net, x):
        explained(method, net, x)


@pytest.mark.parametrize("method", METHODS)
def test_a_model_made_in_inference_mode_gives_the_same_map(method: str) -> None:
    with torch.inference_mode():
        net = net_for(method)
    x = pictures()
    expected = explained(method, net_for(method), x)
    with untouched(net, x):
        first, second = explained(method, net, x), explained(method, net, x)
    assert torch.equal(first, expected)
    assert torch.equal(second, expected)


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("method", METHODS)
def test_a_target_that_raises_leaves_everything_as_it_was(method: str, error: type[BaseException]) -> None:
    net, x = net_for(method), pictures()
    calls = 0

    def target(output: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        if calls == last:
            raise error("stop")
        return output[:, 1]

    last = 0
    explained(method, net, x, target)
    for fatal in range(1, min(calls, 20) + 1):
        calls, last = 0, fatal
        with untouched(net, x):
            _stopped(method, net, x, target, error)


def _stopped(method: str, net: nn.Module, x: Tensor, target: Any, error: type[BaseException]) -> None:
    """Run a method that is stopped: a search that Ctrl-C ends hands over what it has found, and says so."""
    try:
        found: Any = attribute(Classifier(net), x, method, target=target, **tiny_options(methods.facts(method)))
    except error as raised:
        found = raised
    if isinstance(found, error):
        assert str(found) == "stop"
    else:
        assert error is KeyboardInterrupt
        assert {graph.state for graph in found.graphs} == {"interrupted"}


ERRORS = {
    "error": RuntimeError("broken"),
    "out of memory": torch.OutOfMemoryError("out of memory"),
    "interrupt": KeyboardInterrupt(),
}
LAYERS = ["stem", "stem.1", "relu", "block", "block.bn", "down", "dropout", "head"]
LAYERS_VIT = ["patch", "blocks", "blocks.0.attn", "blocks.1.mlp.2", "norm", "head"]


def break_layer(monkeypatch: pytest.MonkeyPatch, layer: nn.Module, error: BaseException, at: int) -> list[int]:
    """Let one layer raise at one of its calls, without leaving a trace on the instance; return a counter of calls."""
    original, calls = type(layer).forward, [0]

    def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        if self is layer:
            calls[0] += 1
            if calls[0] == at:
                raise error
        return original(self, *args, **kwargs)

    monkeypatch.setattr(type(layer), "forward", forward)
    return calls


@pytest.mark.parametrize("at", [1, 2])
@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("method", METHODS)
def test_a_layer_that_raises_leaves_everything_as_it_was(
    method: str, error: str, at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    net, x = net_for(method).train(), pictures()
    for name in LAYERS_VIT if methods.facts(method).needs == "attention" else LAYERS:
        with monkeypatch.context() as patch:
            calls = break_layer(patch, net.get_submodule(name), ERRORS[error], at)
            with untouched(net, x), suppress(WhenceError, RuntimeError, KeyboardInterrupt):
                explained(method, net, x)
            assert calls[0] >= 1


@pytest.mark.parametrize("method", METHODS)
def test_the_model_answers_as_before(method: str) -> None:
    net, x = net_for(method), pictures()
    before = net(x)
    explained(method, net, x)
    assert torch.equal(net(x), before)


class WorksOnItsInput(SmallNet):
    """Normalises its input in place, as some exported models do."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.sub_(0.5).mul_(4.0))


@pytest.mark.parametrize("method", CONVOLUTIONAL)
def test_an_input_that_the_model_works_on_in_place_is_not_changed(method: str) -> None:
    net, twin, x = WorksOnItsInput().eval().double(), drawn(SmallNet()), pictures()
    net.load_state_dict(twin.state_dict())
    with untouched(net, x):
        values = explained(method, net, x)
    if method == "grad-cam":
        assert torch.equal(values, explained(method, twin, (x - 0.5) * 4.0))


def replay_twice(net: nn.Module, x: Tensor, layer: str) -> Tensor:
    with opened(Classifier(net)) as session:
        replay = session.replay(x, layer)
        rows = torch.tensor([1, 0, 1])
        session.replayed(replay, replay.activation[rows], rows)
        return session.replayed(replay, replay.activation[rows], rows)


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_a_replay_leaves_everything_as_it_was(way: Callable[[nn.Module], nn.Module]) -> None:
    net = way(drawn(SmallNet()))
    x = pictures()
    with untouched(net, x):
        replay_twice(net, x, "block.bn")


@pytest.mark.parametrize("at", [1, 2, 3, 4, 5, 6])
@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("layer", LAYERS)
def test_a_replay_in_which_a_layer_raises_leaves_everything_as_it_was(
    layer: str, error: str, at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    net, x = drawn(SmallNet()), pictures()
    break_layer(monkeypatch, net.get_submodule(layer), ERRORS[error], at)
    with untouched(net, x), suppress(WhenceError, RuntimeError, KeyboardInterrupt):
        replay_twice(net, x, "block")
