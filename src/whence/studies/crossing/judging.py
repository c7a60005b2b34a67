"""Maps of one model judged on another: carried to its input, and measured there by deletion and insertion."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from whence.asking import MetricRequest
from whence.errors import ModelError, OptionError, PictureError, TargetError
from whence.metrics.measuring import claim, measured
from whence.models.classifier import Classifier
from whence.models.session import move
from whence.pictures.preprocess import Geometry
from whence.registry import METRICS
from whence.results import Attribution
from whence.studies.crossing import naming

if TYPE_CHECKING:
    from whence.studies.job import ModelEntry

METRIC_NAMES = ("deletion", "insertion")


@dataclass(frozen=True, eq=False)
class Judged:
    """What one model says of maps that were made on another, or on itself.

    Attributes
    ----------
    judge
        The model's name.
    full
        [B]: its probability of the class explained, of the whole picture.
    auc, base
        [B] for each metric as it was asked for: the area under its curve, and the probability where nothing of the
        picture is left.
    """

    judge: str
    full: Float[Tensor, " b"]
    auc: Mapping[str, Float[Tensor, " b"]]
    base: Mapping[str, Float[Tensor, " b"]]

    @property
    def columns(self) -> dict[str, Float[Tensor, " b"]]:
        """The same under the names of a study's columns, in their order."""
        found = {naming.full(self.judge): self.full}
        for metric, area in self.auc.items():
            found |= {naming.auc(metric, self.judge): area, naming.base(metric, self.judge): self.base[metric]}
        return found


def same_labels(models: Sequence["Classifier | ModelEntry"]) -> None:
    """Refuse models that do not tell the same classes.

    Raises
    ------
    ModelError
        Two of them have other labels; those without any have the same.
    """
    for one, other in pairwise(models):
        if one.labels == other.labels:
            continue
        mine, theirs = one.labels or (), other.labels or ()
        first = next((k for k, (a, b) in enumerate(zip(mine, theirs, strict=False)) if a != b), None)
        if first is None:
            said = f"{one.name} has {len(mine)} labels and {other.name} has {len(theirs)}"
        else:
            said = f"class {first} is {mine[first]!r} for {one.name} and {theirs[first]!r} for {other.name}"
        raise ModelError(f"models can judge each other's maps only where they tell the same classes: {said}")


def asked(metrics: Sequence[str]) -> list[MetricRequest]:
    """Return those of a study's metrics by which maps are judged on other models.

    Raises
    ------
    OptionError
        There is none, or one that cannot compare models.
    """
    requests = [MetricRequest.read(text) for text in metrics]
    found = [request for request in requests if request.metric in METRIC_NAMES]
    if not found:
        raise OptionError("maps are judged on other models by deletion and insertion: name one, as deletion:grid=28")
    for request in found:
        _check(request)
    return found


def _check(request: MetricRequest) -> None:
    if request.metric not in METRIC_NAMES:
        raise OptionError(f"{request.text}: maps are judged on other models by {' and '.join(METRIC_NAMES)} alone")
    options = METRICS.facts(request.metric).checked(request.options)
    if options["grid"] == "map":
        raise OptionError(
            f"{request.text} ranks each map's own cells, and models have maps of other sizes: give a number of cells "
            "a side for all, as grid=28"
        )
    if options["scale"] != "probability" or options["variant"] != "exact":
        raise OptionError(
            f"{request.text}: maps are judged on other models by the probability itself, with its first and last "
            "point: leave scale and variant out"
        )


def carried(
    answer: Attribution,
    seen: Sequence[Geometry | None],
    judge_seen: Sequence[Geometry | None],
    size: tuple[int, int],
    names: Sequence[str],
) -> Attribution:
    """Return maps on another model's input grid, ``size`` (h, w), one signed value a place.

    ``seen`` and ``judge_seen`` say where both models' inputs lie on each picture. A map goes through the picture's
    own pixels, bilinearly; what only one of the two models saw of it counts as 0, neither for nor against. Where
    both see the same, nothing is resampled. An unknown geometry is taken for the other's where the grids are equal.

    Raises
    ------
    PictureError
        It is unknown, and the grids are not equal; or the two are of other pictures.
    """
    laid = [
        _laid(heat, mine, theirs, size, name)
        for heat, mine, theirs, name in zip(answer.heatmap(), seen, judge_seen, names, strict=True)
    ]
    plain = replace(answer, layers={}, parts={}, weights=None, activation=None, logits=None)
    return replace(plain, values=torch.stack(laid)[:, None], reduce="sum", style="centred", input_size=size)


def _laid(
    heat: Float[Tensor, "h w"], mine: Geometry | None, theirs: Geometry | None, size: tuple[int, int], name: str
) -> Float[Tensor, "p q"]:
    if mine is None or theirs is None:
        if tuple(heat.shape) == size:
            return heat
        grids = " and ".join(f"{height} x {width}" for height, width in (heat.shape, size))
        raise PictureError(
            f"{name}: the models' inputs are of {grids}, and where one of them lies on the picture is not known: "
            "give both models a preprocessing of resize and crop"
        )
    if mine.picture != theirs.picture:
        sizes = " and ".join(f"{height} x {width}" for height, width in (mine.picture, theirs.picture))
        raise PictureError(f"{name}: the two models were given pictures of {sizes}: give both the same")
    return heat if mine == theirs else theirs.to_grid(mine.to_picture(heat))


def judged(
    answer: Attribution,
    seen: Sequence[Geometry | None],
    judge: Classifier,
    x: Float[Tensor, "b c h w"],
    judge_seen: Sequence[Geometry | None],
    classes: Sequence[int],
    metrics: Sequence[MetricRequest],
    names: Sequence[str],
    *,
    seed: int = 0,
) -> Judged:
    """Measure the maps of one model on another, for the same classes.

    Parameters
    ----------
    answer, seen
        The maps of B pictures, and where the inputs that they were made of lie on each picture.
    judge, x, judge_seen
        The model that judges, its inputs [B, C, H, W] of the same pictures, and where these lie.
    classes
        The class explained of each picture.
    metrics
        What ``asked`` returns.
    names
        How a user knows the pictures.
    seed
        For the metrics' noise, where none of their options is one.

    Raises
    ------
    WhenceError
        A class that the judge does not have, or maps that cannot be carried; NaN or infinity anywhere.
    """
    if min(classes) < 0:
        raise TargetError(
            "maps of a function of the model's output cannot be judged on another model: explain a class"
        )
    here = carried(answer, seen, judge_seen, (x.shape[2], x.shape[3]), names)
    here = replace(here, target=torch.tensor(classes))
    of = claim(judge, move(judge, x), here, list(classes), list(names))
    areas, bases = {}, {}
    for request in metrics:
        _check(request)
        found = measured(of, request.metric, {"seed": seed, **request.options})
        assert found.curve is not None
        first, last = found.curve.value[:, 0].cpu(), found.curve.value[:, -1].cpu()
        full, base = (first, last) if request.metric == "deletion" else (last, first)
        areas[request.text], bases[request.text] = found.value.cpu(), base
    return Judged(judge.name, full, areas, bases)
