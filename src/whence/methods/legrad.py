"""LeGrad: how each block's score changes with its attention map."""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from whence.errors import UnsupportedError
from whence.models.classifier import Classifier
from whence.models.readout import attend, depth, readout
from whence.models.session import Recording, Session
from whence.models.targets import TargetSpec
from whence.registry import method
from whence.results import Answer, Passes


def _cost(options: Mapping[str, object], model: Classifier) -> Passes:
    """One pass, one up to the last block, and for each block what comes after the last one, and a way back."""
    return Passes(forward=1, partial=1 + 2 * depth(model))


@method(
    "legrad",
    title="LeGrad",
    family="propagation",
    paper="arXiv:2404.03214",
    needs="attention",
    reduce="sum",
    show="positive",
    cost=_cost,
)
def legrad(model: Session, x: Float[Tensor, "b c h w"], target: Sequence[TargetSpec]) -> Answer:
    """Positive gradients of each block's own score with respect to its attention map.

    Bousselham et al. 2025: s_l is the score that what comes after the last block gives to the tokens of block l. The
    map is the mean over blocks, heads and queries of (ds_l/dA_l)+ for the keys that are patches. The classes are
    those that the whole model's output names.

    Raises
    ------
    UnsupportedError
        The model's patches do not attend to one another, all to all, in block after block, or no layer returns a
        block's tokens.
    """
    found = readout(model, x)
    if not found.blocks:
        raise UnsupportedError(
            f"{model.classifier.name} has no layers that return the tokens of a block, all paths through them, "
            "on which legrad could run the head: take generic-attention or grad-cam"
        )
    attended = attend(model, x, layers=found.blocks)
    score = model.score(attended.recording.output, target)
    settled = model.fixed(attended.recording.output, target)
    tail, rows = model.replay(x, found.blocks[-1]), torch.arange(len(x))
    relevances = []
    for name, a in zip(found.blocks, attended.maps, strict=True):
        with torch.enable_grad():
            output = model.replayed(tail, attended.blocks[name], rows)
        own = model.score(output, settled)
        (g,) = model.gradients(own.value, Recording(output, x, {name: a}))
        relevances.append(g.clamp(min=0).mean((1, 2)))
    return Answer(found.maps(torch.stack(relevances).mean(0)), score)
