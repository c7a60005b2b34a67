"""Categories of filters, against loops over pictures and filters."""

import copy

import pytest
import torch
from torch import Tensor

from whence.errors import OptionError
from whence.interpretable import Categories

C, K, B = 3, 4, 6


def batch(seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(B, K, 3, 5, generator=generator, dtype=torch.float64)
    # The first batches show no picture of class 2.
    return x, torch.randint(C if seed > 1 else C - 1, (B,), generator=generator)


def averages(batches: list[tuple[Tensor, Tensor]], statistic: str, momentum: float) -> dict[int, list[float]]:
    found: dict[int, list[float]] = {}
    for x, labels in batches:
        for c in range(C):
            mine = [b for b in range(B) if int(labels[b]) == c]
            if not mine:
                continue
            for k in range(K):
                mean = sum(float(getattr(x[b, k], statistic)()) for b in mine) / len(mine)
                if c not in found or len(found[c]) <= k:
                    found.setdefault(c, []).append(mean)
                else:
                    found[c][k] = momentum * found[c][k] + (1 - momentum) * mean
    return found


@pytest.mark.parametrize("statistic", ["max", "sum"])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("count", [1, 2, 5])
def test_the_average_goes_over_the_batches_that_show_a_class(statistic: str, momentum: float, count: int) -> None:
    categories = Categories(C, K, statistic=statistic, momentum=momentum).double()
    batches = [batch(seed) for seed in range(count)]
    for x, labels in batches:
        categories.update(x, labels)
    expected = averages(batches, statistic, momentum)
    assert categories.seen.tolist() == [c in expected for c in range(C)]
    for c, row in expected.items():
        assert categories.activation[c].tolist() == pytest.approx(row, abs=1e-13)
    best = [max(expected, key=lambda c: expected[c][k]) for k in range(K)]
    assert categories.assigned().tolist() == best
    labels = batches[-1][1]
    assert categories.positive(labels).tolist() == [[int(y) == c for c in best] for y in labels]


def test_a_class_that_was_not_seen_takes_no_filter_although_others_are_silent() -> None:
    categories = Categories(C, K)
    categories.update(torch.zeros(2, K, 3, 3), torch.tensor([1, 1]))
    assert categories.assigned().tolist() == [1] * K


def test_nothing_changes_in_eval_mode_or_once_frozen() -> None:
    categories = Categories(C, K).double()
    categories.update(*batch(0))
    before = copy.deepcopy(categories.state_dict())
    categories.eval()
    categories.update(*batch(1))
    assert all(torch.equal(before[key], value) for key, value in categories.state_dict().items())
    categories.train().freeze()
    categories.update(*batch(1))
    assert torch.equal(before["activation"], categories.activation)
    again = Categories(C, K).double()
    again.load_state_dict(categories.state_dict())
    again.update(*batch(1))
    assert torch.equal(again.activation, categories.activation)


def test_no_graph_is_kept() -> None:
    categories = Categories(C, K).double()
    x, labels = batch(0)
    categories.update(x.requires_grad_(), labels)
    assert not categories.activation.requires_grad


def test_under_autocast_averages_are_exact() -> None:
    x, labels = batch(3)
    plain, halved = Categories(C, K), Categories(C, K)
    plain.update(x.float(), labels)
    with torch.autocast("cpu", torch.bfloat16):
        halved.update(x.float(), labels)
    assert torch.equal(plain.activation, halved.activation)


def test_errors_say_what_to_do() -> None:
    with pytest.raises(OptionError, match="3 filters cannot stand for 4 classes: choose a layer of at least 4"):
        Categories(4, 3)
    with pytest.raises(OptionError, match="momentum"):
        Categories(C, K, momentum=1.0)
    with pytest.raises(OptionError, match="max"):
        Categories.__init__.__wrapped__(Categories.__new__(Categories), C, K, statistic="maximum")
    categories = Categories(C, K).double()
    with pytest.raises(OptionError, match="call update"):
        categories.assigned()
    x, _ = batch(0)
    for labels in ([0, 1, 2, 3, 0, 0], [0, -1, 2, 0, 0, 0]):
        with pytest.raises(OptionError, match="give 0 to 2"):
            categories.update(x, torch.tensor(labels))
