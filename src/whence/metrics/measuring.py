"""measure(): maps and a metric's name to numbers."""

from collections.abc import Callable
from typing import Any

from jaxtyping import Bool, Float
from torch import Tensor, nn

from whence.errors import OptionError
from whence.metrics.claim import Claim
from whence.models.classifier import Classifier
from whence.models.session import Session, chunk_size, move, opened
from whence.models.targets import Fixed, Targets, TargetSpec, per_picture
from whence.registry import METRICS
from whence.results import Attribution, Measured


def measure(
    model: Classifier | nn.Module | Callable[..., Any],
    x: Float[Tensor, "b c h w"],
    answer: Attribution,
    metric: str,
    *,
    target: Targets = None,
    region: Bool[Tensor, "b h w"] | None = None,
    **options: Any,  # noqa: ANN401  (the metric's own, checked against its signature)
) -> Measured:
    """Measure the maps of a batch of preprocessed inputs.

    Parameters
    ----------
    model, x, answer
        The model, its inputs [B, C, H, W], and what ``attribute`` said of them.
    metric
        A name that ``whence.metrics.names()`` lists.
    target
        What was explained, if that was no plain class; the classes of ``answer`` if not given.
    region
        [B, H, W] on the input's grid: where the true evidence lies, for the metrics that ask for it.
    options
        The metric's own.

    Raises
    ------
    WhenceError
        An unknown metric or option; maps and pictures that do not fit together; NaN or infinity anywhere.
    """
    classifier = model if isinstance(model, Classifier) else Classifier(model)
    if len(answer) != len(x) or answer.input_size != tuple(x.shape[2:]):
        made = f"{len(answer)} maps for inputs of {' x '.join(map(str, answer.input_size))}"
        raise OptionError(f"measure({metric!r}): {made}, and pictures of shape {list(x.shape)}: give those explained")
    if region is not None and tuple(region.shape) != (len(x), *x.shape[2:]):
        raise OptionError(f"a region of shape {list(region.shape)} for pictures of {list(x.shape)}: give [B, H, W]")
    return measured(claim(classifier, move(classifier, x), answer, target, region=region), metric, options)


def claim(
    classifier: Classifier,
    x: Float[Tensor, "b c h w"],
    answer: Attribution,
    target: Targets,
    names: list[str] | None = None,
    region: Bool[Tensor, "b h w"] | None = None,
) -> Claim:
    """Return maps with what they explain, its classes settled by what the model says of the whole pictures."""
    names = names or [f"picture {i} of the batch" for i in range(len(x))]
    asked = per_picture(target, len(x))
    asked = [index if one is None and index >= 0 else one
             for one, index in zip(asked, answer.target.tolist(), strict=True)]  # fmt: skip
    settled: list[TargetSpec] = [Fixed("logit", (one,)) for one in asked if isinstance(one, int)]
    if len(settled) < len(asked):
        with opened(classifier, names=names) as session:
            settled = asked if None in asked else _fixed(session, x, asked)
    return Claim(classifier, x, answer, settled, names, None if region is None else region.to(x.device))


def _fixed(session: Session, x: Float[Tensor, "b c h w"], asked: list[TargetSpec]) -> list[TargetSpec]:
    """Return targets with their classes settled, of a batch of any size."""
    size = chunk_size(x)
    return [
        target
        for start in range(0, len(x), size)
        for target in session.fixed(session.run(x[start : start + size]), asked[start : start + size])
    ]


def measured(of: Claim, metric: str, options: dict[str, Any]) -> Measured:
    """Return what a metric says of a claim."""
    facts = METRICS.facts(metric)
    found: Measured = facts.function(of, **facts.checked(options))
    return found
