"""The objectives along another path: over the area of the picture that is taken away, most important places first.

A mask is a ranking s of cells, high where it matters. The papers' path dims the whole mask at once, (k / S) m, so
that it says which places matter and hardly in which order; here the path's point a takes away, or puts in, the
share a of the area that s ranks highest: M_a = sigmoid((s - q_a) / tau), with q_a such that mean M_a = a. The path
score is then the area under the curve of deletion or insertion, and needs no price on the size of the mask. Where
all of s is equal, M_a dims the whole picture: the first step follows the integrated gradient from the base picture.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from whence.methods.igos.objective import Term, masks_of, members
from whence.methods.igos.smoothness import total_variation
from whence.methods.masked import blended, searched_type, weighted_slope
from whence.methods.numbers import rounding
from whence.models.session import Session
from whence.models.targets import TargetSpec
from whence.pictures.baselines import blurred

# The softness tau of the border, in units in which a step of the search moves a cell by at most the rate.
_SOFT = 0.3
_BISECTIONS = 60
# How much more a term counts that takes away: in one ranking for both, insertion is won more easily.
_DELETION = 3
_GOLDEN = (5**0.5 - 1) / 2
# The blur of a slope, as a share of the side: one cell of 28.
_REACH = 1 / 28
# How much of the mean slope, and of its mean square, is kept in a step.
_MEMORY, _SCALE = 0.9, 0.99

Noise = Float[Tensor, "points c h w"]


def top_area(s: Float[Tensor, "n 1 s t"], share: Float[Tensor, " n"]) -> Float[Tensor, "n 1 s t"]:
    """Return M_a, whose mean is ``share``, differentiable by s."""
    scaled = s / _SOFT
    with torch.no_grad():
        low, high = scaled.amin((1, 2, 3)) - 40, scaled.amax((1, 2, 3)) + 40
        for _ in range(_BISECTIONS):
            middle = (low + high) / 2
            larger = torch.sigmoid(scaled - middle[:, None, None, None]).mean((1, 2, 3)) > share
            low, high = torch.where(larger, middle, low), torch.where(larger, high, middle)
        soft = torch.sigmoid(scaled - low[:, None, None, None])
        weight = soft * (1 - soft)
        weight = weight / weight.sum((1, 2, 3), keepdim=True).clamp(min=torch.finfo(weight.dtype).tiny)
    # q_a moves with s so that the area stays: dq = sum_j w_j ds_j, with w = M (1 - M), normalised.
    moved = (weight * (scaled - scaled.detach())).sum((1, 2, 3), keepdim=True)
    return torch.sigmoid(scaled - low[:, None, None, None] - moved)


@dataclass(frozen=True, eq=False)
class Areas:
    """F(s) = sum_terms w * mean over areas of the score + tv * TV(s), s the sum of all rankings.

    w is 3 for deletion and -1 for insertion. In every step each term is measured at ``points`` areas, one in
    each of as many equal parts of [0, 1]. Over the steps they move on by the golden ratio, which fills the parts
    more evenly than chance. ``noise`` has standard deviation ``sigma``, in units of the input.
    """

    model: Session
    x: Float[Tensor, "b c h w"]
    base: Float[Tensor, "b c h w"]
    target: Sequence[TargetSpec]
    terms: Sequence[Term]
    points: int
    tv: int | float
    sigma: Float[Tensor, "c 1 1"] | None
    batch: int

    def found(
        self, start: Float[Tensor, "b m s t"], iterations: int, rate: int | float, seed: int
    ) -> Float[Tensor, "b m s t"]:
        """Return the rankings after ``iterations`` steps.

        Steps go down the blurred slope, the steepest way among smooth rankings, with momentum; as in Adam they are as
        long as ``rate``, but by one scale for a whole ranking, so that places without a say stay where they are. A
        ranking whose slope was never more than rounding stays at its start.
        """
        generator = torch.Generator().manual_seed(seed)
        held = torch.zeros(len(start), dtype=torch.bool, device=start.device)
        s, mean, square = start, torch.zeros_like(start), torch.zeros_like(start[:, :, :1, :1])
        for step in range(1, iterations + 1):
            noise = None
            if self.sigma is not None:
                noise = torch.randn(self.points, *self.x.shape[1:], generator=generator).to(s) * self.sigma
            found, slope = self._slope(s, self._areas(step).to(s), noise)
            held |= slope.abs().sum((1, 2, 3)) > rounding(found).amax(1)
            slope = blurred(slope, generator, _REACH * min(slope.shape[2:]))
            mean = _MEMORY * mean + (1 - _MEMORY) * slope
            square = _SCALE * square + (1 - _SCALE) * (slope**2).mean((2, 3), keepdim=True)
            size = (square / (1 - _SCALE**step)).sqrt().clamp(min=torch.finfo(slope.dtype).tiny)
            s = s - rate * mean / (1 - _MEMORY**step) / size
        return torch.where(held[:, None, None, None], s, start)

    def _areas(self, step: int) -> Float[Tensor, "terms points"]:
        """Return the areas at which the terms are measured in a step, no two terms at the same ones."""
        part = torch.arange(len(self.terms), dtype=torch.float64)[:, None] / len(self.terms)
        return (torch.arange(self.points) + (part + step * _GOLDEN) % 1) / self.points

    def _slope(
        self, s: Float[Tensor, "b m s t"], areas: Float[Tensor, "terms points"], noise: Noise | None
    ) -> tuple[Float[Tensor, "b terms"], Float[Tensor, "b m s t"]]:
        """Return the mean score of every term, and the gradient of F, at some areas."""
        count, points = areas.shape
        leaf = s.detach().clone().requires_grad_()
        signs = s.new_tensor([term.sign * (1 if term.inserts else _DELETION) for term in self.terms])
        made, rows = self._pictures(leaf, areas, noise)
        weights = (signs / points).repeat_interleave(points).repeat(len(s))
        scores, (slope,) = weighted_slope(self.model, [leaf], made, rows, self.target, weights, self.batch)
        with torch.enable_grad():
            (smoother,) = torch.autograd.grad(self.tv * total_variation(leaf.sum(1, keepdim=True)).sum(), leaf)
        return scores.reshape(len(s), count, points).mean(2), slope + smoother

    def _pictures(
        self, s: Float[Tensor, "b m s t"], areas: Float[Tensor, "terms points"], noise: Noise | None
    ) -> tuple[Callable[[Tensor], Tensor], Int[Tensor, " n"]]:
        """Return what makes the pictures of every ranking, term and area, and which picture each is made of."""
        count, points = areas.shape
        size = (self.x.shape[2], self.x.shape[3])
        member = members(self.terms, s.shape[1]).to(s)
        inserts = torch.tensor([term.inserts for term in self.terms], device=s.device)

        def made(numbers: Int[Tensor, " k"]) -> Float[Tensor, "k c h w"]:
            of, term, point = numbers // (count * points), numbers // points % count, numbers % points
            ranking = (s[of] * member[term][:, :, None, None]).sum(1, keepdim=True)
            top = top_area(ranking, areas[term, point])
            top = F.interpolate(top, size=size, mode="bilinear", align_corners=False)
            keep = torch.where(inserts[term][:, None, None, None], top, 1 - top)
            pictures = blended(self.x[of], self.base[of], keep.to(self.x))
            return pictures if noise is None else pictures + noise[point].to(pictures)

        return made, torch.arange(len(s)).repeat_interleave(count * points)


def start_of(x: Float[Tensor, "b c h w"], terms: Sequence[Term], side: int) -> Float[Tensor, "b m s s"]:
    """Return rankings of which no place is before another."""
    return torch.zeros(len(x), masks_of(terms), side, side, dtype=searched_type(x), device=x.device)
