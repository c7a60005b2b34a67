"""Where the relevance went: to the input, to biases, to constants and to stabilisers."""

from collections import defaultdict
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


@dataclass
class Ledger:
    """What one pass back gave to whom, per picture, and the relevance seen at layers."""

    count: int
    bias: Float[Tensor, " b"] | int | float = 0.0
    constants: Float[Tensor, " b"] | int | float = 0.0
    stabiliser: Float[Tensor, " b"] | int | float = 0.0
    other: dict[str, Float[Tensor, " b"] | int | float] = field(default_factory=lambda: defaultdict(float))
    layers: dict[str, Tensor] = field(default_factory=dict)

    def balance(self, start: Float[Tensor, " b"], given: Float[Tensor, "b ..."]) -> Balance:
        """Return where ``start`` went, of which the inputs were ``given`` some."""

        def whole(amounts: Tensor | int | float) -> Tensor:
            return torch.as_tensor(amounts, dtype=torch.float64, device=start.device).expand(self.count)

        return Balance(
            start.double(),
            per_picture(given, self.count),
            whole(self.bias),
            whole(self.constants),
            whole(self.stabiliser),
            {what: whole(amounts) for what, amounts in self.other.items()},
            {name: per_picture(r, self.count) for name, r in self.layers.items()},
        )

    def to_bias(self, amounts: Tensor) -> None:
        """Enter what biases took."""
        self.bias = self.bias + per_picture(amounts, self.count)

    def to_constants(self, amounts: Tensor) -> None:
        """Enter what constants took that were added: embeddings of positions, class tokens."""
        self.constants = self.constants + per_picture(amounts, self.count)

    def to_stabiliser(self, amounts: Tensor) -> None:
        """Enter what stabilisers took, where a denominator was enlarged or nothing was there to give to."""
        self.stabiliser = self.stabiliser + per_picture(amounts, self.count)

    def to_other(self, what: str, amounts: Tensor) -> None:
        """Enter what an operation took whose rule does not hand on all that it gets."""
        self.other[what] = self.other[what] + per_picture(amounts, self.count)
