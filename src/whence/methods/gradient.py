"""Gradient: how much the score changes with each input value."""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

from whence.models.session import Session
from whence.models.targets import TargetSpec
from whence.registry import method
from whence.results import Answer, Passes


@method(
    "gradient",
    title="Gradient",
    family="propagation",
    paper="arXiv:1312.6034",
    needs="gradients",
    reduce="abs-max",
    show="positive",
    cost=lambda options, model: Passes(forward=1, backward=1),
)
def gradient(model: Session, x: Float[Tensor, "b *shape"], target: Sequence[TargetSpec]) -> Answer:
    """Gradient of the score with respect to the input.

    Simonyan, Vedaldi, Zisserman 2014, section 3: w = dS/dI, and the map is the maximum of |w| over the channels.
    Where the score is saturated the gradient is small however much the place matters.
    """
    score, w = model.slope(x, target)
    return Answer(w, score)
