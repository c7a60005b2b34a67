"""evaluate(): a model, pictures, methods and metrics to an Evaluation."""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from whence.asking import MethodRequest, MetricRequest, Wanted, once, wanted, written
from whence.attribution import attribute_all
from whence.batches import Ready, answered, each, for_all, grouped, mistaken, model_facts, own_targets, stacked
from whence.errors import OptionError, WhenceError
from whence.evaluation.regions import region_on_grid
from whence.evaluation.result import Evaluation
from whence.explanation import Failure
from whence.metrics.claim import Claim
from whence.metrics.measuring import claim, measured
from whence.models.classifier import Classifier
from whence.models.session import move, opened
from whence.models.targets import Scale, Targets, TargetSpec, plain
from whence.registry import METHODS, METRICS
from whence.reports.scores import Asked, Row, Skipped
from whence.rows import ModelFacts

FUNCTION = "a function of the model's output"
# So many cells a side are ranked where no metric is named: maps of any method, pooled to one resolution.
_GRID = 28

Known = Callable[[Ready, MethodRequest, MetricRequest, str], Row | None]
"""Returns the number of a picture, method and metric with a region's hash, where it was measured before."""


@dataclass(frozen=True)
class Task:
    """What is asked of every picture: ``target`` holds one for all, or a list with one per picture.

    ``regions`` hold a mask for each picture, or None. What is ``known`` is not measured again; what is measured is
    handed to ``keep`` at once.
    """

    classifier: Classifier
    requests: Sequence[MethodRequest]
    metrics: Sequence[MetricRequest]
    target: Wanted = None
    regions: Sequence[Any] | None = None
    seed: int = 0
    known: Known = lambda *_: None
    keep: Callable[[Row], None] = lambda _: None


@dataclass(frozen=True)
class Scored:
    """One picture's numbers, and what could not be measured of it."""

    picture: str
    model: ModelFacts
    rows: Sequence[Row]
    skipped: Sequence[Skipped]


@dataclass(frozen=True)
class _Place:
    """Where a picture's true evidence lies, and the mask's hash; or why it is not known."""

    region: Bool[Tensor, "h w"] | None
    sha256: str
    reason: str = ""


@dataclass(frozen=True)
class _Batch:
    """Pictures of one size as the model takes them, with their regions."""

    x: Float[Tensor, "b c h w"]
    items: Sequence[Ready]
    places: Sequence[_Place]


def evaluate(
    model: Classifier | nn.Module,
    pictures: Any,  # noqa: ANN401  (a PictureSource, or a list of them)
    methods: str | Sequence[str],
    metrics: str | Sequence[str] | None = None,
    *,
    target: Targets = None,
    regions: Any = None,  # noqa: ANN401
    seed: int = 0,
) -> Evaluation:
    """Measure how good the maps of some methods are, on many pictures.

    Parameters
    ----------
    model
        A Classifier; a bare module takes tensors as it takes them.
    pictures
        What ``explain`` takes, one or a list.
    methods
        Names with options as on the command line (``"rise:samples=500"``), or ``"all"``.
    metrics
        Names in the same way; if not given, deletion and insertion on 28 cells a side, or as many as the input has:
        at one resolution only can methods be compared.
    target
        As for ``attribute``; a list holds one target a picture.
    regions
        Masks for the metrics that ask for the true evidence: one, or a list with one a picture, or None for it.
        Pictures of the pictures' own size, inside where they are at least half as bright as white (maps of small
        numbers where they are not 0), or booleans [H, W].
    seed
        Of everything random, also of the bootstrap.

    Returns
    -------
    Evaluation
        A method that cannot explain the model, or a picture, is listed in it, and the others are measured.

    Raises
    ------
    WhenceError
        What was asked is wrong, or nothing could be measured.
    """
    classifier = model if isinstance(model, Classifier) else Classifier(model)
    sources = pictures if isinstance(pictures, list) else [pictures]
    masks = regions if isinstance(regions, list) or regions is None else [regions]
    if masks is not None and len(masks) != len(sources):
        raise OptionError(f"{len(masks)} regions for {len(sources)} pictures: give one for each, or None for it")
    asked = methods_asked([methods] if isinstance(methods, str) else methods)
    measures = metrics_asked([metrics] if isinstance(metrics, str) else metrics, classifier, sources)
    task = Task(classifier, asked, measures, wanted(target, len(sources)), masks, seed)
    return collected(task, list(scored(task, sources)))


def methods_asked(methods: Sequence[str]) -> list[MethodRequest]:
    """Return the methods asked for, ``all`` for every one that is registered; a method twice counts once.

    Raises
    ------
    WhenceError
        None, or one that does not exist.
    """
    if not methods:
        raise OptionError("no method is asked for: name at least one, or all")
    names = [name for text in methods for name in (METHODS.names() if text == "all" else (text,))]
    asked = once(MethodRequest.read(name) for name in names)
    for request in asked:
        METHODS.facts(request.method).checked(request.options)
    return asked


def metrics_asked(
    metrics: Sequence[str] | None, classifier: Classifier, sources: Sequence[Any] = ()
) -> list[MetricRequest]:
    """Return the metrics asked for, or else those for methods of any resolution; raises as ``methods_asked``."""
    if metrics is not None:
        if not metrics:
            raise OptionError("no metric is asked for: name at least one")
        return once(MetricRequest.read(text) for text in metrics)
    sizes = [tuple(source.shape) for source in sources if isinstance(source, Tensor)]
    known = [classifier.input] if classifier.input else sizes if classifier.preprocess is None else []
    grid = min([_GRID, *(side for size in known for side in size[1:])])
    return [MetricRequest(name, {"grid": grid}) for name in ("deletion", "insertion")]


def collected(task: Task, found: Sequence[Scored | Failure]) -> Evaluation:
    """Return what was measured as an Evaluation.

    Raises
    ------
    WhenceError
        Nothing was: the first picture's error.
    """
    failures = [one for one in found if isinstance(one, Failure)]
    good = [one for one in found if isinstance(one, Scored)]
    if not good:
        raise failures[0].error
    return Evaluation(
        rows=tuple(row for one in good for row in one.rows),
        metrics=tuple(_asked(request) for request in task.metrics),
        model=good[0].model,
        seed=task.seed,
        target=_asked_of(task.target),
        skipped=tuple(skipped for one in good for skipped in one.skipped),
        failed=tuple((one.name, str(one.error)) for one in failures),
    )


def _asked(request: MetricRequest) -> Asked:
    facts = METRICS.facts(request.metric)
    return Asked(request.text, facts.title, facts.better_for(request.options), facts.along)


def _asked_of(target: Wanted) -> str | None:
    """Return in words what was explained, None for each picture's top class."""
    if isinstance(target, list):
        return "one target a picture"
    return str(target) if isinstance(target, str | int) else None if target is None else FUNCTION


def scored(task: Task, sources: Sequence[Any]) -> Iterator[Scored | Failure]:
    """Measure pictures, group by group of one size; a picture that fails is a Failure, never a lost group.

    Raises
    ------
    TargetError, OptionError, UnknownLayerError, UnknownNameError
        What was asked is wrong for every picture.
    """
    if task.regions is None:
        for request in task.metrics:
            if METRICS.facts(request.metric).needs == "region":
                raise OptionError(
                    f"{request.metric} compares the map with the place of the true evidence: give regions (--region)"
                )
    for group in grouped(task.classifier, sources):
        if isinstance(group, Failure):
            yield group
        else:
            named = [_numbered(item, sources[item.number]) for item in group]
            yield from each(named, partial(_together, task))


def _numbered(item: Ready, source: Any) -> Ready:  # noqa: ANN401
    """Return a picture under a name that tells it from the others: those from memory all have the same."""
    anonymous = item.picture is not None and not isinstance(source, str | os.PathLike)
    return replace(item, name=f"{item.name} {item.number}") if anonymous else item


def _together(task: Task, items: Sequence[Ready]) -> list[Scored | Failure]:
    """Measure pictures of one size: their maps are made together, and measured one by one."""
    x = move(task.classifier, stacked(items))
    with opened(task.classifier, names=[item.name for item in items], seed=task.seed) as session:
        session.finite(x, "the input")
        x = session.arranged(x)
    batch = _Batch(x, items, [_place(task, item) for item in items])
    by_method = [(request.text, _by_method(task, request, batch)) for request in task.requests]
    model = model_facts(task.classifier, x)
    return [
        _scored(item.name, model, [(label, found[number]) for label, found in by_method])
        for number, item in enumerate(items)
    ]


def _scored(
    name: str, model: ModelFacts, by_method: Sequence[tuple[str, Sequence[Row | Skipped] | WhenceError]]
) -> Scored | Failure:
    """Return a picture's numbers; a failure where there are none."""
    found: list[Row | Skipped] = []
    for label, made in by_method:
        found += [Skipped(name, label, None, str(made))] if isinstance(made, WhenceError) else made
    rows = [one for one in found if isinstance(one, Row)]
    skipped = [one for one in found if isinstance(one, Skipped)]
    return Scored(name, model, rows, skipped) if rows else Failure(name, WhenceError(skipped[0].reason))


def _place(task: Task, item: Ready) -> _Place:
    """Return a picture's region, where a metric asks for it."""
    source = None if task.regions is None else task.regions[item.number]
    if source is None or not any(METRICS.facts(one.metric).needs == "region" for one in task.metrics):
        return _Place(None, "", "the picture has no region")
    try:
        return _Place(*region_on_grid(source, item.prepared))
    except WhenceError as error:
        return _Place(None, "", str(error))


def _by_method(task: Task, request: MethodRequest, batch: _Batch) -> list[list[Row | Skipped] | WhenceError]:
    """Return for each picture what all metrics say of one method, or why it cannot explain the picture."""
    known = [
        [task.known(item, request, metric, _region_of(metric, place)) for metric in task.metrics]
        for item, place in zip(batch.items, batch.places, strict=True)
    ]
    missing = [number for number, rows in enumerate(known) if None in rows]
    found: dict[int, list[Row | Skipped] | WhenceError] = {}
    if missing:
        made = answered(
            missing,
            lambda rows: _measured(task, request, batch, rows, known),
            lambda error: not mistaken(error, request, task.requests),
        )
        found = dict(zip(missing, made, strict=True))
    return [found.get(number, [row for row in rows if row]) for number, rows in enumerate(known)]


def _region_of(metric: MetricRequest, place: _Place) -> str:
    return place.sha256 if METRICS.facts(metric.metric).needs == "region" else ""


def _measured(
    task: Task, request: MethodRequest, batch: _Batch, rows: Sequence[int], known: Sequence[Sequence[Row | None]]
) -> list[list[Row | Skipped]]:
    """Make the maps of some pictures together, and measure each by the metrics that have not yet."""
    items = [batch.items[row] for row in rows]
    x, names = batch.x[list(rows)], [item.name for item in items]
    targets = own_targets(task.target, items)
    options = request.given({"seed": task.seed}).options
    (answer,) = attribute_all(task.classifier, x, request.method, [targets], options, names=names, seed=task.seed)
    together = claim(task.classifier, x, answer, targets, names)
    made: list[list[Row | Skipped]] = []
    for i, row in enumerate(rows):
        place = batch.places[row]
        region = None if place.region is None else place.region[None].to(x.device)
        own = slice(i, i + 1)
        alone = Claim(task.classifier, x[own], answer.picture(i), together.target[own], names[own], region)
        about = _about(request, items[i], targets[i], int(answer.target[i]), task.classifier.scale)
        pairs = zip(task.metrics, known[row], strict=True)
        made.append([old or _cell(task, metric, alone, about, place) for metric, old in pairs])
    return made


def _about(request: MethodRequest, item: Ready, target: TargetSpec, index: int, scale: Scale) -> Row:
    """Return what all numbers of one map have in common."""
    if index >= 0 and plain(target, scale):
        said = scale.label(index)
    else:
        said = target if isinstance(target, str) else FUNCTION
    sha256 = item.picture.sha256 if item.picture else ""
    return Row(item.name, request.method, written(request.options), said, "", torch.nan, sha256=sha256)


def _cell(task: Task, metric: MetricRequest, of: Claim, about: Row, place: _Place) -> Row | Skipped:
    """Return what one metric says of one map of one picture."""
    facts = METRICS.facts(metric.metric)
    if facts.needs == "region" and of.region is None:
        return Skipped(about.picture, about.label, metric.text, place.reason)
    seeded = {"seed": task.seed} if "seed" in facts.options else {}
    try:
        found = measured(of, metric.metric, {**seeded, **metric.options})
    except WhenceError as error:
        if for_all(error):
            raise
        return Skipped(about.picture, about.label, metric.text, str(error))
    curve = found.curve
    row = replace(
        about,
        metric=metric.text,
        value=float(found.value[0]),
        share=() if curve is None else tuple(curve.share.tolist()),
        curve=() if curve is None else tuple(curve.value[0].tolist()),
        notes=found.notes[0] if found.notes else (),
        region=_region_of(metric, place),
    )
    task.keep(row)
    return row
