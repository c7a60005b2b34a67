"""Substrates: what stands where a metric takes the picture away. The table of baselines, and a few more."""

from collections.abc import Callable

from jaxtyping import Float, Int
from torch import Tensor

from whence.errors import OptionError, UnknownNameError, nearest
from whence.methods.masked import blended
from whence.models.session import Session
from whence.pictures.baselines import BASELINES, make_baseline

Filling = Callable[[Int[Tensor, " n"], Float[Tensor, "n 1 h w"]], Float[Tensor, "n c h w"]]
"""Makes pictures ``rows[i]`` of a batch of which only ``keep[i]`` is left, 1 where it stays, 0 where it goes."""

MORE = {
    "mean-colour": "the picture's own mean colour",
}


def filling(model: Session, x: Float[Tensor, "b c h w"], substrate: str | Tensor, seed: int = 0) -> Filling:
    """Return what makes pictures with parts taken away.

    ``substrate`` is a name of the table of baselines, ``mean-colour``, or pictures: [C, H, W] for all, or one each.

    Raises
    ------
    UnknownNameError, OptionError
        There is no such substrate, or pictures of another size.
    """
    base = _base(model, x, substrate, seed)
    return lambda rows, keep: blended(x[rows], base[rows], keep)


def _base(model: Session, x: Float[Tensor, "b c h w"], substrate: str | Tensor, seed: int) -> Tensor:
    if isinstance(substrate, Tensor):
        if tuple(substrate.shape[-3:]) != tuple(x.shape[1:]):
            raise OptionError(
                f"a substrate of shape {list(substrate.shape)} for inputs {list(x.shape[1:])}: scale it"
            )
        return substrate.to(x).expand(x.shape)
    if substrate == "mean-colour":
        return x.mean((2, 3), keepdim=True).expand(x.shape)
    if substrate not in BASELINES:
        known = [*BASELINES, *MORE]
        raise UnknownNameError(f"there is no substrate {substrate!r}: {nearest(substrate, known)}")
    return make_baseline(substrate, x, model.pixels, seed=seed)[0]
