"""Noise tunnel: a method's map over noisy copies of the picture."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from whence.methods.combinators.running import Inner, Variant, combined, runs, settled, times
from whence.methods.numbers import at_least
from whence.models.session import Session
from whence.models.targets import TargetSpec
from whence.registry import combinator
from whence.results import Answer, Passes

UNSIGNED = "squares and variances over noise have no sign: they show where the map is strong or changes"


@combinator(
    "noise",
    title="Noise tunnel",
    cost=lambda options, passes: Passes(forward=1) + times(passes, options["samples"]),
)
def noise(
    inner: Inner,
    model: Session,
    x: Float[Tensor, "b *shape"],
    target: Sequence[TargetSpec],
    *,
    samples: int = 20,
    sigma: int | float = 0.15,
    variant: Variant = "mean",
    seed: int = 0,
) -> Answer:
    """Mean, mean square or variance of a method's maps over noisy copies of the picture.

    Smilkov et al. 2017 for the gradient: M(x) = 1/n sum_i m(x + N(0, s^2)), where s is ``sigma`` times the range,
    max - min, of the picture's own normalised values. ``square`` takes m^2 (SmoothGrad-squared), ``variance`` the
    variance of m with divisor n (VarGrad). The class is that of the unchanged picture; the noise is the same for
    every picture.
    """
    at_least(samples=(samples, 1), sigma=(sigma, 0))
    score, fixed = settled(model, x, target)
    values = x.flatten(1)
    spread = sigma * (values.amax(1) - values.amin(1)).reshape(-1, *[1] * (x.ndim - 1))
    generator = torch.Generator().manual_seed(seed)
    noisy = (x + spread * torch.randn(x.shape[1:], generator=generator).to(x) for _ in range(samples))
    answer = combined(runs(inner, model, x, fixed, noisy), variant)
    unsigned = () if variant == "mean" else (UNSIGNED,)
    return replace(answer, score=score, notes=tuple((*notes, *unsigned) for notes in answer.notes))
