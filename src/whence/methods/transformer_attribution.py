"""Transformer attribution: the relevance of attention maps, weighed by their gradients, through all blocks."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from whence.errors import ModelError
from whence.methods.lrp import IN_FLOAT32, rules, without_rule
from whence.methods.lrp.composites import Composite, Where
from whence.methods.lrp.operations import table
from whence.methods.lrp.propagation import Propagation
from whence.methods.lrp.start import Run
from whence.models.readout import attend, readout
from whence.models.session import Session
from whence.models.targets import TargetSpec
from whence.registry import method
from whence.results import Answer, Passes

Variant = Literal["attn-lrp", "official"]


def _without_bias(rule: rules.Rule) -> rules.Rule:
    """Return a rule that gives biases nothing."""
    groups = (replace(group, parts=tuple(replace(part, bias=None) for part in group.parts)) for group in rule.groups)
    return replace(rule, groups=tuple(groups))


_Z_PLUS = _without_bias(rules.z_plus())
_LINEAR: tuple[tuple[Where, rules.Rule | str], ...] = (("convolution", _Z_PLUS), ("linear", _Z_PLUS))
_COMPOSITES: Mapping[Variant, Composite] = {
    "attn-lrp": Composite("z-plus attn-lrp", (*_LINEAR, ("attention", "attn"))),
    "official": Composite("chefer", (*_LINEAR, ("attention", "pass"), ("norm", "pass"), ("sum", "normalised"))),
}
_CHANCE = "the official rules divide by values near zero: in float32 some of this map is rounding"


@method(
    "transformer-attribution",
    title="Transformer attribution",
    family="propagation",
    paper="arXiv:2012.09838",
    needs="attention",
    reduce="sum",
    show="positive",
    cost=lambda options, model: Passes(forward=2, backward=2),
)
def transformer_attribution(
    model: Session,
    x: Float[Tensor, "b c h w"],
    target: Sequence[TargetSpec],
    *,
    variant: Variant = "attn-lrp",
) -> Answer:
    """Relevance of attention maps, weighed by their gradients and multiplied through the blocks.

    Chefer, Gur, Wolf 2021: A'_l = I + mean over heads of (dy/dA_l * R_l)+, and C is the product of all of them, the
    last block's on the left. R_l is the relevance of the block's attention map. The map is
    the row of C - I of the class token, the mean of the rows where several prefix tokens are read, and of the
    patches' rows where the patches are pooled.

    Relevance starts as dy/dz at the logits z, 1 at a class. It goes back by z+ through linear operations, with inputs
    of both signs and no biases, unchanged through activations, and in halves to the factors of a matrix product.

    ``variant`` says what happens elsewhere. ``official`` has the rules of the authors' code: norms and softmax hand
    on what they get, value by value; the summands of a sum get shares in proportion, which are then scaled so that
    their sums over a picture (over the whole batch in that code) have one sign. These rules
    divide by values near zero: a picture changed by no more than rounding may get another map. ``attn-lrp`` has the
    rules of ``lrp`` instead, which do not: softmax by its first-order expansion, a norm's deviation as a constant and
    its bias with a share, and summands in proportion, which keeps a sum's relevance without any scaling.

    Where a function is the target and reads what no linear operation returns, relevance starts as value times
    derivative. The authors' row is the first token's, whatever is read, and of a batch they return one picture alone.

    Raises
    ------
    UnsupportedError
        The model's patches do not attend to one another, all to all, in block after block.
    """
    # Relevance does not stand half precision, and gradients should be of the same run.
    model.runner.precision = "float32"
    found = readout(model, x)
    attended = attend(model, x)
    output = attended.recording.output
    score = model.score(output, target)
    gradients = model.gradients(score.value, attended.recording)
    start = found.weights(attended.maps[0])[:, None]
    if not any(g.any() for g in gradients):
        return Answer(found.maps(torch.zeros_like(start)[:, 0]), score)
    run = model.once(x, ("relevance", variant), partial(_run, model, x, _COMPOSITES[variant], len(gradients)))
    relevance = run.sloped(model.fixed(output, target)).maps
    # C - I from the last block to the first, of the rows that are read alone; less what they begin with, which is so
    # much more that little would be left of small numbers after it.
    rows = torch.zeros_like(start)
    for index, g in reversed(list(enumerate(gradients))):
        r = relevance[f"attention {index}"].reshape(g.shape)
        rows = rows + (start + rows) @ (g * r).clamp(min=0).mean(1)
    notes = _notes(model, run, variant)
    return Answer(found.maps(rows[:, 0]), score, notes=(notes,) * len(x))


def _run(model: Session, x: Float[Tensor, "b c h w"], composite: Composite, calls: int) -> Run:
    """Run the model forward, ready to hand relevance back through as many attention maps."""
    propagation = Propagation(
        model.module, composite, table(), pixels=model.pixels, bias="absorb", count=len(x), attention=True
    )
    with propagation:
        recording = model.record(x)
    if propagation.maps != calls:
        raise ModelError(
            f"{model.classifier.name} makes {calls} attention maps, and {propagation.maps} where relevance is handed "
            "back: take generic-attention, which needs none"
        )
    return Run(model, propagation, recording)


def _notes(model: Session, run: Run, variant: Variant) -> tuple[str, ...]:
    notes = [_CHANCE] if variant == "official" and run.recording.batch.dtype != torch.float64 else []
    notes += [IN_FLOAT32] if model.classifier.precision != "float32" else []
    if run.propagation.unknown:
        notes.append(f"{without_rule(run.propagation)}, which hand on their first-order expansion")
    return tuple(notes)
