"""Maps and models for tests of metrics."""

from collections.abc import Callable

import torch
from torch import Tensor

from small_nets import Lambda
from whence.registry import MetricFacts
from whence.results import Attribution, Passes

# Enough of everything for a metric to do all its steps.
TINY = {"steps": 3, "samples": 3, "percentiles": (30.0, 60.0)}


def tiny(facts: MetricFacts) -> dict[str, object]:
    """Return options that make any metric quick."""
    return {name: value for name, value in TINY.items() if name in facts.options}


def answer(values: Tensor, x: Tensor, target: int = 0) -> Attribution:
    """Return maps that no method made."""
    count = len(values)
    return Attribution(
        method="gradient",
        options={},
        values=values,
        target=torch.full((count,), target),
        score=torch.zeros(count),
        passes=Passes(),
        input_size=tuple(x.shape[2:]),
        notes=((),) * count,
    )


def probability(function: Callable[[Tensor], Tensor]) -> Lambda:
    """Return a model of two classes, the first of which has the probability that a function makes of the pictures."""

    def forward(net: Lambda, x: Tensor) -> Tensor:
        p = function(x)
        return torch.stack((p.log(), (1 - p).log()), dim=1)

    net = Lambda(forward)
    # So that the pictures stay in float64.
    net.register_buffer("like", torch.zeros(1).double())
    return net


def heat(count: int, height: int, width: int, seed: int = 0) -> Tensor:
    """Return signed maps [B, 1, h, w] of different values."""
    return torch.randn(count, 1, height, width, generator=torch.Generator().manual_seed(seed)).double()
