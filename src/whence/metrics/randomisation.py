"""Randomisation: whether the map still is the same when the model's weights are drawn at random."""

from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from itertools import pairwise
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from whence.attribution import attribute_all
from whence.errors import UnsupportedError
from whence.methods.numbers import at_least
from whence.metrics.claim import Claim
from whence.metrics.noting import notes
from whence.metrics.ranking import Ranking
from whence.models.classifier import Classifier
from whence.models.random import draw, undisturbed
from whence.registry import metric
from whence.results import Curve, Measured, Passes

FLAT = "there is no number: the map is the same everywhere, and ranks nothing"
SOME_FLAT = "some random models gave a map that is the same everywhere: they are left out of the mean"
Order = Literal["top-down", "bottom-up", "independent"]
# A model that was itself drawn from a small seed must not come out the same.
_APART = 1_000_003


@metric(
    "randomisation",
    along="share of the layers",
    title="Model parameter randomisation",
    family="sanity",
    paper="arXiv:1810.03292",
    needs="method",
    better="lower",
)
def randomisation(
    claim: Claim,
    *,
    order: Order = "top-down",
    steps: int | None = 8,
    absolute: bool = False,
    seed: int = 0,
) -> Measured:
    """Mean rank correlation between the map and those of the same model with ever more layers drawn at random.

    Adebayo et al. 2018: a map that shows what the model has learned is lost with it. The layers go in ``steps`` of
    equal size, or one by one (none): from the output's to the input's, cascading (``top-down``), the other way round
    (``bottom-up``), or each part alone (``independent``). Spearman's correlation, of the signed maps on the input's
    grid or of their ``absolute`` values; the curve holds it for every step. The weights are drawn as those of
    ``load_model(..., weights="random")``; the model itself is copied, and not touched.
    """
    at_least(steps=(steps, 1))
    own = _ranked(claim.heat, absolute)
    found, passes = [], Passes()
    share = []
    for part, changed in _randomised(claim, order, steps, seed):
        (answer,) = attribute_all(
            changed, claim.x, claim.answer.method, [list(claim.explained)], _options(claim), names=claim.names
        )
        share.append(part)
        found.append(correlation(own, _ranked(answer.heatmap().to(own.device), absolute)))
        passes += answer.passes
    value = torch.stack(found, dim=1)
    undefined = value.isnan()
    flat, some = undefined.all(1), undefined.any(1) & ~undefined.all(1)
    curve = Curve(torch.tensor(share, dtype=torch.float64), value)
    return Measured(value.nanmean(1), curve, passes, notes({FLAT: flat, SOME_FLAT: some}))


def _ranked(heat: Float[Tensor, "b h w"], absolute: bool) -> Float[Tensor, "b n"]:
    """Return every place's rank, from the highest, the mean rank where places are tied."""
    ranking = Ranking.of(heat.abs() if absolute else heat)
    return ranking.higher.flatten(1).double() + (ranking.tied.flatten(1).double() + 1) / 2


def correlation(a: Float[Tensor, "b n"], b: Float[Tensor, "b n"]) -> Float[Tensor, " b"]:
    """Return Pearson's correlation of each row; NaN where one of the two does not vary."""
    a, b = (t - t.mean(1, keepdim=True) for t in (a, b))
    product: Tensor = (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1))
    return product


def _options(claim: Claim) -> Mapping[str, object]:
    """Return the options that the map was made with; of another model another layer would be chosen."""
    options = claim.answer.options
    chosen = claim.answer.layer is not None and options.get("layer", "") is None
    return {**options, "layer": claim.answer.layer} if chosen else options


def _randomised(claim: Claim, order: Order, steps: int | None, seed: int) -> Iterator[tuple[float, Classifier]]:
    """Yield which share of the layers is done, and the model in which they are random: one copy, ever changed."""
    old = claim.classifier
    layers = [name for name, module in old.module.named_modules() if [*module.parameters(recurse=False)]]
    if not layers:
        raise UnsupportedError(f"randomisation draws weights anew, and {old.name} shows none: give the torch module")
    if order == "top-down":
        layers = layers[::-1]
    copied, random = _copies(claim)
    channels, height, width = claim.x.shape[1:]
    with undisturbed(seed):
        draw(random.to("cpu", torch.float32), seed + _APART, (channels, height, width))
    new = Classifier(
        copied, old.preprocess, old.labels, old.name, old.scale.activation, spec=old.spec, precision=old.precision
    )
    count = min(steps or len(layers), len(layers))
    bounds = [round(k * len(layers) / count) for k in range(count + 1)]
    for first, last in pairwise(bounds):
        if order == "independent":
            _put(copied, layers, old.module)
        _put(copied, layers[first:last], random)
        yield last / len(layers), new


def _copies(claim: Claim) -> tuple[nn.Module, nn.Module]:
    """Return two copies of the model, made while nobody else uses it."""
    with claim.opened() as session:
        try:
            return deepcopy(session.module), deepcopy(session.module)
        except Exception as error:  # a module may hold anything
            said = str(error).partition("\n")[0]
            name = claim.classifier.name
            raise UnsupportedError(
                f"randomisation changes a copy of {name}, which cannot be copied: {said}"
            ) from error


@torch.no_grad()
def _put(module: nn.Module, layers: Sequence[str], source: nn.Module) -> None:
    """Copy weights and statistics of some layers from one module to another of the same build."""
    for name in layers:
        pair = module.get_submodule(name), source.get_submodule(name)
        ours, theirs = ([*m.parameters(recurse=False), *m.buffers(recurse=False)] for m in pair)
        for mine, its in zip(ours, theirs, strict=True):
            mine.copy_(its)
