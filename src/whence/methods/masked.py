"""What the methods share that mask a picture: what is measured, and what stands where the picture is taken away."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from whence.errors import SizeError
from whence.models.session import Session
from whence.models.targets import Fixed, TargetSpec
from whence.pictures.baselines import BASELINES, make_baseline

BY_PROBABILITY = "what is measured under the masks is the class's probability, not its logit"
# The finest grid that is taken unasked: cells of eight pixels in a picture of 224.
_FINEST = 28
Masks = Callable[[Int[Tensor, " n"]], Float[Tensor, "n 1 h w"]]
"""Makes the masks with the given numbers: 1 where the picture is kept."""


def by_probability(targets: Sequence[TargetSpec]) -> list[TargetSpec]:
    """Return settled targets: a class is measured by its probability, any other target by its own number."""

    def measured(target: TargetSpec) -> TargetSpec:
        is_class = isinstance(target, Fixed) and target.measure == "logit"
        return Fixed("probability", target.classes) if isinstance(target, Fixed) and is_class else target

    return [measured(target) for target in targets]


def notes(
    baseline: str, settled: Sequence[TargetSpec], measured: Sequence[TargetSpec]
) -> tuple[tuple[str, ...], ...]:
    """Say for each picture what stands in its place, and where another number than the score is measured."""
    instead = f"where the picture is taken away stands {BASELINES[baseline].sentence}"
    return tuple(
        (instead,) if ours == asked else (instead, BY_PROBABILITY)
        for asked, ours in zip(settled, measured, strict=True)
    )


def base_picture(
    model: Session, x: Float[Tensor, "b c h w"], baseline: str, seed: int = 0
) -> Float[Tensor, "b c h w"]:
    """Return what stands where masks take the pictures away; a random baseline is drawn once."""
    return make_baseline(baseline, x, model.pixels, seed=seed)[0]


def blended(
    x: Float[Tensor, "n c h w"], base: Float[Tensor, "n c h w"], keep: Float[Tensor, "n 1 h w"]
) -> Float[Tensor, "n c h w"]:
    """Return the pictures where ``keep`` is 1, the base pictures where it is 0, and a mixture in between."""
    return x * keep + base * (1 - keep)


def grid_side(mask: int | None, size: tuple[int, int]) -> int:
    """Return the side of the masks' grid: as asked for, or 28, or the picture's shorter side where that is less.

    Raises
    ------
    SizeError
        The grid is finer than the picture.
    """
    if mask is not None and mask > min(size):
        raise SizeError(
            f"mask={mask} on inputs of {size[0]} x {size[1]}: the masks' grid must not be finer than the input, "
            f"give at most {min(size)}"
        )
    return mask or min(_FINEST, *size)


def searched_type(x: Float[Tensor, "..."]) -> torch.dtype:
    """Return the type of the masks: the pictures' own, and no half precision, in which small steps are lost."""
    return torch.promote_types(x.dtype, torch.float32)


def weighted_slope(
    model: Session,
    parameters: Sequence[Tensor],
    make: Callable[[Int[Tensor, " m"]], Float[Tensor, "m c h w"]],
    rows: Int[Tensor, " n"],
    target: Sequence[TargetSpec],
    weights: Float[Tensor, " n"],
    batch: int,
) -> tuple[Float[Tensor, " n"], list[Tensor]]:
    """Return the scores of pictures made from parameters, and the gradient of their weighted sum.

    ``make`` returns the pictures with the given numbers, the i-th of which is made of picture ``rows[i]``, and is run
    with gradients on; ``batch`` pictures are held at a time. ``target`` holds one settled target a picture.
    """
    scores, slope = [], [torch.zeros_like(parameter) for parameter in parameters]
    for numbers in torch.split(torch.arange(len(rows)), batch):
        mine = rows[numbers]
        with torch.enable_grad():
            made = make(numbers)
        score, gradient = model.slope(made.detach(), [target[row] for row in mine.tolist()], mine)
        pulled = torch.autograd.grad(made, parameters, gradient * weights[numbers].to(gradient)[:, None, None, None])
        slope = [before + more for before, more in zip(slope, pulled, strict=True)]
        scores.append(score.value.detach())
    return torch.cat(scores), slope
