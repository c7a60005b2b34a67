"""From one picture to the filters that count most for what the net says of it."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from torch import Tensor

from whence.interpretable.measures import ReceptiveFields
from whence.interpretable.reporting.active import active
from whence.interpretable.reporting.nets import Nets
from whence.models.masked.templates import centres, cones
from whence.models.session import move, opened
from whence.pictures.preprocess import as_seen
from whence.reports.filters import Step, Walk

RAW, MASKED = "interpretable.added", "interpretable"

# What is known of each filter: its category and its best part, None where there is none.
Names = Sequence[tuple[str | None, str | None]]


def walk(
    nets: Nets,
    x: Float[Tensor, "c h w"],
    fields: ReceptiveFields,
    threshold: Float[Tensor, " k"],
    names: Names,
    *,
    name: str,
    label: str | None,
    count: int,
) -> Walk:
    """Return what the net says of a picture, and the ``count`` filters that contribute most to the class's score.

    A filter contributes the sum over places of its masked map times the score's gradient: exactly its share where
    what follows is linear, as with a global mean and one linear layer; else to the first order.
    """
    classifier = nets.interpretable
    with opened(classifier, names=(name,)) as session:
        recording = session.record(move(classifier, x[None]), [RAW, MASKED])
        score = session.score(recording.output, [None])
        tapped = session.tapped(recording, score)
        logits = session.logits(recording.output)
    index = int(score.index)
    raw, masked = tapped[RAW].activation, tapped[MASKED].activation
    contribution = (masked * tapped[MASKED].gradient).sum((2, 3))[0]
    mask = nets.masked.interpretable.mask
    at = centres(raw, mask.centre)
    template = cones(at, raw, mask.beta, floor=-1.0)
    inside = active(masked[0].cpu(), threshold, fields, (x.shape[1], x.shape[2]))
    steps = [
        Step(
            number=k,
            category=names[k][0],
            part=names[k][1],
            contribution=float(contribution[k]),
            at=(int(at[0, k, 0]), int(at[0, k, 1])),
            raw=_array(raw, k),
            template=_array(template, k),
            masked=_array(masked, k),
            field=inside[k].numpy(),
        )
        for k in contribution.topk(min(count, len(contribution))).indices.tolist()
    ]
    probability = float(classifier.scale.probabilities(logits.detach())[0, index])
    said = classifier.scale.label(index)
    return Walk(name, label, said, probability, as_seen(x, classifier.pixels), steps)


def _array(maps: Float[Tensor, "1 k h w"], k: int) -> Float[np.ndarray, "h w"]:
    return maps[0, k].double().cpu().numpy()
