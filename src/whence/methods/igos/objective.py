"""The objectives of I-GOS, I-GOS+ and I-GOS++: path scores of masks, and what keeps the masks small and smooth.

Masks m are as in the papers: 1 keeps the picture I, 0 puts the base picture in its place: what is low matters.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from whence.methods.igos.smoothness import Bilateral, total_variation
from whence.methods.masked import blended, weighted_slope
from whence.models.session import Session
from whence.models.targets import TargetSpec

Noise = Float[Tensor, "terms steps c h w"]


@dataclass(frozen=True)
class Term:
    """A path score P of the product of some masks.

    It takes the picture away along the path P(I, base, m), or, where it ``inserts``, gives it back: P(base, I, m),
    which counts negatively.
    """

    masks: tuple[int, ...]
    inserts: bool = False

    @property
    def sign(self) -> int:
        """Return how it counts: what is left must lose the score, what is put in must gain it."""
        return -1 if self.inserts else 1


TERMS: Mapping[str, tuple[Term, ...]] = {
    "igos": (Term((0,)),),
    "igos+": (Term((0,)), Term((0,), inserts=True)),
    "igos++": (Term((0,)), Term((1,), inserts=True), Term((0, 1)), Term((0, 1), inserts=True)),
}


def masks_of(terms: Sequence[Term]) -> int:
    """Return how many masks an objective has."""
    return 1 + max(mask for term in terms for mask in term.masks)


def members(terms: Sequence[Term], masks: int) -> Bool[Tensor, "terms m"]:
    """Return which masks each term has."""
    return torch.tensor([[mask in term.masks for mask in range(masks)] for term in terms])


@dataclass(frozen=True, eq=False)
class Objective:
    """F(m) = sum_terms sign * P(term) + l1 * mean |1 - m| + tv * smoothness(m), m the product of all masks.

    P is the mean of the score over the points k / steps of the path, k = 1 .. steps. ``weights`` holds a factor a
    term for the direction alone, ``aligned`` says how masks are enlarged, ``kink`` whether |1 - m| has slope 0 at
    m = 1. Smoothness is the bilateral total variation, or without ``edges`` the plain one.
    """

    model: Session
    x: Float[Tensor, "b c h w"]
    base: Float[Tensor, "b c h w"]
    target: Sequence[TargetSpec]
    terms: Sequence[Term]
    steps: int
    l1: int | float
    tv: int | float
    batch: int
    edges: Bilateral | None
    weights: tuple[float, ...]
    aligned: bool = False
    kink: bool = False

    def enlarged(self, mask: Float[Tensor, "n m s t"]) -> Float[Tensor, "n m h w"]:
        """Return U m: masks on the input's grid."""
        size = (self.x.shape[2], self.x.shape[3])
        return F.interpolate(mask, size=size, mode="bilinear", align_corners=self.aligned)

    def penalty(self, masks: Float[Tensor, "n m s t"], rows: Int[Tensor, " n"]) -> Float[Tensor, " n"]:
        """Return l1 * mean |1 - m| + tv * smoothness of the masks' product, on pictures ``rows``."""
        joint = masks.prod(1, keepdim=True)
        missing = (1 - joint).abs() if self.kink else 1 - joint
        smooth = total_variation(joint) if self.edges is None else self.edges(joint, self.enlarged(joint), rows)
        return self.l1 * missing.mean((1, 2, 3)) + self.tv * smooth

    def _pictures(
        self, masks: Tensor, rows: Tensor, noise: Noise | None, points: Sequence[float]
    ) -> tuple[Callable[[Tensor], Tensor], Tensor]:
        """Return what makes the pictures of every mask, term and point, and which picture each is made of."""
        terms, count = len(self.terms), len(points)
        at, member = (
            torch.tensor(points, dtype=torch.float64).to(self.x),
            members(self.terms, masks.shape[1]).to(masks.device),
        )
        inserts = torch.tensor([term.inserts for term in self.terms], device=masks.device)

        def made(numbers: Int[Tensor, " k"]) -> Float[Tensor, "k c h w"]:
            of, term, point = numbers // (terms * count), numbers // count % terms, numbers % count
            whole = self.enlarged(masks)[of]
            product = torch.where(member[term][:, :, None, None], whole, 1).prod(1, keepdim=True)
            keep = at[point][:, None, None, None] * product
            keep = torch.where(inserts[term][:, None, None, None], 1 - keep, keep)
            pictures = blended(self.x[rows[of]], self.base[rows[of]], keep.to(self.x))
            return pictures if noise is None else pictures + noise[term, point].to(pictures)

        return made, rows.repeat_interleave(terms * count)

    def path_scores(
        self, masks: Float[Tensor, "n m s t"], rows: Int[Tensor, " n"], noise: Noise | None, *, end: bool = False
    ) -> Float[Tensor, "n terms"]:
        """Return P of every term for masks on pictures ``rows``; with ``end`` the score at the path's end alone."""
        points = self._points(end)
        made, of = self._pictures(masks, rows, noise, points)
        found = self.model.scores(made, of, self.target, self.batch)
        return found.reshape(len(rows), len(self.terms), len(points)).mean(2)

    def value(
        self, masks: Float[Tensor, "n m s t"], rows: Int[Tensor, " n"], noise: Noise | None, *, end: bool = False
    ) -> Float[Tensor, " n"]:
        """Return F."""
        signs = masks.new_tensor([term.sign for term in self.terms])
        scores = self.path_scores(masks, rows, noise, end=end).to(masks)
        return scores @ signs + self.penalty(masks, rows)

    def slope(
        self, masks: Float[Tensor, "n m s t"], rows: Int[Tensor, " n"], noise: Noise | None, *, end: bool = False
    ) -> tuple[Float[Tensor, "n terms"], Float[Tensor, "n m s t"]]:
        """Return P of every term, and the direction: the gradient of F, its path scores weighed by ``weights``.

        The mean over the points is the integrated gradient; with ``end`` it is the plain one at the masked picture.
        """
        points, leaf = self._points(end), masks.detach().clone().requires_grad_()
        made, of = self._pictures(leaf, rows, noise, points)
        factor = masks.new_tensor([w * t.sign / len(points) for w, t in zip(self.weights, self.terms, strict=True)])
        weights = factor.repeat_interleave(len(points)).repeat(len(masks))
        scores, (direction,) = weighted_slope(self.model, [leaf], made, of, self.target, weights, self.batch)
        with torch.enable_grad():
            (simpler,) = torch.autograd.grad(self.penalty(leaf, rows).sum(), leaf)
        return scores.reshape(len(masks), len(self.terms), -1).mean(2), direction + simpler

    def _points(self, end: bool) -> Sequence[float]:
        return (1.0,) if end else [(k + 1) / self.steps for k in range(self.steps)]

    def bound(self) -> int:
        """Return the least that the path scores can add, where a score is a probability."""
        return -sum(term.inserts for term in self.terms)
