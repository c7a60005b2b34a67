"""Sparseness: on how few places the map stands."""

import torch
from jaxtyping import Float
from torch import Tensor

from whence.metrics.claim import Claim
from whence.metrics.noting import notes
from whence.registry import metric
from whence.results import Measured

ZERO = "there is no number: the map is zero"


@metric("sparseness", title="Sparseness", family="complexity", paper="arXiv:1810.06583", needs="map", better="higher")
def sparseness(claim: Claim) -> Measured:
    """Gini index of the map's absolute values: 0 where all places are alike, nearly 1 where one holds everything.

    Chalasani et al. 2020, on the input's grid. NaN where the map is zero.
    """
    value = gini(claim.heat.abs().flatten(1))
    return Measured(value, notes=notes({ZERO: value.isnan()}))


def gini(amounts: Float[Tensor, "b n"]) -> Float[Tensor, " b"]:
    """Return sum_k (2 k - n - 1) a_k / (n sum_k a_k), of the amounts in rising order, k from 1 to n."""
    rising = amounts.double().sort(dim=1).values
    count = rising.shape[1]
    k = torch.arange(1, count + 1, dtype=torch.float64, device=rising.device)
    return (((2 * k - count - 1) * rising).sum(1) / (count * rising.sum(1))).to(amounts)
