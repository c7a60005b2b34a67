"""Infidelity: how well the map tells by how much the score falls when the picture is disturbed."""

from collections.abc import Callable
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from whence.errors import SizeError
from whence.methods.numbers import at_least
from whence.metrics.claim import Claim
from whence.metrics.noting import notes
from whence.metrics.substrates import Filling, filling, in_input
from whence.models.session import Session, chunk_size
from whence.registry import metric
from whence.results import Measured

Changed = Callable[[Int[Tensor, " n"]], Float[Tensor, "n c h w"]]
"""Makes the pictures with the given numbers."""

ZERO = "the map is zero: it tells of no fall, and the number is that of the falls alone"


@metric(
    "infidelity", title="Infidelity", family="faithfulness", paper="arXiv:1901.09392", needs="scores", better="lower"
)
def infidelity(
    claim: Claim,
    *,
    disturbance: Literal["square", "gaussian"] = "square",
    size: int | None = None,
    sigma: float = 0.1,
    substrate: str | Tensor = "zeros",
    normalize: bool = True,
    samples: int = 50,
    batch: int | None = None,
    seed: int = 0,
) -> Measured:
    """Mean squared error between the fall of the score and the fall that the map tells.

    Yeh et al. 2019: E (I Phi - (f(x) - f(x - I)))^2, f the score that was explained. A ``square`` of
    ``size`` pixels a side (a seventh of the input's shorter side if not given) is replaced by the ``substrate``, and
    the map tells its sum over the square: for maps of contributions. ``gaussian`` takes from every value noise of
    ``sigma``, in units of the pixel range, and the map tells the sum of noise times map: for maps of slopes, such as
    the gradient. ``normalize`` first scales each map as fits best; without it the map must be in units of the score.
    """
    at_least(size=(size, 1), sigma=(sigma, 0), samples=(samples, 1), batch=(batch, 1))
    phi = _per_value(claim)
    rows = torch.arange(len(claim.x)).repeat_interleave(samples)
    with claim.opened() as session:
        pictures = torch.arange(len(claim.x))
        chunk = batch or chunk_size(claim.x)
        whole = session.scores(lambda numbers: claim.x[numbers], pictures, claim.explained, chunk)
        if disturbance == "square":
            fill = filling(session, claim.x, substrate, seed)
            told, changed = _by_squares(phi, _squares(claim, size, samples, seed), rows, fill)
        else:
            told, changed = _by_noise(phi, _noise(session, claim, sigma, samples, seed), rows, claim.x)
        found = session.scores(changed, rows, claim.explained, chunk)
        passes = session.passes
    fall = whole.to(phi)[:, None] - found.to(phi).reshape(-1, samples)
    zero = (phi == 0).flatten(1).all(1)
    return Measured(error(told, fall, normalize), passes=passes, notes=notes({ZERO: zero}))


def _by_squares(
    phi: Float[Tensor, "b c h w"], squares: Float[Tensor, "s h w"], rows: Int[Tensor, " n"], fill: Filling
) -> tuple[Float[Tensor, "b s"], Changed]:
    """Return what the map tells of each square, and what makes the pictures without them."""
    told = torch.einsum("bchw,shw->bs", phi, squares.to(phi))
    return told, lambda numbers: fill(rows[numbers], 1 - squares[numbers % len(squares), None])


def _by_noise(
    phi: Float[Tensor, "b c h w"],
    noise: Float[Tensor, "s c h w"],
    rows: Int[Tensor, " n"],
    x: Float[Tensor, "b c h w"],
) -> tuple[Float[Tensor, "b s"], Changed]:
    """Return what the map tells of each draw of noise, and what makes the pictures less the noise."""
    told = torch.einsum("bchw,schw->bs", phi, noise.to(phi))
    return told, lambda numbers: x[rows[numbers]] - noise[numbers % len(noise)]


def error(told: Float[Tensor, "b s"], fall: Float[Tensor, "b s"], normalize: bool) -> Float[Tensor, " b"]:
    """Return the mean squared difference, of the best multiple of what is told if it is to be normalised."""
    if normalize:
        # The multiple that makes the error least: E told fall / E told^2.
        square = told.pow(2).sum(1, keepdim=True)
        told = told * torch.where(square > 0, (told * fall).sum(1, keepdim=True) / square, 0)
    return (told - fall).pow(2).mean(1)


def _per_value(claim: Claim) -> Float[Tensor, "b c h w"]:
    """Return the map with one value for each of the input's; where it has no channels, each gets an equal part."""
    # Sums and squares of half precision overflow.
    kind = torch.promote_types(claim.x.dtype, torch.float32)
    if claim.answer.values.shape == claim.x.shape:
        return claim.answer.values.to(claim.x.device, kind)
    return (claim.heat.to(kind) / claim.x.shape[1])[:, None].expand(claim.x.shape)


def _squares(claim: Claim, size: int | None, samples: int, seed: int) -> Float[Tensor, "s h w"]:
    """Return 1 in a square at a random place, the same for every picture."""
    height, width = claim.x.shape[2:]
    side = size or max(1, min(height, width) // 7)
    if side > min(height, width):
        raise SizeError(f"infidelity: size={size} on inputs of {height} x {width}: give a square that fits in")
    generator = Generator().manual_seed(seed)
    top, left = (torch.randint(n - side + 1, (samples, 1), generator=generator) for n in (height, width))
    down, across = torch.arange(height) - top, torch.arange(width) - left
    inside = [(along >= 0) & (along < side) for along in (down, across)]
    return (inside[0][:, :, None] & inside[1][:, None, :]).to(claim.x)


def _noise(session: Session, claim: Claim, sigma: float, samples: int, seed: int) -> Float[Tensor, "s c h w"]:
    """Return Gaussian noise in the input's units, the same for every picture."""
    noise = torch.randn((samples, *claim.x.shape[1:]), generator=Generator().manual_seed(seed)).to(claim.x)
    return in_input(sigma * noise, session.pixels)
