"""attribute(): preprocessed tensors and a method's name to an Attribution."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from whence.errors import PictureError, UnsupportedError
from whence.models.classifier import BlackBox, Classifier
from whence.models.session import Session, chunk_size, move, opened
from whence.models.targets import Targets, TargetSpec, per_picture
from whence.registry import METHODS, MethodFacts
from whence.results import CLASS_AGNOSTIC, Answer, Attribution, concatenated, own_entries

NO_PLACES = "this layer has channels and no places: its map is the same everywhere"
NO_EVIDENCE = "no evidence: the map is zero, nothing that this method looks at speaks for the score"


def attribute(
    model: Classifier | nn.Module | Callable[..., Any],
    x: Float[Tensor, "b c h w"],
    method: str,
    *,
    target: Targets = None,
    **options: object,
) -> Attribution:
    """Explain a batch of preprocessed inputs by one method.

    Parameters
    ----------
    model
        A Classifier, or any module or function that returns logits.
    x
        [B, C, H, W], as the model takes it; moved to the model's device and type.
    method
        A name that ``whence.methods.names()`` lists.
    target
        None for each picture's top class, a class number, a label, a contrast ``"a - b"``, ``"probability:a"``,
        ``"log-probability:a"``, ``"log-odds:a"``, a callable from the model's output to [B], or a list with one of
        these per picture.
    options
        The method's own.

    Raises
    ------
    WhenceError
        An unknown method, option, layer or target; NaN or infinity anywhere; an input that the model cannot take.
    """
    return attribute_all(model, x, method, [target], options, partial=True)[0]


def attribute_all(
    model: Classifier | nn.Module | Callable[..., Any],
    x: Float[Tensor, "b c h w"],
    method: str,
    wanted: Sequence[Targets],
    options: Mapping[str, object],
    *,
    names: Sequence[str] | None = None,
    seed: int = 0,
    partial: bool = False,
) -> list[Attribution]:
    """Explain a batch for several targets, which share its forward passes.

    ``names`` are for errors, ``seed`` is for models that draw numbers. A search that Ctrl-C ended hands over what it
    had found only where ``partial`` says that it may: what counts on whole answers is interrupted as ever.
    """
    facts = METHODS.facts(method)
    chosen = facts.checked(options)
    classifier = model if isinstance(model, Classifier) else Classifier(model)
    _check_needs(facts, classifier)
    _check_input(x)
    moved = move(classifier, x)
    names = names or [f"picture {i} of the batch" for i in range(len(x))]
    targets = [per_picture(target, len(x)) for target in wanted]
    pieces: list[list[Attribution]] = [[] for _ in targets]
    for start in range(0, len(x), chunk_size(x)):
        part = slice(start, start + chunk_size(x))
        with opened(classifier, names=names[part], seed=seed, sharing=len(targets) > 1) as session:
            session.finite(moved[part], "the input")
            chunk = session.arranged(moved[part])
            own = {name: own_entries(value, range(len(x))[part], len(x)) for name, value in chosen.items()}
            for piece, target in zip(pieces, targets, strict=True):
                one = _attributed(session, facts, chunk, target[part], own)
                if one.interrupted and not partial:
                    raise KeyboardInterrupt
                piece.append(replace(one, options={**chosen, **one.options}))
    return [concatenated(piece) for piece in pieces]


def _check_needs(facts: MethodFacts, classifier: Classifier) -> None:
    if isinstance(classifier.module, BlackBox) and facts.needs != "scores":
        inside = {"gradients": "gradients", "layer": "a layer", "attention": "attention maps"}[facts.needs]
        raise UnsupportedError(
            f"{facts.name} needs {inside} of the model, and {classifier.name} is a function that gives scores alone: "
            "give the torch.nn.Module itself, or take a method that needs scores alone, such as occlusion or rise"
        )


def _check_input(x: Any) -> None:  # noqa: ANN401  (what a user gives may be anything)
    if not isinstance(x, Tensor) or not x.is_floating_point():
        found = x.dtype if isinstance(x, Tensor) else type(x).__name__
        raise PictureError(
            f"attribute takes a floating tensor [B, C, H, W], not {found}: whence.explain takes pictures"
        )
    if x.ndim != 4 or 0 in x.shape:
        raise PictureError(f"attribute takes a batch [B, C, H, W] with at least one picture, not {list(x.shape)}")


def _attributed(
    session: Session, facts: MethodFacts, x: Tensor, target: list[TargetSpec], options: Mapping[str, object]
) -> Attribution:
    """Run the method on one chunk, and check and complete what it returned."""
    before, started = session.passes, time.perf_counter()
    answer: Answer = facts.function(session, x, target, **options)

    def finished(tensor: Tensor, what: str) -> Tensor:
        session.finite(tensor, f"the {what} of {facts.name}")
        return _readable(tensor)

    def finished_or_none(tensor: Tensor | None, what: str) -> Tensor | None:
        return None if tensor is None else finished(tensor, what)

    values = finished(answer.values, "map")
    return Attribution(
        method=facts.name,
        options=answer.options,
        values=values,
        residual=finished_or_none(answer.residual, "residual"),
        layer=answer.layer,
        layers={name: finished(t, f"map at {name!r}") for name, t in answer.layers.items()},
        parts={name: finished(t, f"part {name!r}") for name, t in answer.parts.items()},
        weights=finished_or_none(answer.weights, "weights"),
        # NaN or infinity in it, whatever its weight, would be in the map.
        activation=None if answer.activation is None else _readable(answer.activation),
        balance=answer.balance,
        graphs=answer.graphs,
        style=answer.style,
        target=answer.score.index.cpu(),
        score=answer.score.value.detach(),
        logits=answer.score.logits,
        passes=session.passes - before,
        input_size=tuple(x.shape[2:]),
        notes=_notes(facts, values, answer),
        reduce=facts.reduce,
        show=facts.show,
        seconds=time.perf_counter() - started,
    )


def _readable(tensor: Tensor) -> Tensor:
    """Return a tensor without its graph, in a type that NumPy has."""
    return tensor.detach().float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor.detach()


def _notes(facts: MethodFacts, values: Tensor, answer: Answer) -> tuple[tuple[str, ...], ...]:
    """Return each picture's sentences: the method's own, and what holds for every method."""
    own = answer.notes or ((),) * len(values)
    said = {CLASS_AGNOSTIC: facts.class_agnostic, NO_PLACES: values.ndim != 4 or values.shape[2:].numel() == 1}
    common = [note for note, holds in said.items() if holds]
    silent = ~(values != 0).flatten(1).any(1)
    return tuple(
        (*notes, *common, *((NO_EVIDENCE,) if nothing else ())) for notes, nothing in zip(own, silent, strict=True)
    )
