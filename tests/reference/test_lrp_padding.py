"""Relevance that reaches the margin of a padded map is told, as that of a constant."""

import pytest
import torch
from torch import nn

import whence
from whence.methods.lrp import rules
from whence.methods.lrp.composites import Composite


class Padded(nn.Module):
    def __init__(self, value: float, mode: str = "constant") -> None:
        super().__init__()
        self.value, self.mode = value, mode
        self.convolution = nn.Conv2d(2, 3, 3, bias=False)
        self.head = nn.Linear(3, 2, bias=False)
        generator = torch.Generator().manual_seed(3)
        for weights in self.parameters():
            weights.data = torch.randn(weights.shape, generator=generator)

    def forward(self, x):
        value = None if self.mode != "constant" else self.value
        x = nn.functional.pad(x, (2, 1, 0, 2), self.mode, value)
        return self.head(self.convolution(x).relu().mean((2, 3)))


def explained(net, composite, x):
    return whence.attribute(whence.Classifier(net.double()), x, "lrp", target=1, composite=composite).balance


@pytest.fixture
def x():
    return torch.randn(2, 2, 5, 6, generator=torch.Generator().manual_seed(4), dtype=torch.float64)


@pytest.mark.parametrize("rule", [rules.flat(1e-12), rules.w_square(1e-12)], ids=["flat", "w-square"])
def test_a_margin_of_zeros_keeps_what_a_rule_gives_it(rule, x):
    """Every input of a window gets its part by the weights alone, so that the margin's part is known."""
    balance = explained(Padded(0.0), Composite("own", (("first", rule),)), x)
    assert balance.unaccounted.abs().max() < 1e-10
    assert (balance.constants.abs() > 1e-3 * balance.start.abs()).all()


def test_a_margin_of_another_value_keeps_its_share_by_the_plain_rule(x):
    net = Padded(-0.7)
    balance = explained(net, "lrp-0", x)
    # LRP-0 of a piecewise linear net without biases is the derivative times the value, the margin's as well.
    padded = nn.functional.pad(x, (2, 1, 0, 2), value=-0.7).requires_grad_()
    net.head(net.convolution(padded).relu().mean((2, 3)))[:, 1].sum().backward()
    shares = (padded * padded.grad).detach()
    inside = shares[:, :, :5, 2:8].sum((1, 2, 3))
    torch.testing.assert_close(balance.input, inside, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(balance.constants, shares.sum((1, 2, 3)) - inside, rtol=1e-10, atol=1e-10)


def test_a_mirrored_margin_hands_all_back(x):
    balance = explained(Padded(0.0, "reflect"), Composite("own", (("first", rules.flat(1e-12)),)), x)
    assert balance.unaccounted.abs().max() < 1e-10
    assert balance.constants.abs().max() == 0
