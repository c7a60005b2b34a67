"""Where the relevance went: to the input, to biases, to constants and to stabilisers."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from whence.results import Balance


def _pictures_first(amounts: Float[Tensor, "..."], count: int) -> Float[Tensor, "..."]:
    """Return amounts with the axis of tokens behind that of pictures, where they lie the other way round."""
    turned = amounts.ndim == 3 and amounts.shape[0] != count == amounts.shape[1]
    return amounts.transpose(0, 1) if turned else amounts


def per_picture(amounts: Float[Tensor, "..."], count: int) -> Float[Tensor, " b"]:
    """Return the sum over everything but the pictures, wherever these lie in a tensor."""
    rows = _pictures_first(amounts, count)
    if rows.ndim > 1 and rows.shape[0] % count == 0:
        # Without a copy, in whatever order the values lie in memory.
        rows = rows.sum(tuple(range(1, rows.ndim)), dtype=torch.float64)
    # Windows of one picture lie one after the other.
    return rows.reshape(count, -1).sum(1, dtype=torch.float64)


def scaled(amounts: Float[Tensor, "..."], factor: Float[Tensor, " b"]) -> Float[Tensor, "..."]:
    """Return each picture's amounts times its factor, wherever the pictures lie in a tensor."""
    first = _pictures_first(amounts, len(factor))
    times = (first.reshape(len(factor), -1) * factor.to(first)[:, None]).reshape(first.shape)
    return times if first is amounts else times.transpose(0, 1)


def _whole(entries: Sequence[Tensor], like: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
    return sum((entry.double() for entry in entries), start=torch.zeros_like(like, dtype=torch.float64))


@dataclass
class Ledger:
    """What one pass back gave to whom, per picture, and the relevance seen at layers."""

    count: int
    bias: list[Tensor] = field(default_factory=list)
    constants: list[Tensor] = field(default_factory=list)
    stabiliser: list[Tensor] = field(default_factory=list)
    other: dict[str, list[Tensor]] = field(default_factory=lambda: defaultdict(list))
    layers: dict[str, Tensor] = field(default_factory=dict)

    def balance(self, start: Float[Tensor, " b"], given: Float[Tensor, "b ..."]) -> Balance:
        """Return where ``start`` went, of which the inputs were ``given`` some."""
        return Balance(
            start.double(),
            per_picture(given, self.count),
            _whole(self.bias, start),
            _whole(self.constants, start),
            _whole(self.stabiliser, start),
            {what: _whole(entries, start) for what, entries in self.other.items()},
            {name: per_picture(r, self.count) for name, r in self.layers.items()},
        )

    def enter(self, parts: Sequence["Ledger"]) -> None:
        """Enter what single pictures' biases and stabilisers took, in the order of the pictures."""
        for name in ("bias", "stabiliser"):
            each: list[list[Tensor]] = [getattr(part, name) for part in parts]
            like = next((entries[0] for entries in each if entries), None)
            if like is not None:
                getattr(self, name).append(torch.cat([_whole(entries, like) for entries in each]))

    def to_bias(self, amounts: Tensor, weights: Float[Tensor, " k"] | None = None) -> None:
        """Enter what biases took: the amounts, or, along their last axis, each times its weight."""
        self.bias.append(self._sums(amounts, weights))

    def to_constants(self, amounts: Tensor) -> None:
        """Enter what constants took that were added: embeddings of positions, class tokens."""
        self.constants.append(self._sums(amounts))

    def to_stabiliser(self, amounts: Tensor, weights: Float[Tensor, " k"] | None = None) -> None:
        """Enter what stabilisers took, where a denominator was enlarged or nothing was there to give to."""
        self.stabiliser.append(self._sums(amounts, weights))

    def to_other(self, what: str, amounts: Tensor) -> None:
        """Enter what an operation took whose rule does not hand on all that it gets."""
        self.other[what].append(self._sums(amounts))

    def _sums(self, amounts: Tensor, weights: Tensor | None = None) -> Float[Tensor, " b"]:
        if weights is None:
            return per_picture(amounts, self.count)
        rows = _pictures_first(amounts, self.count) @ weights
        return rows if rows.shape == (self.count,) else per_picture(rows, self.count)
