"""Guided backpropagation: the gradient, through rectifiers that let only positive gradients back."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from whence.errors import UnsupportedError
from whence.models.operations import guided, rectifiers
from whence.models.session import Session
from whence.models.targets import TargetSpec
from whence.registry import method
from whence.results import Answer, Passes

NO_RECTIFIER = "the score depends on no rectifier (ReLU), so that guided backpropagation is the plain gradient"


@method(
    "guided-backprop",
    title="Guided backpropagation",
    family="propagation",
    paper="arXiv:1412.6806",
    needs="gradients",
    reduce="abs-max",
    show="positive",
    cost=lambda options, model: Passes(forward=1, backward=1),
)
def guided_backprop(model: Session, x: Float[Tensor, "b *shape"], target: Sequence[TargetSpec]) -> Answer:
    """Gradient in which every rectifier passes back only what is positive.

    Springenberg et al. 2015, section 3.4: R_l = 1[f_l > 0] * 1[R_(l+1) > 0] * R_(l+1) at each rectifier, where f_l is
    what goes into it; everything else passes its gradient back as it is. It sharpens edges, and depends little on the
    class.

    Raises
    ------
    UnsupportedError
        Rectifiers run below Python, in a script or a compiled function, where they cannot be guided.
    """
    if any(isinstance(layer, torch.jit.ScriptModule) for layer in model.module.modules()):
        raise _unsupported(model)
    with guided():
        recording = model.record(x)
        score = model.score(recording.output, target)
        found = rectifiers(score.value)
        if found.missed:
            raise _unsupported(model)
        (gradient,) = model.gradients(score.value, recording)
    notes = () if found.guided else (NO_RECTIFIER,)
    return Answer(gradient, score, notes=(notes,) * len(x))


def _unsupported(model: Session) -> UnsupportedError:
    return UnsupportedError(
        f"{model.classifier.name} runs rectifiers in a script or a compiled function, where guided backpropagation "
        "cannot reach them: explain the module it was made from, or take gradient"
    )
