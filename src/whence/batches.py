"""Pictures of one input size go through a model together; where that fails, each goes alone."""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from whence.asking import MethodRequest, Wanted
from whence.errors import (
    LayerError,
    OptionError,
    PictureError,
    SizeError,
    TargetError,
    UnknownLayerError,
    UnknownNameError,
    UnsupportedError,
    WhenceError,
)
from whence.explanation import Failure
from whence.models.classifier import Classifier
from whence.models.session import chunk_size
from whence.models.targets import TargetSpec
from whence.pictures.preprocess import Prepared
from whence.pictures.read import Picture, read
from whence.rows import ModelFacts

# Pictures of one input size go through a method together, at most this many.
_TOGETHER = 16

_FOR_ALL = (TargetError, OptionError, UnknownLayerError, UnknownNameError)

T = TypeVar("T")


@dataclass(frozen=True)
class Ready:
    """A picture ready for the model, the ``number``-th asked for; ``picture`` is None where a tensor was given."""

    number: int
    name: str
    picture: Picture | None
    prepared: Prepared


def grouped(
    classifier: Classifier, sources: Sequence[Any], bits: int | None = None
) -> Iterator[Failure | list[Ready]]:
    """Yield pictures in groups of one input size, in the order asked for; one that cannot be read is a Failure."""

    def ready() -> Iterator[Ready | Failure]:
        for number, source in enumerate(sources):
            try:
                yield _ready(classifier, number, source, bits)
            except WhenceError as error:
                yield Failure(_name(source, f"picture {number}"), error)

    def kind(item: Ready | Failure) -> tuple[object, int]:
        """Failures apart, and pictures of one input size together."""
        if isinstance(item, Failure):
            return None, 0
        x = item.prepared.input[None]
        return tuple(x.shape), item.number // min(_TOGETHER, chunk_size(x))

    for _, group in groupby(ready(), kind):
        items = list(group)
        yield from (item for item in items if isinstance(item, Failure))
        if found := [item for item in items if isinstance(item, Ready)]:
            yield found


def _ready(classifier: Classifier, number: int, source: Any, bits: int | None) -> Ready:  # noqa: ANN401  (many kinds)
    if classifier.preprocess is not None:
        picture = read(source, bits=bits)
        return Ready(number, _name(source, picture.name), picture, classifier.preprocess(picture))
    if not isinstance(source, Tensor) or source.ndim != 3 or not source.is_floating_point():
        raise PictureError(
            f"{classifier.name} has no preprocessing, so that it takes floating tensors [C, H, W] alone: "
            "give its Classifier preprocess= to explain pictures"
        )
    return Ready(number, f"tensor {number}", None, Prepared(source, None, ("the model's own input is shown",)))


def _name(source: Any, otherwise: str) -> str:  # noqa: ANN401
    """Return how a user knows a picture: by the path or address that was given, else as told."""
    return os.fspath(source) if isinstance(source, str | os.PathLike) else otherwise


def for_all(error: WhenceError) -> bool:
    """Return whether every picture would meet an error."""
    return isinstance(error, _FOR_ALL) and not isinstance(error, SizeError)


def each(items: Sequence[Ready], together: Callable[[Sequence[Ready]], Sequence[T]]) -> list[T | Failure]:
    """Return what is made of pictures of one size together, or, where that fails, of each alone.

    Raises
    ------
    TargetError, OptionError, UnknownLayerError, UnknownNameError
        What was asked is wrong for every picture.
    """
    try:
        return list(together(items))
    except WhenceError as error:
        if for_all(error):
            raise
        if len(items) == 1:
            return [Failure(items[0].name, error)]
        return [made for item in items for made in each([item], together)]


def answered(
    rows: Sequence[int], run: Callable[[Sequence[int]], Sequence[T]], excused: Callable[[WhenceError], bool]
) -> list[T | WhenceError]:
    """Return what a method makes of some rows of a batch, or, where that fails, of each alone; or the error.

    A method that refuses all pictures together, and the first and the last alone, refuses the model or their size:
    the others are not tried again. An error that is not ``excused`` is raised.
    """
    try:
        return list(run(rows))
    except WhenceError as error:
        if for_all(error) or not excused(error):
            raise
        if len(rows) == 1:
            return [error]
        failed = error
    ends = {row: answered([row], run, excused)[0] for row in (rows[0], rows[-1])}
    if all(isinstance(found, UnsupportedError | SizeError) for found in (failed, *ends.values())):
        return [failed for _ in rows]
    return [ends[row] if row in ends else answered([row], run, excused)[0] for row in rows]


def mistaken(error: WhenceError, request: MethodRequest, asked: Sequence[MethodRequest]) -> bool:
    """Return whether a layer that is none is the user's own mistake, or all that was asked."""
    return isinstance(error, LayerError) and (request.options.get("layer") is not None or len(asked) == 1)


def own_targets(target: Wanted, items: Sequence[Ready]) -> list[TargetSpec]:
    """Return these pictures' part of a target."""
    return [target[item.number] for item in items] if isinstance(target, list) else [target] * len(items)


def stacked(items: Sequence[Ready]) -> Float[Tensor, "b c h w"]:
    """Return pictures of one size as a batch."""
    return torch.stack([item.prepared.input for item in items])


def model_facts(classifier: Classifier, x: Float[Tensor, "b c h w"]) -> ModelFacts:
    """Return which model sees a batch, where and in what it computes."""
    own = str(x.dtype).removeprefix("torch.")
    return ModelFacts(
        classifier.name, classifier.spec, classifier.fingerprint, tuple(x.shape[1:]), str(x.device),
        own if classifier.precision == "float32" else classifier.precision,
    )  # fmt: skip
