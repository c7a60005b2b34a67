"""Generic attention explainability: attention maps, weighed by their gradients, through all blocks."""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

from whence.models.readout import attend, readout
from whence.models.session import Session
from whence.models.targets import TargetSpec
from whence.registry import method
from whence.results import Answer, Passes


@method(
    "generic-attention",
    title="Generic attention explainability",
    family="propagation",
    paper="arXiv:2103.15679",
    needs="attention",
    reduce="sum",
    show="positive",
    cost=lambda options, model: Passes(forward=1, backward=1),
)
def generic_attention(model: Session, x: Float[Tensor, "b c h w"], target: Sequence[TargetSpec]) -> Answer:
    """Attention maps weighed by their positive gradients, and passed on from block to block.

    Chefer, Gur, Wolf 2021, the rules of self-attention: A' = mean over heads of (dy/dA * A)+ (equation 5), and
    R <- R + A' R from R = I (equation 6). The map is the row of R - I of the class token, the mean of the rows where
    several prefix tokens are read, and of the patches' rows where the patches are pooled.

    Raises
    ------
    UnsupportedError
        The model's patches do not attend to one another, all to all, in block after block.
    """
    found = readout(model, x)
    attended = attend(model, x)
    score = model.score(attended.recording.output, target)
    gradients = model.gradients(score.value, attended.recording)
    start = found.weights(attended.maps[0])[:, None]
    rows = start
    # From the last block to the first: only the rows that are read are ever multiplied.
    for a, g in zip(reversed(attended.maps), reversed(gradients), strict=True):
        weighed = (g * a.detach()).clamp(min=0).mean(1)  # equation 5
        rows = rows + rows @ weighed  # equation 6
    return Answer(found.maps((rows - start)[:, 0]), score)
