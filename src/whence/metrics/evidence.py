"""Evidence for a map: the class without the most important places, and with them alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from whence.metrics.claim import Claim
from whence.metrics.measuring import measured
from whence.metrics.ranking import top_share
from whence.models.session import Session
from whence.models.targets import TargetSpec
from whence.pictures.baselines import make_baseline

SHARE = 0.064
BASELINE = "blurred"


CURVES = ("deletion", "insertion")


@dataclass(frozen=True)
class AreaCurve:
    """A number while ever more of one picture is changed: ``value`` at each ``share``, and the area under it."""

    area: float
    share: tuple[float, ...]
    value: tuple[float, ...]


@dataclass(frozen=True)
class Evidence:
    """One picture's evidence for one map.

    ``removed`` is the target's probability where the most important ``share`` of the input's area is replaced by
    ``baseline``, ``kept`` that where all else is; the score itself where the target is no class. ``curves`` hold the
    same number along the whole ranking, by the metric's name; none where they were not asked for.
    """

    share: float
    baseline: str
    removed: float
    kept: float
    curves: Mapping[str, AreaCurve] = field(default_factory=dict)


def evidence(
    model: Session,
    x: Float[Tensor, "b c h w"],
    heat: Float[Tensor, "b h w"],
    target: Sequence[TargetSpec],
    index: Sequence[int],
    *,
    share: float = SHARE,
    baseline: str = BASELINE,
) -> tuple[list[Evidence], Float[Tensor, "b 2 c h w"]]:
    """Return the evidence for maps on the input grid, and for each picture the two inputs that gave it.

    ``index`` are the classes explained, -1 for a callable's.
    """
    important = top_share(heat, share)[:, None].to(x)
    (base,) = make_baseline(baseline, x, model.pixels)
    without, alone = torch.lerp(x, base, important), torch.lerp(base, x, important)
    numbers = _numbers(model, torch.cat((without, alone)), [*target, *target], [*index, *index])
    found = [
        Evidence(share, baseline, removed, kept)
        for removed, kept in zip(numbers[: len(x)], numbers[len(x) :], strict=True)
    ]
    return found, torch.stack((without, alone), dim=1).cpu()


def curves(of: Claim) -> list[dict[str, AreaCurve]]:
    """Return each map's curves of deletion and insertion, with these metrics' own defaults."""
    found = {name: measured(of, name, {}) for name in CURVES}
    return [
        {
            name: AreaCurve(float(m.value[row]), tuple(m.curve.share.tolist()), tuple(m.curve.value[row].tolist()))
            for name, m in found.items()
            if m.curve is not None
        }
        for row in range(len(of.x))
    ]


def _numbers(
    model: Session, x: Float[Tensor, "b c h w"], target: Sequence[TargetSpec], index: Sequence[int]
) -> list[float]:
    """Return each picture's probability of its class, or its score where the target is no class."""
    output = model.run(x)
    scores = model.score(output, target).value if min(index) < 0 else torch.zeros(len(x))
    if max(index) < 0:
        return scores.tolist()
    probabilities = model.scale.probabilities(model.logits(output))
    model.finite(probabilities, "the probability under masking")
    return [float(p[i]) if i >= 0 else float(s) for p, s, i in zip(probabilities, scores, index, strict=True)]
