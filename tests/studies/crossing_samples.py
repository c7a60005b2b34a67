"""Judgements and tables for tests of cross-testing."""

import torch

from small_nets import Lambda
from whence.reports.scores import Asked
from whence.results import Attribution, Passes
from whence.studies.crossing.matrix import Judgements

METRICS = ("deletion:grid=4", "insertion:grid=4")
INSERTION = Asked("insertion:grid=4", "Insertion", "higher")


def judgements(scores, metric=INSERTION, models=None, correct=None, full=0.9, base=0.1):
    """Return judgements that have the given scores [n, m, m]."""
    scores = torch.as_tensor(scores, dtype=torch.float64)
    names = models or tuple("abcdefgh"[: scores.shape[1]])
    whole, gone = torch.full_like(scores, full), torch.full_like(scores, base)
    return Judgements("grad-cam", metric, names, gone + scores * (whole - gone), whole, gone, correct)


def around(mean, count, spread=0.05, seed=0):
    """Return scores [n, m, m] around a matrix."""
    mean = torch.as_tensor(mean, dtype=torch.float64)
    noise = torch.randn(count, *mean.shape, generator=torch.Generator().manual_seed(seed)).double()
    return mean + spread * (noise - noise.mean(0))


class Study:
    """What stands in for a study: it has a table."""

    def __init__(self, table):
        self.rows = table

    def table(self):
        return self.rows


def heat(count, height, width, seed=0):
    """Return signed maps [B, 1, h, w] of different values."""
    return torch.randn(count, 1, height, width, generator=torch.Generator().manual_seed(seed)).double()


def answer(values, x):
    """Return maps that no method made."""
    return Attribution(
        method="gradient",
        options={},
        values=values,
        target=torch.zeros(len(values), dtype=torch.long),
        score=torch.zeros(len(values)),
        passes=Passes(),
        input_size=tuple(x.shape[2:]),
        notes=((),) * len(values),
    )


def probability(function):
    """Return a model of two classes, the first of which has the probability that a function makes of the pictures."""

    def forward(net, x):
        p = function(x)
        return torch.stack((p.log(), (1 - p).log()), dim=1)

    net = Lambda(forward)
    # So that the pictures stay in float64.
    net.register_buffer("like", torch.zeros(1).double())
    return net
