"""Expected baselines: a method's map over several baselines."""

from collections.abc import Iterator, Sequence
from functools import partial

from jaxtyping import Float
from torch import Tensor

from whence.errors import OptionError
from whence.methods.combinators.running import combined
from whence.models.session import Session
from whence.models.targets import TargetSpec
from whence.registry import combinator
from whence.results import Answer


@combinator(
    "expected",
    title="Expected baselines",
    cost=lambda options, passes: passes,
    sets=("baseline", "baselines"),
)
def expected(
    inner: partial[Answer],
    model: Session,
    x: Float[Tensor, "b c h w"],
    target: Sequence[TargetSpec],
    *,
    baselines: tuple[str, ...] = ("zeros", "blurred"),
    seed: int = 0,
) -> Answer:
    """Mean of a method's maps over several baselines.

    For methods with the option ``baseline``: what a map says of a place depends on what stands there instead, and the
    mean depends less on one choice. A baseline that is drawn at random may be named several times, each time with a
    new draw: the k-th of a name is drawn from ``seed`` + k.
    """
    if len(set(baselines)) < len(baselines) and "seed" not in inner.keywords:
        raise OptionError(f"expected: baselines={baselines}: give each once, for this method has no seed to draw by")

    def answers() -> Iterator[Answer]:
        for number, name in enumerate(baselines):
            draw = {"seed": seed + baselines[:number].count(name)} if "seed" in inner.keywords else {}
            yield inner(model, x, target, baseline=name, **draw)

    return combined(answers())
