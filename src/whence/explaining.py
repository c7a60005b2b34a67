"""explain(): pictures, a model and methods to Explanations."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from whence.asking import MethodRequest, Wanted, baseline_of, requests, wanted
from whence.attribution import attribute_all
from whence.batches import Ready, answered, each, grouped, mistaken, model_facts, own_targets, stacked
from whence.errors import OptionError, WhenceError
from whence.explanation import Explanation, Failure, Outcome
from whence.graphs.graph import AttentionGraph
from whence.metrics.evidence import SHARE, Evidence, curves
from whence.metrics.evidence import evidence as share_evidence
from whence.metrics.measuring import claim
from whence.models.classifier import Classifier
from whence.models.session import Session, move, opened
from whence.models.targets import Targets, TargetSpec, plain
from whence.pictures.baselines import make_baseline
from whence.pictures.preprocess import as_seen, pixel_range
from whence.registry import METHODS
from whence.reports.figures import LONGEST
from whence.reports.images import shrunk
from whence.results import Attribution, own_entries
from whence.rows import ClassProbability, LeftOut, ModelFacts, Subject

# What puts a map to the test.
_EVIDENCE = ("share", "curves")
_TOP = 5
# The channels kept of a map that weighs some.
_CHANNELS = 8


@dataclass(frozen=True)
class Job:
    """What is asked of every picture: ``targets`` hold one target for all, or a list with one per picture.

    With ``leave_out``, a method that cannot explain a picture is left out of it where another one can; without, the
    picture fails.
    """

    classifier: Classifier
    requests: Sequence[MethodRequest]
    targets: Sequence[Wanted] = (None,)
    share: float = SHARE
    truth: str | None = None
    seed: int = 0
    bits: int | None = None
    leave_out: bool = False
    evidence: str = "share"


@dataclass(frozen=True)
class _Batch:
    """Pictures of one size, as the model takes them, with what it says of them."""

    x: Float[Tensor, "b c h w"]
    items: Sequence[Ready]
    model: ModelFacts
    subjects: Sequence[Subject]
    probabilities: Float[Tensor, "b k"] | None

    @property
    def names(self) -> list[str]:
        """How a user knows the pictures."""
        return [item.name for item in self.items]

    def some(self, rows: Sequence[int]) -> "_Batch":
        """Return some of the pictures as a batch of their own."""
        own = list(rows)
        probabilities = None if self.probabilities is None else self.probabilities[own]
        items, subjects = [self.items[row] for row in own], [self.subjects[row] for row in own]
        return _Batch(self.x[own], items, self.model, subjects, probabilities)


def outcomes(job: Job, sources: Sequence[Any]) -> Iterator[Outcome]:
    """Explain pictures, group by group of one size; a picture that fails is a Failure, never a lost group.

    Raises
    ------
    TargetError, OptionError, UnknownLayerError, UnknownNameError
        What was asked is wrong for every picture.
    KeyboardInterrupt
        Ctrl-C was pressed; a search that it ended handed over what it had found before.
    """
    stopped = False
    for group in grouped(job.classifier, sources, job.bits):
        if stopped:
            raise KeyboardInterrupt
        if isinstance(group, Failure):
            yield group
        else:
            made = each(group, partial(_together, job))
            yield from made
            stopped = any(map(interrupted, made))


def interrupted(outcome: Outcome) -> bool:
    """Return whether a picture's explanation holds what a search had found when it was interrupted."""
    if isinstance(outcome, Failure):
        return False
    return any(one.attribution.interrupted for one in outcome[1])


def _together(job: Job, items: Sequence[Ready]) -> list[Outcome]:
    """Explain pictures of one size as one batch, whose methods share what the model says of it."""
    classifier, names = job.classifier, [item.name for item in items]
    x = move(classifier, stacked(items))
    with opened(classifier, names=names, seed=job.seed) as session:
        session.finite(x, "the input")
        x = session.arranged(x)
        probabilities = _probabilities(session, x)
        subjects = [_subject(job, item, row, probabilities) for row, item in enumerate(items)]
    batch = _Batch(x, items, model_facts(classifier, x), subjects, probabilities)
    by_method = [(request.method, _answered(job, request, batch)) for request in job.requests]
    return [
        _outcome(subject, [(method, answers[row]) for method, answers in by_method])
        for row, subject in enumerate(subjects)
    ]


def _answered(job: Job, request: MethodRequest, batch: _Batch) -> list[list[Explanation] | WhenceError]:
    """Explain pictures by one method; the error where the method is left out."""
    return answered(
        range(len(batch.items)),
        lambda rows: _by_method(job, request, batch.some(rows)),
        lambda error: job.leave_out and not mistaken(error, request, job.requests),
    )


def _outcome(subject: Subject, by_method: Sequence[tuple[str, list[Explanation] | WhenceError]]) -> Outcome:
    """Return a picture's explanations, with the methods left out listed; a failure where none could explain it."""
    failed = [(method, found) for method, found in by_method if isinstance(found, WhenceError)]
    if len(failed) == len(by_method):
        return Failure(subject.name, failed[0][1])
    subject = replace(subject, left_out=tuple(LeftOut(method, str(error)) for method, error in failed))
    explanations = [one for _, found in by_method if not isinstance(found, WhenceError) for one in found]
    return subject, [replace(one, subject=subject) for one in explanations]


def _by_method(job: Job, request: MethodRequest, batch: _Batch) -> list[list[Explanation]]:
    """Explain pictures by one method: for each one explanation a target."""
    classifier, x, names = job.classifier, batch.x, batch.names
    made: list[list[Explanation]] = [[] for _ in batch.items]
    asked = [own_targets(target, batch.items) for target in job.targets]
    numbers = [item.number for item in batch.items]
    options = {name: own_entries(value, numbers) for name, value in request.options.items()}
    answers = attribute_all(classifier, x, request.method, asked, options, names=names, seed=job.seed, partial=True)
    for target, answer in zip(asked, answers, strict=True):
        evidences, inputs = _evidence(job, x, answer, target, names)
        for row, found in enumerate(evidences):
            one = _explanation(job, batch, target[row], row, answer, found)
            without, alone = (as_seen(seen, classifier.pixels) for seen in inputs[row])
            made[row].append(replace(one, pictures=(without, alone)))
    return made


def _probabilities(session: Session, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k"] | None:
    """Return the probabilities, or None where the model returns no logits and a callable says what is explained."""
    output = session.run(x)
    try:
        logits = session.logits(output)
    except WhenceError:
        return None
    session.finite(logits, "the score")
    return session.scale.probabilities(logits).cpu()


def _subject(job: Job, item: Ready, row: int, probabilities: Float[Tensor, "b k"] | None) -> Subject:
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
        found, inputs = share_evidence(session, x, answer.heatmap(), target, answer.target.tolist(), share=job.share)
    if job.evidence == "curves":
        drawn = curves(claim(job.classifier, x, answer, list(target), list(names)))
        found = [replace(one, curves=own) for one, own in zip(found, drawn, strict=True)]
    return found, inputs


def _explanation(
    job: Job, batch: _Batch, target: TargetSpec, row: int, answer: Attribution, found: Evidence
) -> Explanation:
    item, probabilities = batch.items[row], batch.probabilities
    index = int(answer.target[row])
    one = answer.picture(row).cpu()
    one = replace(one, graphs=tuple(_pictured(job, batch.x[row], graph, one.options) for graph in one.graphs))
    named = index >= 0 and probabilities is not None
    asked = () if plain(target, job.classifier.scale) else (f"the number explained is {_said(target)}",)
    return Explanation(
        subject=batch.subjects[row],
        model=batch.model,
        attribution=replace(one, notes=((*item.prepared.notes, *asked, *one.notes[0]),)),
        label=job.classifier.scale.label(index) if named else None,
        probability=float(probabilities[row, index]) if named and probabilities is not None else None,
        evidence=found,
        seed=job.seed,
        title=METHODS.facts(answer.method).title,
        channels=None if one.weights is None or one.activation is None else one.channels(_CHANNELS),
    )


def _pictured(
    job: Job, x: Float[Tensor, "c h w"], graph: AttentionGraph, options: Mapping[str, Any]
) -> AttentionGraph:
    """Return a graph with what the model sees of the picture and of the baseline."""
    base = make_baseline(graph.baseline, x[None], job.classifier.pixels, seed=options["seed"])[0][0]
    # Where black and white are not known, one range for both: what is mixed of them must be what the model saw.
    pixels = job.classifier.pixels or pixel_range(torch.stack([x, base]))
    return replace(graph, picture=as_seen(x, pixels), base=as_seen(base, pixels))


def _said(target: TargetSpec) -> str:
    return repr(target) if isinstance(target, str) else "a function of the model's output"


def explain(
    model: Classifier | nn.Module,
    picture: Any,  # noqa: ANN401  (a PictureSource, or a list of them)
    method: str | Sequence[str] = "grad-cam",
    *,
    target: Targets | tuple[Targets, ...] = None,
    share: float = SHARE,
    truth: str | None = None,
    seed: int = 0,
    bits: int | None = None,
    evidence: str = "share",
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
        As for ``attribute``: a list or an array holds one target per picture, a tuple several for every picture.
    share
        Which part of the input's area the evidence removes and keeps.
    truth
        The true class, as a label or number, to be shown beside the model's.
    seed
        Of everything random.
    bits
        How many bits the grey values of 16-bit pictures use; found for each picture by itself if not given.
    evidence
        ``share``, or ``curves`` to have the curves of deletion and insertion beside it: about a hundred more passes
        for each map.
    options
        Of the methods; each goes to the methods that have it. Where a method's ``baseline`` may be a tensor
        (``integrated-gradients``), it may be a picture too, or a tensor [B, C, H, W] with one for each picture.

    Returns
    -------
    Explanation
        Or a list of them where several pictures, methods or targets are given: nested in this order, picture first.

    Raises
    ------
    UnsupportedError
        One of the methods cannot explain this model: nothing is left out silently, and no other method's answer is
        given. (``whence explain`` lists the methods left out.)
    WhenceError
        A picture, method, option, layer or target is wrong; NaN or infinity anywhere.
    """
    classifier = model if isinstance(model, Classifier) else Classifier(model)
    sources = picture if isinstance(picture, list) else [picture]
    methods = [method] if isinstance(method, str) else list(method)
    if evidence not in _EVIDENCE:
        raise OptionError(f"evidence={evidence!r}: give {' or '.join(_EVIDENCE)}")
    if not methods or (isinstance(target, tuple) and not target):
        raise OptionError("nothing is asked for: give at least one method and one target")
    targets = [wanted(one, len(sources)) for one in (target if isinstance(target, tuple) else (target,))]
    if "baseline" in options:
        options["baseline"] = baseline_of(classifier, options["baseline"])
    for value in options.values():
        own_entries(value, (), len(sources))
    asked = requests(methods, options, seed)
    job = Job(classifier, asked, targets, share, truth, seed, bits, evidence=evidence)
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
