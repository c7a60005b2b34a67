"""p(x|T) of all maps and templates, and the mutual information between them.

CVPR 2018, eqs. (1) to (5): one filter's map x of each picture of the batch, and the T = H W + 1 templates, which all
have the prior p(T) = 1 / T (the paper's alpha = n^2 / (1 + n^2)).
"""

from dataclasses import dataclass
from math import log

import torch
from jaxtyping import Float
from torch import Tensor

from whence.models.masked.ranks import logsumexp, summed
from whence.models.masked.templates import exact, table


@dataclass(frozen=True)
class Likelihood:
    """Logarithms, per map [B, K] and template [T]: ``given`` is log p(x|T), ``x`` is log p(x)."""

    given: Float[Tensor, "b k t"]
    x: Float[Tensor, "b k"]

    @property
    def templates(self) -> int:
        """How many templates there are; each has the prior of one over that."""
        return self.given.shape[2]

    @property
    def pmi(self) -> Float[Tensor, "b k t"]:
        """The pointwise mutual information log p(x|T) / p(x)."""
        return self.given - self.x[..., None]


def likelihood(x: Float[Tensor, "b k h w"], beta: float, gain: float) -> Likelihood:
    """Return p(x|T) = exp(sum x o T) / Z_T and p(x) = sum_T p(T) p(x|T) over the batch (eq. (2)), tau = gain / (H W).

    Z_T is the sum over the batch's maps of the filter, over those of all processes where there are several.
    """
    tau = gain / (x.shape[2] * x.shape[3])
    with torch.autocast(x.device.type, enabled=False):
        s = x.flatten(2) @ (tau * table(x, beta)).T
    given = s - logsumexp(s)
    return Likelihood(given, given.logsumexp(2) - log(given.shape[2]))


def mutual_information(x: Float[Tensor, "b k h w"], *, beta: float = 4.0, gain: float = 8.0) -> Float[Tensor, " k"]:
    """Return Loss_f = -MI(X; T) = -sum_T p(T) sum_x p(x|T) log p(x|T) / p(x) for each filter (eq. (1)), in nats.

    Exact over the batch, and over the batches of all processes; it needs no labels. ``gain`` is tau H W: the paper's
    tau has 0.5, which leaves p(x|T) almost uniform where activations are of the order of one.
    """
    p = likelihood(exact(x), beta, gain)
    return -summed((p.given.exp() * p.pmi).sum((0, 2))) / p.templates


@dataclass(frozen=True)
class Terms:
    """The three terms of eq. (5), whose sum is Loss_f; per filter, in nats.

    ``prior`` is -H(T), a constant. ``inter_category`` is H(T' = {T-, T+} | X): low where a map tells whether the
    filter fires at all. ``spatial`` is sum_x p(T+, x) H(T+ | X = x): low where a map that fires tells where.
    """

    prior: Float[Tensor, " k"]
    inter_category: Float[Tensor, " k"]
    spatial: Float[Tensor, " k"]


def _entropy(log_p: Float[Tensor, "b k n"]) -> Float[Tensor, "b k"]:
    """Return -sum p log p along the last axis."""
    return -(log_p.exp() * log_p).sum(2)


@torch.no_grad()
def terms(x: Float[Tensor, "b k h w"], *, beta: float = 4.0, gain: float = 8.0) -> Terms:
    """Return the parts of ``mutual_information`` with the same options, to be looked at during training."""
    p = likelihood(exact(x), beta, gain)
    posterior = p.pmi - log(p.templates)  # log p(T|x)
    positive = posterior[..., :-1].logsumexp(2)  # log p(T+|x)
    sides = torch.stack((positive, posterior[..., -1]), 2)
    where = posterior[..., :-1] - positive[..., None]  # log p(T_mu | T+, x)
    inter = summed((p.x.exp() * _entropy(sides)).sum(0))
    spatial = summed(((p.x + positive).exp() * _entropy(where)).sum(0))
    return Terms(torch.full_like(inter, -log(p.templates)), inter, spatial)
