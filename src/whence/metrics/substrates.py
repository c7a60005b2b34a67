"""Substrates: what stands where a metric takes the picture away. The table of baselines, and a few more."""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from whence.errors import OptionError, UnknownNameError, nearest
from whence.methods.masked import blended
from whence.metrics.imputing import imputed
from whence.models.session import Session
from whence.pictures.baselines import BASELINES, make_baseline
from whence.pictures.preprocess import PixelRange

Filling = Callable[[Int[Tensor, " n"], Float[Tensor, "n 1 h w"]], Float[Tensor, "n c h w"]]
"""Makes pictures ``rows[i]`` of a batch of which only ``keep[i]`` is left, 1 where it stays, 0 where it goes."""

MORE = {
    "mean-colour": "the picture's own mean colour",
    "noisy-linear": "the weighted mean of the pixels around, solved for all that are missing, and a little noise",
}
# Of pixels in [0, 1]; as in the code of the paper.
_NOISE = 0.01
# Masks of soft cells are 1 to rounding where nothing is taken away.
_WHOLE = 1 - 1e-3


def filling(model: Session, x: Float[Tensor, "b c h w"], substrate: str | Tensor, seed: int = 0) -> Filling:
    """Return what makes pictures with parts taken away.

    ``substrate`` is a name of the table of baselines, ``mean-colour``, ``noisy-linear``, or pictures: [C, H, W] for
    all, or one each. ``noisy-linear`` takes nothing from a pixel of which any part is gone.

    Raises
    ------
    UnknownNameError, OptionError
        There is no such substrate, or pictures of another size.
    """
    if isinstance(substrate, str) and substrate == "noisy-linear":
        noise = _noise(model, x, seed)
        return lambda rows, keep: _noisy_linear(x[rows], keep, noise)
    base = _base(model, x, substrate, seed)
    return lambda rows, keep: blended(x[rows], base[rows], keep)


def _noisy_linear(
    x: Float[Tensor, "n c h w"], keep: Float[Tensor, "n 1 h w"], noise: Float[Tensor, "c h w"]
) -> Float[Tensor, "n c h w"]:
    """Return pictures with parts imputed. Rong et al. 2022."""
    known = keep > _WHOLE
    return blended(x, torch.where(known, x, imputed(x, known) + noise), keep)


def _noise(model: Session, x: Float[Tensor, "b c h w"], seed: int) -> Float[Tensor, "c h w"]:
    noise = torch.randn(x.shape[1:], generator=torch.Generator().manual_seed(seed)).to(x)
    return in_input(_NOISE * noise, model.pixels)


def in_input(difference: Float[Tensor, "*b c h w"], pixels: PixelRange | None) -> Float[Tensor, "*b c h w"]:
    """Return a difference of pixels in the input's units; as it is where these are not known."""
    if pixels is None:
        return difference
    return pixels.to_input(difference) - pixels.to_input(torch.zeros_like(difference))


def _base(model: Session, x: Float[Tensor, "b c h w"], substrate: str | Tensor, seed: int) -> Tensor:
    if isinstance(substrate, Tensor):
        if tuple(substrate.shape[-3:]) != tuple(x.shape[1:]) or substrate.shape[:-3] not in [(), (1,), (len(x),)]:
            raise OptionError(
                f"a substrate of shape {list(substrate.shape)} for inputs {list(x.shape)}: "
                "give [C, H, W] of that size, or one such a picture"
            )
        return substrate.to(x).expand(x.shape)
    if substrate == "mean-colour":
        return x.mean((2, 3), keepdim=True).expand(x.shape)
    if substrate not in BASELINES:
        known = [*BASELINES, *MORE]
        raise UnknownNameError(f"there is no substrate {substrate!r}: {nearest(substrate, known)}")
    return make_baseline(substrate, x, model.pixels, seed=seed)[0]
