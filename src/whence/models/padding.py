"""Zeros set around a map by a call of their own, let into the convolution that reads it: no copy is made for them."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch.nn.functional as F


def _both(given: int | tuple[int, ...] | list[int]) -> tuple[int, int]:
    down, across = (given, given) if isinstance(given, int) else (given[0], given[-1])
    return down, across


class Pad(NamedTuple):
    """How many columns and rows of zeros are set around maps [B, C, h, w]."""

    left: int
    right: int
    top: int
    bottom: int

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> "Pad | None":
        """Return it for the arguments of ``F.pad`` by their names, None for any other padding."""
        sides = tuple(given["pad"])
        if len(sides) != 4 or min(sides) < 0 or given["input"].ndim != 4:
            return None
        return None if given.get("mode", "constant") != "constant" or given.get("value") else cls(*sides)

    def let_into(self, given: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return the arguments of ``F.conv2d`` for the map without its zeros; None where that is not faster.

        A convolution sets as many zeros left as right. Where ``right`` is larger by d, so many, and d columns of
        zeros before the kernel's, leave each of its taps where it was: i s + (j + d) - right = i s + j - left.
        """
        padding, weight = given.get("padding", 0), given["weight"]
        columns, rows = self.right - self.left, self.bottom - self.top
        uneven = columns or rows
        # One more column is paid by a channel's own convolution alone, which takes less time than the copy.
        large = weight.shape[1] > 1 or _both(given.get("dilation", 1)) != (1, 1) or max(abs(columns), abs(rows)) > 1
        if isinstance(padding, str) or (uneven and large):
            return None
        down, across = _both(padding)
        padding = down + max(self.top, self.bottom), across + max(self.left, self.right)
        if uneven:
            weight = F.pad(weight, (max(columns, 0), max(-columns, 0), max(rows, 0), max(-rows, 0)))
        return {**given, "weight": weight, "padding": padding}
