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
from whence.models.targets import Fixed, TargetSpec
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
    ``baseline``, ``kept`` that where all else is; the score itself where the target is no class. ``curves`` are
    those of deletion and insertion over the map's own cells, by the metric's name; none where not asked for.
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
    shown = [Fixed("probability", (i,)) if i >= 0 else one for i, one in zip(index, target, strict=True)]
    output = model.run(torch.cat((without, alone)))
    numbers = model.score(output, [*shown, *shown]).value.tolist()
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
