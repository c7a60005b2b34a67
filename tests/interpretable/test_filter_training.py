"""A few steps of a training: the filter losses do what they are for."""

import pytest
import torch
from torch import Tensor, nn

from small_nets import drawn
from whence.interpretable import LOSSES, Interpretable, Strength, filter_loss, interpretable, mutual_information
from whence.interpretable.losses import LABELLED
from whence.models.masked.mask import masks

K, C, B, STEPS = 6, 2, 12, 20


def batch() -> tuple[Tensor, Tensor]:
    """Return noise with a bright spot somewhere, wide in one class and high in the other."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(B, 1, 12, 12, generator=generator, dtype=torch.float64)
    labels = torch.arange(B) % C
    corners = torch.randint(8, (B, 2), generator=generator).tolist()
    for b, (i, j) in enumerate(corners):
        x[b, :, i : i + 2 + 2 * (b % 2), j : j + 4 - 2 * (b % 2)] += 4
    return x, labels


def tiny() -> Interpretable:
    net = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, K, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(K, C),
    )
    return interpretable(drawn(net, shape=(1, 12, 12)), batch()[0], "3", classes=C)


def trained(name: str | None) -> tuple[Tensor, Tensor]:
    """Return the raw maps and the labels after some steps with that filter loss, or with the task's alone."""
    net, (x, labels), strength = tiny(), batch(), Strength(every=5)
    optimiser = torch.optim.SGD(net.parameters(), lr=0.02)
    categories = net.interpretable.categories
    for _ in range(STEPS):
        with net.recording() as raw:
            task = nn.functional.cross_entropy(net(x), labels)
        categories.update(raw[0], labels)
        loss = task
        if name is not None:
            filters = filter_loss(name, raw[0], categories.positive(labels)).sum()
            strength = strength.after(task, filters, raw[0])
            loss = task + strength.weight * filters
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    with net.recording() as raw, torch.no_grad():
        net(x)
    return raw[0], net.interpretable.categories.positive(labels)


@pytest.fixture(scope="module")
def control() -> tuple[Tensor, Tensor]:
    return trained(None)


def concentration(x: Tensor) -> float:
    """Return the share of activation inside the diamond around each map's peak."""
    inside = x * (masks(x, 4.0, "argmax") > 0)
    return float((inside.sum((0, 2, 3)) / x.sum((0, 2, 3))).mean())


def test_mutual_information_rises(control: tuple[Tensor, Tensor]) -> None:
    net = tiny()
    with net.recording() as raw, torch.no_grad():
        net(batch()[0])
    start, end = (float(mutual_information(x).sum()) for x in (raw[0], trained("mutual-information")[0]))
    assert end < start - 0.1
    assert end < float(mutual_information(control[0]).sum()) - 0.1


@pytest.mark.parametrize("name", sorted({*LOSSES} - {"mutual-information"}))
def test_activation_gathers_around_the_peak(control: tuple[Tensor, Tensor], name: str) -> None:
    assert concentration(trained(name)[0]) > concentration(control[0]) + 0.002


@pytest.mark.parametrize("name", sorted(LABELLED))
def test_filters_turn_to_their_category(control: tuple[Tensor, Tensor], name: str) -> None:
    def contrast(x: Tensor, positive: Tensor) -> float:
        mass = x.sum((2, 3))
        return float(mass[positive].mean() / mass[~positive].mean())

    assert contrast(*trained(name)) > contrast(*control) + 0.002
