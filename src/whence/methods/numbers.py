"""Numbers: which ones an option may be, and which drops of a score are no more than rounding."""

import torch
from jaxtyping import Float
from torch import Tensor

from whence.errors import OptionError

_ROUNDING = 8


def rounding(score: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Return what is no more than the rounding of the score's own last places."""
    return _ROUNDING * torch.finfo(score.dtype).eps * score.abs()


def drop(score: Float[Tensor, "*_"], scores: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Return ``score`` - ``scores``, and 0 where the two are equal to rounding."""
    difference = score - scores
    return torch.where(difference.abs() > rounding(score), difference, 0)


def at_least(**least: tuple[int | float | None, int | float]) -> None:
    """Refuse options that are less than they may be: ``name=(value, least)``; None is any.

    Raises
    ------
    OptionError
        Naming the first one.
    """
    for name, (value, bound) in least.items():
        if value is not None and not value >= bound:
            raise OptionError(f"{name}={value}: give at least {bound}")
