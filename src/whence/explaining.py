"""explain(): pictures, a model and methods to Explanations."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from whence.attribution import attribute_all
from whence.errors import (
    LayerError,
    OptionError,
    PictureError,
    TargetError,
    UnknownNameError,
    WhenceError,
    nearest,
)
from whence.explanation import ClassProbability, Explanation, Failure, ModelFacts, Outcome, Subject
from whence.metrics.evidence import SHARE, Evidence, evidence
from whence.models.classifier import Classifier
from whence.models.session import Session, chunk_size, move, opened
from whence.models.targets import TargetSpec, plain
from whence.pictures.preprocess import Prepared, as_seen
from whence.pictures.read import Picture, read
from whence.registry import METHODS
from whence.reports.figures import LONGEST
from whence.reports.images import shrunk
from whence.results import Attribution

_TOP = 5
# Pictures of one input size go through a method together, at most this many.
_TOGETHER = 16

Targets = Sequence[TargetSpec | list[TargetSpec]]


@dataclass(frozen=True)
class MethodRequest:
    """A method with the options that a user gave."""

    method: str
    options: Mapping[str, object]

    @classmethod
    def read(cls, text: str) -> "MethodRequest":
        """Read ``NAME`` or ``NAME:key=value,...``; ``+`` joins a list inside a value.

        Raises
        ------
        UnknownNameError, OptionError
            There is no such method or option, or a value cannot be read.
        """
        name, _, rest = text.partition(":")
        known = METHODS.facts(name).options
        options: dict[str, object] = {}
        for pair in filter(None, rest.split(",")):
            key, equals, value = pair.partition("=")
            if not equals:
                raise OptionError(f"method {text!r}: after the colon stand key=value pairs, joined by commas")
            if key not in known:
                raise OptionError(f"{name} has no option {key!r}: {nearest(key, known)}")
            options[key] = known[key].read(value)
        return cls(name, options)

    def given(self, more: Mapping[str, object]) -> "MethodRequest":
        """Return the request with those of the options that its method has and that it does not state itself."""
        known = METHODS.facts(self.method).options
        return MethodRequest(self.method, {key: v for key, v in more.items() if key in known} | dict(self.options))


def requests(methods: Sequence[str], options: Mapping[str, object], seed: int = 0) -> list[MethodRequest]:
    """Return the methods asked for; every option goes to the methods that have it, and one must.

    Raises
    ------
    UnknownNameError, OptionError
        There is no such method, no method has an option, or a value is not allowed.
    """
    asked = [MethodRequest.read(text) for text in methods]
    for name in options:
        if not any(name in METHODS.facts(request.method).options for request in asked):
            known = {key for request in asked for key in METHODS.facts(request.method).options}
            raise OptionError(
                f"no option {name!r} for {' and '.join(r.method for r in asked)}: {nearest(name, known)}"
            )
    made = [request.given({**options, "seed": seed}) for request in asked]
    for request in made:
        METHODS.facts(request.method).checked(request.options)
    return made


@dataclass(frozen=True)
class Job:
    """What is asked of every picture: ``targets`` hold one target for all, or a list with one per picture."""

    classifier: Classifier
    requests: Sequence[MethodRequest]
    targets: Targets = (None,)
    share: float = SHARE
    truth: str | None = None
    seed: int = 0
    bits: int | None = None


@dataclass(frozen=True)
class _Ready:
    """A picture ready for the model, the ``number``-th asked for; ``picture`` is None where a tensor was given."""

    number: int
    name: str
    picture: Picture | None
    prepared: Prepared


def _ready(job: Job, number: int, source: Any) -> _Ready:  # noqa: ANN401  (read takes pictures of many kinds)
    preprocess = job.classifier.preprocess
    if preprocess is not None:
        picture = read(source, bits=job.bits)
        return _Ready(number, _name(source, picture.name), picture, preprocess(picture))
    if not isinstance(source, Tensor) or source.ndim != 3 or not source.is_floating_point():
        raise PictureError(
            f"{job.classifier.name} has no preprocessing, so that it takes floating tensors [C, H, W] alone: "
            "give its Classifier preprocess= to explain pictures"
        )
    return _Ready(number, f"tensor {number}", None, Prepared(source, None, ("the model's own input is shown",)))


def _name(source: Any, otherwise: str) -> str:  # noqa: ANN401
    """Return how a user knows a picture: by the path or address that was given, else as told."""
    return os.fspath(source) if isinstance(source, str | os.PathLike) else otherwise


def outcomes(job: Job, sources: Sequence[Any]) -> Iterator[Outcome]:
    """Explain pictures, group by group of one size; a picture that fails is a Failure, never a lost group.

    Raises
    ------
    TargetError, OptionError, LayerError, UnknownNameError
        What was asked is wrong for every picture.
    """

    def ready() -> Iterator[_Ready | Failure]:
        for number, source in enumerate(sources):
            try:
                yield _ready(job, number, source)
            except WhenceError as error:
                yield Failure(_name(source, f"picture {number}"), error)

    def kind(item: _Ready | Failure) -> tuple[object, int]:
        """Failures apart, and pictures of one input size together."""
        if isinstance(item, Failure):
            return None, 0
        x = item.prepared.input[None]
        return tuple(x.shape), item.number // min(_TOGETHER, chunk_size(x))

    for _, group in groupby(ready(), kind):
        items = list(group)
        yield from (item for item in items if isinstance(item, Failure))
        yield from _group(job, [item for item in items if isinstance(item, _Ready)])


def _group(job: Job, items: Sequence[_Ready]) -> list[Outcome]:
    """Explain pictures of one size together, or, where that fails, each alone."""
    if not items:
        return []
    try:
        return _together(job, items)
    except (TargetError, OptionError, LayerError, UnknownNameError):
        raise
    except WhenceError as error:
        if len(items) == 1:
            return [Failure(items[0].name, error)]
        return [outcome for item in items for outcome in _group(job, [item])]


def _together(job: Job, items: Sequence[_Ready]) -> list[Outcome]:
    """Explain pictures of one size as one batch."""
    classifier, names = job.classifier, [item.name for item in items]
    x = move(classifier, torch.stack([item.prepared.input for item in items]))
    facts = ModelFacts(classifier.name, classifier.spec, classifier.fingerprint, tuple(x.shape[1:]))
    with opened(classifier, names=names, seed=job.seed) as session:
        session.finite(x, "the input")
        x = session.arranged(x)
        probabilities = _probabilities(session, x)
        subjects = [_subject(job, item, row, probabilities) for row, item in enumerate(items)]
    made: list[list[Explanation]] = [[] for _ in items]
    for request in job.requests:
        wanted = [_own(target, items) for target in job.targets]
        answers = attribute_all(classifier, x, request.method, wanted, request.options, names=names, seed=job.seed)
        for target, answer in zip(wanted, answers, strict=True):
            evidences, inputs = _evidence(job, x, answer, target, names)
            for row, (item, subject, found) in enumerate(zip(items, subjects, evidences, strict=True)):
                one = _explanation(job, facts, item, subject, target[row], row, answer, found, probabilities)
                without, alone = (as_seen(seen, classifier.pixels) for seen in inputs[row])
                made[row].append(replace(one, pictures=(without, alone)))
    return [(subject, explanations) for subject, explanations in zip(subjects, made, strict=True)]


def _own(target: TargetSpec | list[TargetSpec], items: Sequence[_Ready]) -> list[TargetSpec]:
    """Return these pictures' part of a target."""
    return [target[item.number] for item in items] if isinstance(target, list) else [target] * len(items)


def _probabilities(session: Session, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k"] | None:
    """Return the probabilities, or None where the model returns no logits and a callable says what is explained."""
    output = session.run(x)
    try:
        logits = session.logits(output)
    except WhenceError:
        return None
    session.finite(logits, "the score")
    return session.scale.probabilities(logits).cpu()


def _subject(job: Job, item: _Ready, row: int, probabilities: Float[Tensor, "b k"] | None) -> Subject:
    classifier, picture, prepared = job.classifier, item.picture, item.prepared
    own = picture is not None and prepared.geometry is not None
    truth = None
    if job.truth is not None and probabilities is not None:
        truth = classifier.scale.label(classifier.scale.index(job.truth, probabilities.shape[1]))
    return Subject(
        name=item.name,
        sha256=picture.sha256 if picture else "",
        decoded=picture.decoded if picture else (),
        size=picture.size if picture else (int(prepared.input.shape[1]), int(prepared.input.shape[2])),
        geometry=prepared.geometry,
        shown=shrunk(picture.rgb8(), LONGEST) if own and picture else as_seen(prepared.input, classifier.pixels),
        top=() if probabilities is None else _top(classifier, probabilities[row]),
        truth=truth,
    )


def _top(classifier: Classifier, probabilities: Float[Tensor, " k"]) -> tuple[ClassProbability, ...]:
    values, indices = probabilities.topk(min(_TOP, len(probabilities)))
    return tuple(
        ClassProbability(int(i), classifier.scale.label(int(i)), float(p))
        for p, i in zip(values, indices, strict=True)
    )


def _evidence(
    job: Job, x: Float[Tensor, "b c h w"], answer: Attribution, target: Sequence[TargetSpec], names: Sequence[str]
) -> tuple[list[Evidence], Float[Tensor, "b 2 c h w"]]:
    with opened(job.classifier, names=[*names, *names], seed=job.seed) as session:
        return evidence(session, x, answer.heatmap(), target, answer.target.tolist(), share=job.share)


def _explanation(
    job: Job,
    facts: ModelFacts,
    item: _Ready,
    subject: Subject,
    target: TargetSpec,
    row: int,
    answer: Attribution,
    found: Evidence,
    probabilities: Float[Tensor, "b k"] | None,
) -> Explanation:
    index = int(answer.target[row])
    one = answer.picture(row).cpu()
    named = index >= 0 and probabilities is not None
    asked = () if plain(target, job.classifier.scale) else (f"the number explained is {_said(target)}",)
    return Explanation(
        subject=subject,
        model=facts,
        attribution=replace(one, notes=((*item.prepared.notes, *asked, *one.notes[0]),)),
        label=job.classifier.scale.label(index) if named else None,
        probability=float(probabilities[row, index]) if named and probabilities is not None else None,
        evidence=found,
        seed=job.seed,
    )


def _said(target: TargetSpec) -> str:
    return repr(target) if isinstance(target, str) else "a function of the model's output"


def explain(
    model: Classifier | nn.Module,
    picture: Any,  # noqa: ANN401  (a PictureSource, or a list of them)
    method: str | Sequence[str] = "grad-cam",
    *,
    target: TargetSpec | list[TargetSpec] | tuple[TargetSpec, ...] = None,
    share: float = SHARE,
    truth: str | None = None,
    seed: int = 0,
    bits: int | None = None,
    **options: object,
) -> Any:  # noqa: ANN401  (an Explanation, or lists of them)
    """Explain pictures, with the evidence.

    Parameters
    ----------
    model
        A Classifier; a bare module explains tensors as it takes them.
    picture
        A path, bytes, a file object, an http(s) address, a PIL image, pixels as [H, W, C] numpy or [C, H, W] tensor
        (uint8, uint16, or float in [0, 1]), or a list of these.
    method
        A name, with options as on the command line if wanted (``"grad-cam:relu=true"``), or a list of them.
    target
        As for ``attribute``: a list holds one target per picture, a tuple several for every picture.
    share
        Which part of the input's area the evidence removes and keeps.
    truth
        The true class, as a label or number, to be shown beside the model's.
    seed
        Of everything random.
    bits
        How many bits the grey values of 16-bit pictures use; found for each picture by itself if not given.
    options
        Of the methods; each goes to the methods that have it.

    Returns
    -------
    Explanation
        Or a list of them where several pictures, methods or targets are given: nested in this order, picture first.

    Raises
    ------
    WhenceError
        A picture, method, option, layer or target is wrong; NaN or infinity anywhere.
    """
    classifier = model if isinstance(model, Classifier) else Classifier(model)
    sources = picture if isinstance(picture, list) else [picture]
    methods = [method] if isinstance(method, str) else list(method)
    if not methods or target == ():
        raise OptionError("nothing is asked for: give at least one method and one target")
    if isinstance(target, list) and len(target) != len(sources):
        raise TargetError(f"{len(target)} targets for {len(sources)} pictures: give one, or a list with one for each")
    targets: Targets = target if isinstance(target, tuple) else (target,)
    job = Job(classifier, requests(methods, options, seed), targets, share, truth, seed, bits)
    answers = [_nested(outcome, len(targets), not isinstance(method, str), isinstance(target, tuple))
               for outcome in outcomes(job, sources)]  # fmt: skip
    return answers if isinstance(picture, list) else answers[0]


def _nested(outcome: Outcome, targets: int, many_methods: bool, many_targets: bool) -> Any:  # noqa: ANN401
    """Return one picture's explanations, in lists only where several were asked for; raise where it failed."""
    if isinstance(outcome, Failure):
        raise outcome.error
    flat = outcome[1]
    by_method = [flat[i : i + targets] if many_targets else flat[i] for i in range(0, len(flat), targets)]
    return by_method if many_methods else by_method[0]
