"""Attention rollout: where the tokens that are read look, through all attention maps."""

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from whence.models.readout import attend, readout
from whence.models.session import Session
from whence.models.targets import TargetSpec
from whence.registry import method
from whence.results import Answer, Passes

_OVER_HEADS: Mapping[str, Callable[[Tensor, int], Tensor]] = {
    "mean": torch.mean,
    "max": torch.amax,
    "min": torch.amin,
}


@method(
    "attention-rollout",
    title="Attention rollout",
    family="propagation",
    paper="arXiv:2005.00928",
    needs="attention",
    reduce="sum",
    show="positive",
    class_agnostic=True,
    cost=lambda options, model: Passes(forward=1),
)
def attention_rollout(
    model: Session,
    x: Float[Tensor, "b c h w"],
    target: Sequence[TargetSpec],
    *,
    heads: Literal["mean", "max", "min"] = "mean",
) -> Answer:
    """Product of all attention maps: how much of each patch reaches the token that is read.

    Abnar and Zuidema 2020: A_l = 0.5 W_l + 0.5 I, where W_l is the mean over the heads (or their maximum or minimum),
    each row divided by its sum, and A~_l = A_l A~_(l-1). The map is the row of the class token, the mean of the rows
    where several prefix tokens are read, and of the patches' rows where the patches are pooled.

    Raises
    ------
    UnsupportedError
        The model's patches do not attend to one another, all to all, in block after block.
    """
    found = readout(model, x)
    attended = attend(model, x, gradients=False)
    score = model.score(attended.recording.output, target)
    rows = found.weights(attended.maps[0])[:, None]
    # From the last map to the first: only the rows that are read are ever multiplied.
    for w in reversed(attended.maps):
        a = 0.5 * _OVER_HEADS[heads](w, 1) + 0.5 * torch.eye(found.tokens).to(w)
        rows = rows @ (a / a.sum(2, keepdim=True))
    return Answer(found.maps(rows[:, 0]), score)
