"""Max-sensitivity: by how much the map changes when the picture hardly does."""

import torch
from torch import Generator

from whence.attribution import attribute_all
from whence.methods.numbers import at_least
from whence.metrics.claim import Claim
from whence.metrics.noting import notes
from whence.metrics.substrates import in_input
from whence.registry import metric
from whence.results import Measured, Passes

ZERO = "there is no number: the picture's own map is zero, and no change has a size relative to it"


@metric(
    "max-sensitivity",
    title="Max-sensitivity",
    family="robustness",
    paper="arXiv:1901.09392",
    needs="method",
    better="lower",
)
def max_sensitivity(claim: Claim, *, radius: float = 0.02, samples: int = 10, seed: int = 0) -> Measured:
    """Largest relative change of the map where no value of the picture moves by more than a little.

    Yeh et al. 2019: max |Phi(x + e) - Phi(x)| / |Phi(x)|, Euclidean norms over the map's own values, over ``samples``
    draws of e, even between -``radius`` and ``radius``, in units of the pixel range. The method runs again with its
    options, for the same class. NaN where the map is zero.
    """
    at_least(radius=(radius, 0), samples=(samples, 1))
    generator = Generator().manual_seed(seed)
    own = claim.answer.values.to(claim.x.device)
    norm = own.flatten(1).norm(dim=1)
    changes, passes = [], Passes()
    for _ in range(samples):
        even = (2 * torch.rand(claim.x.shape[1:], generator=generator) - 1).to(claim.x)
        moved = claim.x + in_input(radius * even, claim.classifier.pixels)
        (answer,) = attribute_all(
            claim.classifier,
            moved,
            claim.answer.method,
            [list(claim.explained)],
            claim.answer.options,
            names=claim.names,
        )
        passes += answer.passes
        changes.append((answer.values - own).flatten(1).norm(dim=1))
    value = torch.where(norm > 0, torch.stack(changes).amax(0) / norm, torch.nan)
    return Measured(value, passes=passes, notes=notes({ZERO: norm == 0}))
