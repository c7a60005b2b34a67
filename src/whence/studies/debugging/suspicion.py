"""What makes a cluster suspicious, from its pictures and from the model alone."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from whence.models.classifier import Classifier
from whence.models.session import chunk_size, move, opened
from whence.reports.debugging_results import Check
from whence.studies.debugging.explained import Explained
from whence.studies.debugging.regions import filled, masked, moved

# Of so many of a cluster's pictures the model is asked.
ASKED = 200
# The longest side of the pictures that are compared with each other.
_SMALL = 64


def check(
    classifier: Classifier,
    pictures: Explained,
    rows: Int[Tensor, " m"],
    regions: Int[Tensor, "m 4"],
    generator: torch.Generator,
) -> Check:
    """Ask what the model says of a cluster's pictures without their regions, and compare what is there.

    Parameters
    ----------
    rows, regions
        The cluster's pictures and their boxes; at most 200 of them, evenly spaced, are asked about.
    generator
        Of the random places of equal boxes.
    """
    some = torch.linspace(0, len(rows) - 1, min(len(rows), ASKED)).round().long()
    rows, regions = rows[some], regions[some]
    others = moved(regions, pictures.size, generator)
    views, counts = [], torch.zeros(3)
    for part in torch.split(torch.arange(len(rows)), chunk_size(pictures.inputs(rows[:1]))):
        x, said = pictures.inputs(rows[part]), pictures.said[rows[part]]
        before = probabilities(classifier, x)
        here, there = (probabilities(classifier, without(x, boxes[part])) for boxes in (regions, others))
        asked = (here.argmax(1) != said, _lost(before, here, said), _lost(before, there, said))
        counts += torch.stack([one.sum() for one in asked])
        views.append(F.adaptive_avg_pool2d(x, (min(x.shape[2], _SMALL), min(x.shape[3], _SMALL))))
    likeness = alike(torch.cat(views), pictures.said[rows], pictures.relevance[rows].mean(0))
    changed, lost, elsewhere = (counts.double() / len(rows)).tolist()
    return Check(len(rows), changed, lost, elsewhere, likeness)


def probabilities(classifier: Classifier, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k"]:
    """Return the probability of each class; of a single logit those of 0 and 1."""
    ready = move(classifier, x)
    with opened(classifier) as session:
        logits = session.logits(session.run(ready))
        session.finite(logits, "what the model says")
    found = classifier.scale.probabilities(logits).cpu()
    return torch.cat([1 - found, found], 1) if found.shape[1] == 1 else found


def _lost(before: Float[Tensor, "b k"], after: Float[Tensor, "b k"], said: Int[Tensor, " b"]) -> Bool[Tensor, " b"]:
    """Return which pictures are given another class, or keep less than half of their class's probability."""
    had, has = (one.gather(1, said[:, None])[:, 0] for one in (before, after))
    return (after.argmax(1) != said) | (has < had / 2)


def without(x: Float[Tensor, "b c h w"], regions: Int[Tensor, "b 4"]) -> Float[Tensor, "b c h w"]:
    """Return inputs whose boxes are masked."""
    size = (x.shape[2], x.shape[3])
    return torch.stack([masked(one, filled(box, size)) for one, box in zip(x, regions, strict=True)])


def alike(views: Float[Tensor, "m c h w"], said: Int[Tensor, " m"], heat: Float[Tensor, "g k"]) -> float:
    """Return how much less pixels differ where the maps lie than they do everywhere, from 0 to 1.

    1 - V_in / V: V is the mean over all pixels of the variance between pictures that are given the same class, and
    V_in the mean weighted with the cluster's mean map. A thing that the camera or a clerk put there looks the same on
    every picture of a class, and hardly any part of an object does. 0 where no class has two pictures, or nothing
    differs at all.

    Parameters
    ----------
    views
        The pictures, small.
    said
        The classes that they are given.
    heat
        The mean map.
    """
    squares, freedom = torch.zeros(views.shape[1:]), 0
    for label in sorted(set(said.tolist())):
        own = views[said == label].float()
        squares += (own - own.mean(0)).square().sum(0)
        freedom += len(own) - 1
    variance = squares.mean(0) / max(1, freedom)
    if not variance.any():
        return 0.0
    weight = F.interpolate(heat.float()[None, None], size=variance.shape, mode="bilinear")[0, 0]
    inside = (variance * weight).sum() / weight.sum()
    return max(0.0, 1 - float(inside / variance.mean()))
