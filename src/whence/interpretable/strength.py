"""How much the filter loss weighs: relative to what the task's gradient is on the same map, never absolute."""

from dataclasses import dataclass, replace
from math import inf

import torch
from jaxtyping import Float
from torch import Tensor

from whence.errors import OptionError
from whence.models.masked.ranks import summed
from whence.models.masked.templates import exact


@dataclass(frozen=True)
class Strength:
    """lambda_t = r EMA(||dL_task / dx|| / ||dL_filter / dx||), measured anew every ``every`` steps.

    With r = 1 the filter loss pulls at the map as strongly as the task does, whatever the scale of activations, the
    size of batches and the head. ``ratio`` is the moving average, None before the first measurement; ``step`` counts
    the batches, but for those that were due and could not be measured: then the next one is.
    """

    relative: float = 1.0
    every: int = 25
    momentum: float = 0.9
    ratio: float | None = None
    step: int = 0

    def __post_init__(self) -> None:
        """Refuse numbers out of range."""
        if self.relative < 0 or self.every < 1 or not 0 <= self.momentum < 1:
            raise OptionError(
                f"relative={self.relative}, every={self.every}, momentum={self.momentum}: "
                "give relative >= 0, every >= 1 and a momentum from 0 to below 1"
            )

    @property
    def weight(self) -> float:
        """lambda_t, 0 while nothing could be measured."""
        return 0.0 if self.ratio is None else self.relative * self.ratio

    def after(self, task: Float[Tensor, ""], filters: Float[Tensor, ""], x: Float[Tensor, "b k h w"]) -> "Strength":
        """Return the strength for this batch; where it is due, from two gradients to the raw maps ``x``.

        The graphs of both losses are kept. Where the filters' gradient is zero, or one of the two is not finite, the
        ratio stays as it was.
        """
        following = replace(self, step=self.step + 1)
        if self.step % self.every:
            return following
        own = _norm(filters, x)
        ratio = _norm(task, x) / own if 0 < own < inf else inf
        if not ratio < inf:
            return replace(following, step=self.step)
        kept = 0.0 if self.ratio is None else self.momentum
        return replace(following, ratio=kept * (self.ratio or 0.0) + (1 - kept) * ratio)


def _norm(loss: Tensor, x: Tensor) -> float:
    """Return the norm of d loss / dx over the batch of all processes."""
    (gradient,) = torch.autograd.grad(loss, x, retain_graph=True)
    return float(summed(exact(gradient).square().sum()).sqrt())
