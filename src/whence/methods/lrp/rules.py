"""Rules of linear operations: who gets how much of an output's relevance.

A rule is data. An output's relevance is dealt out by ``groups``; each has a share of it, and deals that in proportion
to contributions a_j w_jk: those of its ``parts``, each of which takes the inputs of one sign, or something else in
their place, times a function of the weights.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from whence.errors import OptionError

Inputs = Literal["all", "positive", "negative", "ones", "above low", "below high"]
"""Whose contributions: of all inputs, those of one sign, ones in their place, or how far they are from a bound."""

PROPORTIONAL = ("all", "positive", "negative")


@dataclass(frozen=True)
class Stabiliser:
    """What keeps denominators away from zero, with the sign of z, and sgn(0) = +1.

    ``plain`` adds ``epsilon`` to |z|, ``clip`` lets |z| not be smaller than it, ``rms`` adds ``epsilon`` times the
    root of the mean square of z over the operation's outputs for a picture.
    """

    epsilon: int | float = 1e-6
    how: Literal["plain", "clip", "rms"] = "plain"

    def __post_init__(self) -> None:
        """Refuse what stabilises nothing."""
        if self.epsilon < 0 or self.how not in ("plain", "clip", "rms"):
            raise OptionError(
                f"epsilon={self.epsilon}, how={self.how!r}: give a number from 0, and plain, clip or rms"
            )

    def __call__(self, z: Float[Tensor, "b ..."]) -> Float[Tensor, "b ..."]:
        """Return the denominator."""
        return z + self.added(z)

    def added(self, z: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Return what is added to z."""
        epsilon = torch.as_tensor(self.epsilon, dtype=z.dtype, device=z.device)
        if self.how == "clip":
            epsilon = (epsilon - z.abs()).clamp(min=0)
        if self.how == "rms":
            epsilon = epsilon * z.square().mean(tuple(range(1, z.ndim)), keepdim=True).sqrt()
        return torch.copysign(epsilon, z)


def plus(w: Tensor, out: Tensor | None = None) -> Tensor:
    """Return the positive part."""
    return torch.clamp(w, min=0, out=out)


def minus(w: Tensor, out: Tensor | None = None) -> Tensor:
    """Return the negative part, which is not positive."""
    return torch.clamp(w, max=0, out=out)


@dataclass(frozen=True)
class Part:
    """Contributions of some inputs: ``weight`` and ``bias`` say what is taken of both, None the weight as it is."""

    inputs: Inputs = "all"
    weight: Callable[[Tensor], Tensor] | None = None
    bias: Callable[[Tensor], Tensor] | Literal["as it is"] | None = None


@dataclass(frozen=True)
class Group:
    """Contributions that share out ``share`` of the relevance.

    ``serves`` restricts it to outputs of one sign, ``sign`` says of which sign all contributions are. With ``rest``
    they sum to what the group before leaves of the output, so that the sum need not be computed.
    """

    parts: tuple[Part, ...]
    share: int | float = 1.0
    serves: Literal["positive", "negative"] | None = None
    sign: Literal[1, -1] | None = None
    rest: bool = False


@dataclass(frozen=True)
class Rule:
    """How a linear operation deals out its outputs' relevance.

    With ``fallback`` an output for which one group has no contributions gives that group's share to the others, and
    where none has any, deals by the plain contributions a_j w_jk.
    """

    name: str
    groups: tuple[Group, ...]
    stabiliser: Stabiliser = Stabiliser()
    fallback: bool = False

    @property
    def plain(self) -> bool:
        """Whether it is LRP-0, which is the gradient where R / value is carried."""
        return self.groups == (PLAIN,) and self.stabiliser.epsilon == 0

    @property
    def proportional(self) -> bool:
        """Whether an input of zero gets nothing, so that R can be carried as R divided by the value."""
        return all(part.inputs in PROPORTIONAL for group in self.groups for part in group.parts)

    @property
    def homogeneous(self) -> bool:
        """Whether weights that are so many times as large contribute so many times as much."""
        return all(part.weight in (None, plus, minus) for group in self.groups for part in group.parts)


PLAIN = Group((Part(bias="as it is"),))


def zero() -> Rule:
    """LRP-0: R_j = sum_k a_j w_jk / z_k R_k. Bach et al. 2015, equation 52."""
    return Rule("lrp-0", (PLAIN,), Stabiliser(0.0))


def epsilon(epsilon: int | float = 1e-6, how: Literal["plain", "clip", "rms"] = "plain") -> Rule:
    """LRP-epsilon: R_j = sum_k a_j w_jk / (z_k + epsilon sgn z_k) R_k. Bach et al. 2015, equation 58."""
    return Rule(f"epsilon={epsilon:g}", (PLAIN,), Stabiliser(epsilon, how))


def gamma(gamma: int | float = 0.25, epsilon: int | float = 1e-6) -> Rule:
    """LRP-gamma for inputs that are not negative: a_j (w_jk + gamma w+_jk). Montavon et al. 2019, section 10.2."""

    def favoured(w: Tensor) -> Tensor:
        return w + gamma * plus(w)

    return Rule(f"gamma={gamma:g}", (Group((Part("all", favoured, favoured),)),), Stabiliser(epsilon))


def generalised_gamma(gamma: int | float = 0.25, epsilon: int | float = 1e-6) -> Rule:
    """LRP-gamma for inputs of any sign. Andeol et al. 2021: contributions of the output's own sign are favoured.

    For z_k > 0 the contributions are a+ (w + gamma w+) + a- (w + gamma w-), for z_k < 0 a+ (w + gamma w-) +
    a- (w + gamma w+); the bias is favoured as the weights of a+ are. An output of exactly 0 hands nothing on.
    """

    def up(w: Tensor) -> Tensor:
        return w + gamma * plus(w)

    def down(w: Tensor) -> Tensor:
        return w + gamma * minus(w)

    return Rule(
        f"generalised-gamma={gamma:g}",
        (
            Group((Part("positive", up, up), Part("negative", down)), serves="positive"),
            Group((Part("positive", down, down), Part("negative", up)), serves="negative"),
        ),
        Stabiliser(epsilon),
    )


def alpha_beta(
    alpha: int | float = 2, beta: int | float = 1, epsilon: int | float = 1e-6, fallback: bool = False
) -> Rule:
    """LRP-alpha-beta: positive contributions share out alpha R_k, negative ones -beta R_k; Bach et al. 2015, eq. 60.

    Raises
    ------
    ValueError
        alpha - beta is not 1, or one of them is negative.
    """
    if alpha < 0 or beta < 0 or abs(alpha - beta - 1) > 1e-9:
        raise ValueError(f"alpha={alpha}, beta={beta}: give two numbers that are not negative, with alpha - beta = 1")
    positive = Group((Part("positive", plus, plus), Part("negative", minus)), alpha, sign=1)
    negative = Group((Part("positive", minus, minus), Part("negative", plus)), -beta, sign=-1, rest=True)
    groups = (positive, negative) if beta else (positive,)
    return Rule(f"alpha{alpha:g}-beta{beta:g}", groups, Stabiliser(epsilon), fallback)


def z_plus(epsilon: int | float = 1e-6, fallback: bool = False) -> Rule:
    """z+: positive contributions share out everything. Montavon et al. 2017, equation 10; alpha-beta with (1, 0)."""
    return alpha_beta(1, 0, epsilon, fallback)


def w_square(epsilon: int | float = 1e-6) -> Rule:
    """w squared: R_j = sum_k w_jk^2 / sum_j w_jk^2 R_k, for inputs without bounds. Montavon et al. 2017, eq. 12."""
    return Rule("w-square", (Group((Part("ones", torch.square),), sign=1),), Stabiliser(epsilon))


def flat(epsilon: int | float = 1e-6) -> Rule:
    """Flat: every input of an output gets the same; what lies in the padding counts for nothing. Lapuschkin 2017."""
    return Rule("flat", (Group((Part("ones", torch.ones_like),), sign=1),), Stabiliser(epsilon))


def box(epsilon: int | float = 1e-6) -> Rule:
    """zB: a_j w_jk - l_j w+_jk - h_j w-_jk, for inputs between l and h. Montavon et al. 2017, equation 14.

    As (a_j - l_j) w+_jk + (a_j - h_j) w-_jk, which is 0 for inputs at their bounds, and no rounding. The bounds are
    those of the model's input for black and white, per channel; without these, the extremes of each channel.
    """
    parts = (Part("above low", plus), Part("below high", minus))
    return Rule("box", (Group(parts),), Stabiliser(epsilon))
