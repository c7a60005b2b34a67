"""Quadrature on [0, 1]: at which points of a path gradients are taken, and for which piece each of them stands."""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from whence.errors import OptionError

Rule = Literal["midpoint", "graded", "left", "right", "trapezoid", "gauss-legendre"]
# Three times as many points hold all points of before.
NESTED: tuple[Rule, ...] = ("midpoint", "graded")
_COARSEST = 5
LEAST_REFINED = 3 * _COARSEST


@dataclass(frozen=True, eq=False)
class Quadrature:
    """``nodes`` [n] in [0, 1], and the ``edges`` [n + 1], 0 to 1, of the pieces for which they stand."""

    nodes: Float[Tensor, " n"]
    edges: Float[Tensor, " m"]

    @property
    def weights(self) -> Float[Tensor, " n"]:
        """Return the pieces' lengths, which add up to 1."""
        return self.edges.diff()


def quadrature(rule: Rule, n: int) -> Quadrature:
    """Return the rule with n points, in float64.

    ``graded`` is the midpoint rule in u, where alpha = (6^u - 1) / 5: each piece is longer than the one before it by
    the same factor, and the last about six times as long as the first.
    The weights of ``trapezoid`` are 1 / (n - 1), and half of that at both ends.

    Raises
    ------
    OptionError
        There are too few points.
    """
    least = 2 if rule == "trapezoid" else 1
    if n < least:
        raise OptionError(f"steps={n}: the rule {rule!r} needs at least {least}")
    edges = torch.arange(n + 1, dtype=torch.float64) / n
    middles = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    if rule == "midpoint":
        return Quadrature(middles, edges)
    if rule == "graded":
        return Quadrature((6**middles - 1) / 5, (6**edges - 1) / 5)
    if rule == "left":
        return Quadrature(edges[:-1], edges)
    if rule == "right":
        return Quadrature(edges[1:], edges)
    if rule == "trapezoid":
        nodes = torch.arange(n, dtype=torch.float64) / (n - 1)
        return Quadrature(nodes, torch.cat((nodes[:1], (nodes[:-1] + nodes[1:]) / 2, nodes[-1:])))
    return _gauss_legendre(n)


def _gauss_legendre(n: int) -> Quadrature:
    """Return the nodes and weights as eigenvalues and eigenvectors (Golub, Welsch 1969)."""
    k = torch.arange(1, n, dtype=torch.float64)
    beside = torch.diag(k / (4 * k**2 - 1).sqrt(), 1)
    nodes, vectors = torch.linalg.eigh(beside + beside.T)
    edges = torch.cat((torch.zeros(1, dtype=torch.float64), (vectors[0] ** 2).cumsum(0)))
    edges[-1] = 1
    return Quadrature((1 + nodes) / 2, edges)


def refinements(rule: Rule, steps: int, tol: float | int | None) -> tuple[int, ...]:
    """Return how many points are taken one after the other, each three times the last, at most ``steps``.

    Without a tolerance, or where the points of the rule are not nested, exactly ``steps`` at once.
    """
    if tol is None or rule not in NESTED:
        return (steps,)
    triplings = 0
    while steps // 3 ** (triplings + 1) >= _COARSEST:
        triplings += 1
    return tuple(steps // 3**triplings * 3**k for k in range(triplings + 1))


def nested(n: int, finest: int) -> Int[Tensor, " n"]:
    """Return which nodes of the finest grid the rule with n points has."""
    every = finest // n
    return torch.arange(n) * every + every // 2


def new_nodes(n: int, finest: int, first: bool) -> Int[Tensor, " k"]:
    """Return which of them are not among those of the n / 3 points before (all n for the ``first``)."""
    every = nested(n, finest)
    return every if first else every[torch.arange(n) % 3 != 1]
