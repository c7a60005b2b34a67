"""Flips: a method's map over mirrored pictures of more and less contrast."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from jaxtyping import Float
from torch import Tensor

from whence.errors import OptionError
from whence.methods.combinators.running import Inner, combined, mapped, runs, settled, times
from whence.models.session import Session
from whence.models.targets import TargetSpec
from whence.registry import combinator
from whence.results import Answer, Passes


@combinator(
    "flips",
    title="Flips",
    cost=lambda options, passes: Passes(forward=1) + times(passes, 2 * len(options["factors"])),
)
def flips(
    inner: Inner,
    model: Session,
    x: Float[Tensor, "b c h w"],
    target: Sequence[TargetSpec],
    *,
    factors: tuple[int | float, ...] = (0.9, 1.0, 1.1),
) -> Answer:
    """Mean of a method's maps over the picture and its mirror image, at several contrasts.

    Test-time augmentation. Each of ``factors`` multiplies the normalised input, which changes the contrast around the
    mean colour and leaves every place where it is; the map of a mirrored picture is mirrored back on its own grid.
    The class is that of the unchanged picture.
    """
    if 0 in factors:
        raise OptionError(f"flips: factors={factors}: a factor of 0 leaves nothing of the picture")
    score, fixed = settled(model, x, target)

    def changed() -> Iterator[Tensor]:
        for factor in factors:
            yield factor * x
            yield factor * x.flip(-1)

    def undone() -> Iterator[Answer]:
        for number, answer in enumerate(runs(inner, model, x, fixed, changed())):
            yield mapped(answer, lambda m: m.flip(-1)) if number % 2 else answer

    return replace(combined(undone()), score=score)
