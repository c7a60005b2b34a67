"""The strength of the filter loss: gradients' ratio, averaged, and nothing else."""

import pytest
import torch
from torch import Tensor

from whence.errors import OptionError
from whence.interpretable import Strength


def losses(task: float, filters: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return two losses whose gradients to x have norms of 2 sqrt(6) times the numbers given."""
    x = torch.zeros(1, 2, 3, 4, dtype=torch.float64, requires_grad=True)
    return task * x.sum(), filters * x.sum(), x


def test_it_matches_the_gradients() -> None:
    strength = Strength(relative=0.5).after(*losses(6.0, -2.0))
    assert strength.weight == pytest.approx(1.5)
    assert Strength(relative=0.5).weight == 0


def test_it_is_measured_every_so_often_and_averaged() -> None:
    strength, expected = Strength(every=3, momentum=0.8), None
    for step in range(10):
        strength = strength.after(*losses(step + 1.0, 1.0))
        if step % 3 == 0:
            expected = step + 1.0 if expected is None else 0.8 * expected + 0.2 * (step + 1.0)
        assert strength.weight == pytest.approx(expected)
    assert strength.step == 10


def test_the_graphs_are_kept_and_no_gradient_is_left() -> None:
    task, filters, x = losses(1.0, 1.0)
    Strength().after(task, filters, x)
    assert x.grad is None
    (task + filters).backward()


@pytest.mark.parametrize(("task", "filters"), [(1.0, 0.0), (float("nan"), 1.0), (1.0, float("inf")), (0.0, 0.0)])
def test_what_cannot_be_measured_is_measured_at_the_next_batch(task: float, filters: float) -> None:
    strength = Strength().after(*losses(task, filters))
    assert strength.ratio is None
    assert strength.after(*losses(3.0, 1.0)).weight == pytest.approx(3.0)


@pytest.mark.parametrize("wrong", [{"relative": -1.0}, {"every": 0}, {"momentum": 1.0}])
def test_numbers_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(OptionError, match="relative >= 0"):
        Strength(**wrong)
