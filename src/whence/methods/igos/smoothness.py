"""What keeps masks smooth: total variation, and its bilateral form, which is cheap across the picture's own edges."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

Steps = tuple[Float[Tensor, "n c h1 w"], Float[Tensor, "n c h w1"]]


def steps(values: Float[Tensor, "n c h w"]) -> Steps:
    """Return the differences from each place to the next one down, and to the next one across."""
    return values.diff(dim=2), values.diff(dim=3)


def total_variation(mask: Float[Tensor, "n 1 s t"]) -> Float[Tensor, " n"]:
    """Return TV(m): the mean squared step down plus the mean squared step across; 0 along a side of one cell."""
    return torch.stack([_mean(step**2) for step in steps(mask)]).sum(0)


def _mean(values: Float[Tensor, "n 1 h w"]) -> Float[Tensor, " n"]:
    return values.sum((1, 2, 3)) / max(1, values[0].numel())


@dataclass(frozen=True, eq=False)
class Bilateral:
    """BTV(I, m) = 1/2 [TV(m) + mean w_v (d_v U m)^2 + mean w_h (d_h U m)^2] for the pictures that it was made of.

    The weights w = exp(-(mean_c d I)^2 / sigma) are small where the picture itself has an edge. The authors' code
    averages over the colours before the exponential downwards and after it across (``skewed``), so that a picture
    on its side has another value; here both are made as it does downwards.
    """

    down: Float[Tensor, "b 1 h1 w"]
    across: Float[Tensor, "b 1 h w1"]

    @classmethod
    def of(cls, picture: Float[Tensor, "b c h w"], sigma: float, *, skewed: bool = False) -> "Bilateral":
        """Return it for pictures; ``sigma`` is in squared units of their values."""

        def weight(step: Tensor, after: bool) -> Tensor:
            if after:
                return torch.exp(-(step**2) / sigma).mean(1, keepdim=True)
            return torch.exp(-(step.mean(1, keepdim=True) ** 2) / sigma)

        down, across = steps(picture)
        return cls(weight(down, False), weight(across, skewed))

    def __call__(
        self, mask: Float[Tensor, "n 1 s t"], enlarged: Float[Tensor, "n 1 h w"], rows: Tensor
    ) -> Float[Tensor, " n"]:
        """Return BTV of masks, the i-th of which lies on picture ``rows[i]``."""
        down, across = steps(enlarged)
        edges = _mean(self.down[rows] * down**2) + _mean(self.across[rows] * across**2)
        return (total_variation(mask) + edges) / 2
