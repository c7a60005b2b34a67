"""Threads that share one model get what one thread alone gets, and the model stays what it is."""

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from small_nets import SmallNet, drawn, net_for, pictures, tiny_options
from whence import attribute, methods
from whence.models.classifier import Classifier
from whence.models.session import opened

THREADS, CALLS = 8, 50
CONVOLUTIONAL = [name for name in methods.names() if methods.facts(name).needs != "attention"]
# Quick ones take part in the long mix.
# CAM refuses most of these targets and layers.
QUICK = [name for name in CONVOLUTIONAL if methods.facts(name).family != "perturbation" and name != "cam"]
LAYERS = [None, "stem.1", "block.bn", "relu#1", ("relu", "down")]
TARGETS = [None, 0, 3, "second", "1 - 2", [4, 1], lambda output: output[:, 1].exp()]


def jobs() -> list[tuple[str, Any, dict[str, object]]]:
    """Return a mix of methods, targets and layers."""
    kinds = []
    for index in range(CALLS):
        method = QUICK[index % len(QUICK)]
        facts = methods.facts(method)
        options = tiny_options(facts)
        if "layer" in facts.options and facts.needs == "layer":
            layer = LAYERS[index // len(QUICK) % len(LAYERS)]
            options["layer"] = layer if facts.options["layer"].many or not isinstance(layer, tuple) else layer[0]
        kinds.append((method, TARGETS[index % len(TARGETS)], options))
    return kinds


def run(model: Classifier, x: Tensor, job: tuple[str, Any, dict[str, object]]) -> Tensor:
    method, target, options = job
    return attribute(model, x, method, target=target, **options).values


def replayed(model: Classifier, x: Tensor, layer: str) -> Tensor:
    """Return the logits of a replay with the pictures exchanged."""
    with opened(model) as session:
        replay = session.replay(x, layer)
        rows = torch.tensor([1, 0])
        return session.replayed(replay, replay.activation[rows], rows)


def test_a_mix_of_calls_in_eight_threads() -> None:
    # In train mode, so that a flag put back by one thread would be seen by another.
    net, x = drawn(SmallNet()).train(), pictures()
    weights = {name: t.clone() for name, t in net.state_dict().items()}
    expected = [run(Classifier(net), x, job) for job in jobs()]
    logits = replayed(Classifier(net), x, "block")
    shared = Classifier(net)
    start = threading.Barrier(THREADS)

    def work(offset: int) -> list[bool]:
        start.wait()
        order = [(i + 7 * offset) % CALLS for i in range(CALLS)]
        # Every second thread has a classifier of its own around the same module.
        model = shared if offset % 2 else Classifier(net)
        right = [torch.equal(run(model, x, jobs()[i]), expected[i]) for i in order]
        return right + [torch.equal(replayed(model, x, layer), logits) for layer in ("block", "stem", "down")]

    with ThreadPoolExecutor(THREADS) as pool:
        right = [right for of_thread in pool.map(work, range(THREADS)) for right in of_thread]
    assert len(right) == THREADS * (CALLS + 3)
    assert all(right)
    assert all(torch.equal(t, weights[name]) for name, t in net.state_dict().items())
    assert not any(m._forward_hooks or "forward" in vars(m) for m in net.modules())
    assert all(m.training for m in net.modules())


@pytest.mark.parametrize("method", methods.names())
def test_each_method_in_four_threads(method: str) -> None:
    net, x = net_for(method), pictures()
    options = tiny_options(methods.facts(method))
    expected = [attribute(Classifier(net), x, method, target=k, **options).values for k in range(4)]
    model = Classifier(net)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda k: attribute(model, x, method, target=k % 4, **options).values, range(12)))
    assert all(torch.equal(values, expected[k % 4]) for k, values in enumerate(found))


def test_plain_forwards_are_right_while_another_thread_explains() -> None:
    net, x = drawn(SmallNet()), pictures()
    model = Classifier(net)
    others = pictures(3, seed=1)
    expected = net(others)

    def explain() -> None:
        for index in range(15):
            attribute(model, x, "grad-cam", target=index % 5)
            with opened(model) as session:
                replay = session.replay(x, "block")
                session.replayed(replay, replay.activation, torch.arange(2))

    right = []
    with ThreadPoolExecutor(1) as pool:
        explaining = pool.submit(explain)
        while not explaining.done() or not right:
            output = net(others)
            right.append(torch.equal(output, expected) and output.requires_grad)
    explaining.result()
    assert all(right)


def test_a_forward_of_another_thread_in_the_middle_of_a_recording_is_neither_recorded_nor_replaced() -> None:
    x, others = pictures(), pictures(3, seed=1)

    class Meeting(nn.Module):
        """Lets another thread run the whole model before it goes on."""

        net: SmallNet
        seen: Tensor | None = None

        def forward(self, x: Tensor) -> Tensor:
            if threading.current_thread() is threading.main_thread():
                with ThreadPoolExecutor(1) as pool:
                    type(self).seen = pool.submit(lambda: type(self).net(others)).result()
            return x

    net = drawn(SmallNet())
    expected, plain = attribute(Classifier(net), x, "grad-cam", target=1, layer="relu#1").values, net(others)
    net.dropout = Meeting()
    Meeting.net = net
    assert torch.equal(attribute(Classifier(net), x, "grad-cam", target=1, layer="relu#1").values, expected)
    assert Meeting.seen is not None
    assert torch.equal(Meeting.seen, plain)


def test_the_grad_mode_of_other_threads_is_their_own() -> None:
    net, x = drawn(SmallNet()), pictures()
    modes = []

    def target(output: Tensor) -> Tensor:
        with ThreadPoolExecutor(1) as pool:
            modes.append(pool.submit(torch.is_grad_enabled).result())
        return output[:, 0]

    attribute(Classifier(net), x, "gradient", target=target)
    assert modes == [True]
