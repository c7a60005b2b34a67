"""The three ways to solve for masks: over areas, by the papers' formulas, and as the I-GOS++ repository does."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from whence.methods.igos import areas, search
from whence.methods.igos.areas import Areas
from whence.methods.igos.objective import Objective, Term, masks_of
from whence.methods.igos.settings import UNIT, Settings, Variant
from whence.methods.igos.smoothness import Bilateral
from whence.methods.masked import searched_type
from whence.models.session import Session
from whence.models.targets import TargetSpec

# The sigma of the bilateral total variation, in squared units of the input.
_EDGE = 0.01


@dataclass(frozen=True, eq=False)
class Problem:
    """What all variants are given: the pictures, what replaces them, what is measured, and the settings."""

    model: Session
    x: Float[Tensor, "b c h w"]
    base: Float[Tensor, "b c h w"]
    measured: Sequence[TargetSpec]
    terms: Sequence[Term]
    settings: Settings
    side: int
    initial: Float[Tensor, "b 1 s s"] | None
    batch: int
    seed: int

    @property
    def input_unit(self) -> Float[Tensor, "c 1 1"]:
        """Return the pixel range in units of the input, 1 where that is not known."""
        pixels, like = self.model.pixels, self.x.new_ones(self.x.shape[1], 1, 1)
        return like if pixels is None else (pixels.high - pixels.low).to(like).reshape(-1, 1, 1) * like


@dataclass(frozen=True, eq=False)
class Solved:
    """What masks say, [B, M, s, s], high where it matters; the product of all [B, 1, s, s].

    ``paths`` are the path scores at the start, infinite where they say nothing; ``moved`` is how far a mask went.
    """

    each: Tensor
    joint: Tensor
    paths: Float[Tensor, "b terms"]
    moved: Float[Tensor, " b"]


def _by_area(problem: Problem) -> Solved:
    own = problem.settings
    objective = Areas(
        problem.model, problem.x, problem.base, problem.measured, problem.terms,
        own.steps, own.tv, own.sigma * problem.input_unit if own.sigma else None, problem.batch,
    )  # fmt: skip
    start = areas.start_of(problem.x, problem.terms, problem.side)
    if problem.initial is not None:
        start = start + problem.initial / masks_of(problem.terms)
    s = objective.found(start, own.iterations, own.rate, problem.seed)
    # A path that holds nothing gives no slope, and the ranking stays; a good one loses the score everywhere.
    nothing = torch.full((len(s), len(problem.terms)), torch.inf)
    return Solved(s, s.sum(1, keepdim=True), nothing, _largest(s - start))


def _by_paper(problem: Problem) -> Solved:
    own = problem.settings
    unit, edge = problem.input_unit, _EDGE * UNIT**2
    picture = problem.x if problem.model.pixels is None else problem.model.pixels.to_pixels(problem.x)
    objective = _objective(
        problem, None if len(problem.terms) == 1 else Bilateral.of(picture.to(searched_type(picture)), edge)
    )
    generator = torch.Generator().manual_seed(problem.seed)
    kept: list[Tensor] = []

    def draws(new: bool) -> Tensor:
        # One draw for a step: candidates are compared under the noise under which the direction was found.
        if new:
            noise = torch.randn(1, own.steps, *problem.x.shape[1:], generator=generator)
            kept[:] = [(own.sigma * unit * noise.to(unit)).expand(len(problem.terms), -1, -1, -1, -1)]
        return kept[0]

    is_probability = all(getattr(target, "measure", None) == "probability" for target in problem.measured)
    draws_or_none = draws if own.sigma else lambda new: None
    return _descended(problem, objective, torch.arange(len(problem.x)), draws_or_none, bounded=is_probability)


def _by_reference(problem: Problem) -> Solved:
    """Return what the I-GOS++ repository finds, picture by picture, each with the noise of its own stream."""
    solved = [_alone_by_reference(problem, torch.tensor([row])) for row in range(len(problem.x))]
    return Solved(*(torch.cat([getattr(one, name) for one in solved]) for name in vars(solved[0])))


def _alone_by_reference(problem: Problem, row: Int[Tensor, " 1"]) -> Solved:
    own, count = problem.settings, len(problem.terms)
    edges = None if count == 1 else Bilateral.of(problem.x.to(searched_type(problem.x)), _EDGE, skewed=True)
    weights = (0.5,) * count if count == 4 else (1.0,) * count
    objective = replace(_objective(problem, edges), weights=weights, aligned=True, kink=True)
    generator = torch.Generator().manual_seed(problem.seed)

    def draws(new: bool) -> Tensor:
        # For a direction the joint masks come first.
        order = (2, 3, 0, 1) if new and count == 4 else tuple(range(count))
        shape = (own.steps, *problem.x.shape[1:])
        drawn = {term: torch.randn(shape, generator=generator, dtype=problem.x.dtype) for term in order}
        return own.sigma * torch.stack([drawn[term] for term in range(count)]).to(problem.x)

    return _descended(problem, objective, row, draws, bounded=False)


def _objective(problem: Problem, edges: Bilateral | None) -> Objective:
    own = problem.settings
    return Objective(
        problem.model, problem.x, problem.base, problem.measured, problem.terms, own.steps, own.l1, own.tv,
        problem.batch, edges, weights=(1.0,) * len(problem.terms),
    )  # fmt: skip


def _descended(
    problem: Problem, objective: Objective, rows: Int[Tensor, " n"], draws: search.Draws, *, bounded: bool
) -> Solved:
    own, x = problem.settings, problem.x
    shape = (len(rows), masks_of(problem.terms), problem.side, problem.side)
    start = torch.ones(shape, dtype=searched_type(x), device=x.device)
    if problem.initial is not None:
        start = start * (1 - problem.initial[rows])
    assert own.search is not None
    how = search.Descent(
        own.search, own.iterations, own.rate, own.direction == "gradient", bounded, not objective.kink
    )
    found = search.found(objective, start, rows, how, draws)
    m = found.masks
    return Solved(1 - m, 1 - m.prod(1, keepdim=True), found.first, _largest(m - start))


def _largest(change: Float[Tensor, "b m s s"]) -> Float[Tensor, " b"]:
    return change.abs().amax((1, 2, 3))


SOLVERS: Mapping[Variant, Callable[[Problem], Solved]] = {
    "area": _by_area,
    "paper": _by_paper,
    "igos-pp": _by_reference,
}
