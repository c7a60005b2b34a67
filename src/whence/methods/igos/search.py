"""How masks are stepped downhill: by a line search at one point or along the whole path, or by Nesterov's method."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from whence.methods.igos.objective import Noise, Objective

Search = Literal["point", "path", "nag"]
Masks = Float[Tensor, "n m s t"]
Draws = Callable[[bool], Noise | None]
"""Draws the noise of one evaluation: of a direction, or (False) of a value."""

# Of the authors' line search: the share of the promised decrease that is asked for, the factor of a shorter step,
# and the step at which it gives up.
_ENOUGH, SHORTER, LEAST = 1e-4, 0.2, 1e-5


@dataclass(frozen=True)
class Descent:
    """How masks are looked for: ``iterations`` steps, the first try of each of length ``rate``.

    With ``give_up`` a step that failed to the end leaves the mask where it was; the authors' code takes the last,
    shortest one all the same. No step below ``least`` is tried. ``bounded`` says that scores are probabilities, so
    that a candidate whose penalty alone is too large can be refused without running the model.
    """

    search: Search
    iterations: int
    rate: int | float
    plain: bool
    bounded: bool
    give_up: bool = True
    least: float = LEAST


@dataclass(frozen=True, eq=False)
class Found:
    """Masks, and the path scores before the first step."""

    masks: Masks
    first: Float[Tensor, "n terms"]


def found(of: Objective, masks: Masks, rows: Int[Tensor, " n"], how: Descent, draws: Draws) -> Found:
    """Return the masks of pictures ``rows`` to which the objective's direction leads, or the plain gradient."""
    first, previous = None, torch.zeros_like(masks)
    for iteration in range(how.iterations):
        noise = draws(True)
        scores, direction = of.slope(masks, rows, noise, end=how.plain)
        first = scores if first is None else first
        if how.search == "nag":
            ahead = masks - how.rate * direction
            masks = (ahead + iteration / (iteration + 3) * (ahead - previous)).clamp(0, 1)
            previous = ahead
        else:
            masks = _searched(of, masks, rows, direction, how, draws)
    assert first is not None
    return Found(masks, first)


def _searched(
    of: Objective, masks: Masks, pictures: Int[Tensor, " n"], direction: Masks, how: Descent, draws: Draws
) -> Masks:
    """Return the masks after the longest step that decreases F enough (Armijo's rule)."""
    end = how.search == "point"

    def value(candidates: Masks, rows: Int[Tensor, " n"]) -> Float[Tensor, " n"]:
        # At one point there is no noise.
        return of.value(candidates, pictures[rows], None if end else draws(False), end=end)

    rows = torch.arange(len(masks))
    before, square = value(masks, rows), (direction**2).sum((1, 2, 3))
    rate, stepped = torch.full((len(masks),), float(how.rate), dtype=masks.dtype), masks.clone()
    while len(rows):
        length = rate[rows].to(masks)
        candidates = (masks[rows] - length[:, None, None, None] * direction[rows]).clamp(0, 1)
        limit = before[rows] - _ENOUGH * length * square[rows]
        tried = torch.full_like(limit, torch.inf)
        possible = (
            _possible(of, candidates, pictures[rows], limit)
            if how.bounded
            else torch.ones_like(limit, dtype=torch.bool)
        )
        if possible.any():
            tried[possible] = value(candidates[possible], rows[possible.cpu()])
        accepted = (tried <= limit).cpu()
        if not how.give_up:
            stepped[rows] = candidates
        stepped[rows[accepted]] = candidates[accepted]
        rate[rows[~accepted]] *= SHORTER
        rows = rows[~accepted & (rate[rows] >= how.least)]
    return stepped


def _possible(
    of: Objective, candidates: Masks, rows: Int[Tensor, " n"], limit: Float[Tensor, " n"]
) -> Bool[Tensor, " n"]:
    """Return which candidates could be accepted: probabilities are at least 0, and at most 1."""
    return of.penalty(candidates, rows) + of.bound() <= limit
