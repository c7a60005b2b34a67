"""Linear imputation: what is missing of a picture, from what is left around it. Rong et al. 2022.

Every missing pixel is the mean of its neighbours, those beside it with weight 1/6 and those at its corners with 1/12,
at the picture's border of those that there are. With D the sum of these weights and W their sum over neighbours that
is a symmetric system, (D - W) v = 0 at the missing pixels. It is solved by conjugate gradients with a multigrid cycle
as preconditioner, for all pictures and channels at once.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

# Where the estimate of the error is this part of the picture's range of values, it has been ten times as large.
_TOLERANCE = 3e-6
_ITERATIONS = 100
# Grids are halved while a side is longer; the last one is smoothed so many times.
_COARSEST, _SWEEPS = 2, 4

Grid = Float[Tensor, "n c h w"]
Coarse = Float[Tensor, "n c s t"]
Mask = Float[Tensor, "n 1 h w"]
Sum = Float[Tensor, "n c 1 1"]


def imputed(x: Grid, known: Bool[Tensor, "n 1 h w"]) -> Grid:
    """Return pictures whose unknown pixels are the weighted mean of their neighbours, to 1e-4 of the range of values.

    Where nothing is known of a picture, its mean colour stands everywhere.
    """
    exact = x.to(torch.promote_types(x.dtype, torch.float32))
    counted = known | ~known.any((2, 3), keepdim=True)
    colour = (exact * counted).sum((2, 3), keepdim=True) / counted.sum((2, 3), keepdim=True)
    # Without the mean, nothing is lost by rounding where few pixels are known, and their colour spreads far.
    given = (exact - colour) * known
    span = exact.amax((1, 2, 3)) - exact.amin((1, 2, 3))
    solution = _solved(given, known.to(exact), _TOLERANCE * span)
    return torch.where(known, x, (solution + colour).to(x))


def neighbours(v: Grid) -> Grid:
    """Return W v: the weighted sum over the eight neighbours, nothing beyond the border.

    The weights are those of a binomial blur, 1 2 1 in both directions, without the middle.
    """
    p = F.pad(v, (1, 1, 1, 1))
    across = torch.add(p[..., :-2], p[..., 2:]).add_(p[..., 1:-1], alpha=2)
    both = torch.add(across[..., :-2, :], across[..., 2:, :]).add_(across[..., 1:-1, :], alpha=2)
    return both.sub_(v, alpha=4).div_(12)


def _solved(given: Grid, known: Mask, tolerance: Float[Tensor, " n"]) -> Grid:
    """Return values that solve the system where they are not ``known``, and are ``given`` elsewhere.

    Preconditioned conjugate gradients, each channel by itself; a picture whose error is small enough stands still, so
    that its neighbours in a batch change nothing.
    """
    grids = _grids(known)
    missing, diagonal = 1 - known, neighbours(torch.ones_like(known))
    v = given
    residual = neighbours(v) * missing
    z = direction = _cycle(grids, residual)
    product = _dot(residual, z)
    for _ in range(_ITERATIONS):
        # The cycle nearly inverts the system: z is nearly the error.
        going = (z.abs().amax((1, 2, 3)) > tolerance)[:, None, None, None]
        if not bool(going.any()):
            break
        image = (diagonal * direction - neighbours(direction)) * missing
        step = torch.where(going, _ratio(product, _dot(direction, image)), 0)
        v = torch.addcmul(v, step, direction)
        residual = torch.addcmul(residual, step, image, value=-1)
        z = _cycle(grids, residual)
        before, product = product, _dot(residual, z)
        direction = torch.addcmul(z, _ratio(product, before), direction)
    return v


def _dot(a: Grid, b: Grid) -> Sum:
    return (a * b).sum((2, 3), keepdim=True)


def _ratio(a: Sum, b: Sum) -> Sum:
    """Return a / b, and 0 where there is nothing left to be solved."""
    return torch.where(b == 0, 0, a / b)


def _grids(known: Mask) -> list[Float[Tensor, "n 1 _ _"]]:
    """Return for every grid, from fine to coarse, 1 / D where a value is missing, and 0 elsewhere.

    A coarse cell is known where any of its four pixels is.
    """
    found = []
    while True:
        found.append((1 - known) / neighbours(torch.ones_like(known)).clamp(min=1 / 12))
        if max(known.shape[2:]) <= _COARSEST:
            return found
        known = F.max_pool2d(known, 2, ceil_mode=True)


def _cycle(grids: list[Float[Tensor, "n 1 _ _"]], b: Grid) -> Grid:
    """Return nearly the solution of (D - W) v = b: one multigrid V-cycle, Jacobi before and after."""
    inverse, *coarser = grids
    v = b * inverse
    if coarser:
        residual = neighbours(v).mul_(inverse != 0)
        height, width = b.shape[2:]
        even = F.pad(residual, (0, width % 2, 0, height % 2))
        correction = _doubled(_doubled(_cycle(coarser, _halved(_halved(even, 2), 3)), 3), 2)
        v = v + correction[..., :height, :width]
    for _ in range(1 if coarser else _SWEEPS):
        v = neighbours(v).add_(b).mul_(inverse)
    return v


def _doubled(coarse: Coarse, axis: int) -> Grid:
    """Return the coarse grid, bilinear between the cells' middles, with twice the cells along one axis."""
    count = coarse.shape[axis]
    first, last = coarse.narrow(axis, 0, 1), coarse.narrow(axis, count - 1, 1)
    before = torch.cat((first, coarse.narrow(axis, 0, count - 1)), axis)
    after = torch.cat((coarse.narrow(axis, 1, count - 1), last), axis)
    return torch.stack((coarse.lerp(before, 0.25), coarse.lerp(after, 0.25)), axis + 1).flatten(axis, axis + 1)


def _halved(fine: Grid, axis: int) -> Coarse:
    """Return the transpose of ``_doubled``, without which the preconditioner would not be symmetric."""
    even, odd = torch.unflatten(fine, axis, (-1, 2)).unbind(axis + 1)
    count = even.shape[axis]
    coarse = (even + odd) * 0.75
    coarse.narrow(axis, 0, count - 1).add_(even.narrow(axis, 1, count - 1), alpha=0.25)
    coarse.narrow(axis, 1, count - 1).add_(odd.narrow(axis, 0, count - 1), alpha=0.25)
    coarse.narrow(axis, 0, 1).add_(even.narrow(axis, 0, 1), alpha=0.25)
    coarse.narrow(axis, count - 1, 1).add_(odd.narrow(axis, count - 1, 1), alpha=0.25)
    return coarse
