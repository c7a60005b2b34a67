"""Input x gradient: the gradient, weighed by the input's own values."""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

from whence.models.session import Session
from whence.models.targets import TargetSpec
from whence.registry import method
from whence.results import Answer, Passes


@method(
    "input-x-gradient",
    title="Input x gradient",
    family="propagation",
    paper="arXiv:1605.01713",
    needs="gradients",
    reduce="sum",
    show="signed",
    cost=lambda options, model: Passes(forward=1, backward=1),
)
def input_x_gradient(model: Session, x: Float[Tensor, "b *shape"], target: Sequence[TargetSpec]) -> Answer:
    """Each value of the normalised input, multiplied by the gradient of the score there.

    Shrikumar et al. 2016, where it stands as the method to compare with: x * dS/dx. Of a network that is linear up
    to its rectifiers and has no biases the values sum to the score (Euler). The input is the normalised one, so that
    a place of the mean colour gets 0 however much it matters.
    """
    score, gradient = model.slope(x, target)
    return Answer(x * gradient, score)
