"""Notes: the sentences that a reader of a number must know, each for the pictures of which it is true."""

from collections.abc import Mapping

from jaxtyping import Bool
from torch import Tensor


def notes(said: Mapping[str, Bool[Tensor, " b"]]) -> tuple[tuple[str, ...], ...]:
    """Return for each picture the sentences that hold."""
    rows = zip(*(holds.tolist() for holds in said.values()), strict=True)
    return tuple(tuple(s for s, holds in zip(said, row, strict=True) if holds) for row in rows)
