"""Sparseness: the Gini index, by its definition, by Quantus' sum, and at its ends."""

import numpy as np
import pytest
import torch

from metric_samples import answer, heat
from small_nets import SmallNet, drawn, pictures
from whence.metrics import measure
from whence.metrics.sparseness import gini


def quantus(values: np.ndarray) -> float:
    """The sum of Quantus 0.6.0, which adds 1e-7 to every value."""
    a = np.sort(values.flatten().astype(np.float64) + 0.0000001)
    return float((np.sum((2 * np.arange(1, a.shape[0] + 1) - a.shape[0] - 1) * a)) / (a.shape[0] * np.sum(a)))


def test_it_is_quantus_on_absolute_values():
    net, x, maps = drawn(SmallNet()), pictures(3), heat(3, 16, 16)
    found = measure(net, x, answer(maps, x), "sparseness").value
    assert found.tolist() == pytest.approx([quantus(np.abs(one.numpy())) for one in maps], rel=1e-5)


def test_it_is_the_mean_difference_over_twice_the_mean():
    a = torch.rand(2, 30, generator=torch.Generator().manual_seed(0)).double()
    for value, one in zip(gini(a).tolist(), a, strict=True):
        assert value == pytest.approx(float((one[:, None] - one).abs().mean() / (2 * one.mean())), rel=1e-12)


def test_its_ends():
    assert gini(torch.ones(1, 50)).item() == pytest.approx(0, abs=1e-7)
    one = torch.zeros(1, 50)
    one[0, 7] = 3
    assert gini(one).item() == pytest.approx(1 - 1 / 50)


def test_a_zero_map_has_no_number():
    net, x = drawn(SmallNet()), pictures(2)
    maps = heat(2, 8, 8)
    maps[0] = 0
    found = measure(net, x, answer(maps, x), "sparseness")
    assert found.value.isnan().tolist() == [True, False]
    assert found.notes == (("there is no number: the map is zero",), ())
