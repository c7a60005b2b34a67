"""Targets: which number of the model's output is explained."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from whence.errors import TargetError, nearest
from whence.results import Score

Activation = Literal["softmax", "sigmoid"]
Measure = Literal["logit", "probability", "log-probability", "log-odds", "contrast"]
_MARKED: Mapping[str, Measure] = {
    "probability": "probability",
    "log-probability": "log-probability",
    "log-odds": "log-odds",
}


@dataclass(frozen=True)
class Fixed:
    """A target whose classes are settled: they stay the same however the picture is changed."""

    measure: Measure
    classes: tuple[int, ...]


TargetSpec = None | int | str | Fixed | Callable[[Any], Tensor]
"""What a user may ask for one picture; ``Fixed`` is what a method makes of it."""
Targets = TargetSpec | np.generic | np.ndarray[Any, np.dtype[Any]] | Tensor | list[Any]
"""One for all pictures, or a list or array with one a picture; numbers may be numpy's or torch's."""


@dataclass(frozen=True)
class Scale:
    """What turns logits into scores and probabilities, and names into classes."""

    activation: Activation
    labels: tuple[str, ...] | None

    def log_probabilities(self, logits: Float[Tensor, "b k"]) -> Float[Tensor, "b k"]:
        """Return the logarithms of the probabilities."""
        return F.log_softmax(logits, dim=1) if self.activation == "softmax" else F.logsigmoid(logits)

    def probabilities(self, logits: Float[Tensor, "b k"]) -> Float[Tensor, "b k"]:
        """Return the probabilities: softmax over the classes, or a sigmoid each."""
        return logits.softmax(1) if self.activation == "softmax" else logits.sigmoid()

    def log_odds(self, logits: Float[Tensor, "b k"], index: Int[Tensor, " b"]) -> Float[Tensor, " b"]:
        """Return log(p / (1 - p)) of one class a picture. Montavon et al. 2019.

        That is z_t - log sum_{n != t} exp z_n, and for a sigmoid the logit z_t itself.
        """
        own = _column(logits, index)
        if self.activation == "sigmoid":
            return own
        return own - logits.scatter(1, index[:, None], -torch.inf).logsumexp(1)

    def label(self, index: int) -> str:
        """Return the class's label, with its number where several have it; the number where there are no labels."""
        if self.labels is None or index >= len(self.labels):
            return str(index)
        label = self.labels[index]
        return f"{label} ({index})" if self.labels.count(label) > 1 else label

    def index(self, name: int | str, classes: int) -> int:
        """Return the class that a number or a label names.

        Raises
        ------
        TargetError
            Out of range, unknown, or the label of several classes.
        """
        if isinstance(name, str) and re.fullmatch(r"\s*[+-]?\d+\s*", name):
            name = int(name)
        if isinstance(name, int):
            return self._in_range(name, classes)
        text = name.removeprefix("label:").strip()
        if self.labels is None:
            raise TargetError(f"target {name!r}: the model has no labels, give a number from 0 to {classes - 1}")
        found = [i for i, label in enumerate(self.labels) if label == text]
        found = found or [i for i, label in enumerate(self.labels) if label.casefold() == text.casefold()]
        if len(found) > 1:
            raise TargetError(f"target {name!r} is the label of classes {found}: give the number")
        if not found:
            raise TargetError(f"target {name!r} is none of the {classes} labels: {nearest(text, self.labels)}")
        return self._in_range(found[0], classes)

    def _in_range(self, index: int, classes: int) -> int:
        if not 0 <= index < classes:
            close = f" ({self.label(0)!r} to {self.label(classes - 1)!r})" if self.labels else ""
            raise TargetError(
                f"target {index} is out of range: the model has {classes} classes, 0 to {classes - 1}{close}"
            )
        return index


def _column(logits: Float[Tensor, "b k"], index: Int[Tensor, " b"]) -> Float[Tensor, " b"]:
    return logits.gather(1, index[:, None])[:, 0]


def score(output: Any, logits: Callable[[Any], Tensor], target: TargetSpec, scale: Scale) -> Score:  # noqa: ANN401
    """Return the number that one target names, for every picture of a batch.

    ``output`` is what the model returned, ``logits`` turns it into [B, K]. A target is None or ``"top"`` (the class
    with the largest logit), ``"second"``, a class by number or label, a contrast ``"a - b"``, ``"probability:a"``,
    ``"log-probability:a"``, ``"log-odds:a"`` (``top`` and ``second`` work inside these too), or a callable from the
    output to [B].

    Raises
    ------
    TargetError
        The target names no class, or a callable did not return [B].
    """
    if callable(target):
        return _called(output, target)
    return _measured(logits(output), *_read(target, scale), scale)


def _read(target: int | str | Fixed | None, scale: Scale) -> tuple[Measure, Sequence[int | str | None]]:
    """Return what is measured, and of which classes."""
    if isinstance(target, Fixed):
        return target.measure, target.classes
    if not isinstance(target, str) or _is_label(target, scale):
        return "logit", (target,)
    kind, _, rest = target.partition(":")
    if kind in _MARKED:
        return _MARKED[kind], (rest.strip(),)
    pair = _contrast(target, scale)
    return ("contrast", pair) if pair else ("logit", (target,))


def _measured(
    logits: Float[Tensor, "b k"], measure: Measure, names: Sequence[int | str | None], scale: Scale
) -> Score:
    index, *other = (_classes(logits, name, scale) for name in names)
    said = logits.detach()
    if measure == "probability":
        return Score(_column(scale.probabilities(logits), index), index, said)
    if measure == "log-probability":
        return Score(_column(scale.log_probabilities(logits), index), index, said)
    if measure == "log-odds":
        return Score(scale.log_odds(logits, index), index, said)
    value = _column(logits, index)
    return Score(value - _column(logits, other[0]) if other else value, index, said)


def fixed(
    output: Any,  # noqa: ANN401
    logits: Callable[[Any], Tensor],
    targets: Sequence[TargetSpec],
    scale: Scale,
) -> list[TargetSpec]:
    """Return each picture's target with the classes that it names for this output."""

    def settled(target: TargetSpec, row: int) -> TargetSpec:
        if callable(target):
            return target
        measure, names = _read(target, scale)
        table = logits(output)[row : row + 1]
        return Fixed(measure, tuple(int(_classes(table, name, scale)[0]) for name in names))

    return [settled(target, row) for row, target in enumerate(targets)]


def plain(target: TargetSpec, scale: Scale) -> bool:
    """Return whether a target is a class itself, whose logit is explained, and no number made of several."""
    return not callable(target) and _read(target, scale)[0] == "logit"


def _is_label(text: str, scale: Scale) -> bool:
    return scale.labels is not None and text in scale.labels


def _called(output: Any, target: Callable[[Any], Tensor]) -> Score:  # noqa: ANN401
    value = target(output)
    if not isinstance(value, Tensor) or value.ndim != 1 or not value.is_floating_point():
        found = list(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise TargetError(f"the target function returned {found}: it must return one floating number a picture, [B]")
    return Score(value, torch.full((len(value),), -1, device=value.device))


def _contrast(target: str, scale: Scale) -> tuple[str, str] | None:
    """Return the two names of ``a - b``; a label that itself holds `` - `` comes first, in any case."""
    labels = {label.casefold() for label in scale.labels or ()}

    def known(name: str) -> bool:
        return name.removeprefix("label:").strip().casefold() in labels

    if known(target):
        return None
    cuts = [match.span() for match in re.finditer(r"\s-\s", target)]
    pairs = [(target[:start].strip(), target[end:].strip()) for start, end in cuts]
    whole = [pair for pair in pairs if all(map(known, pair))]
    return next(iter(whole or pairs), None)


def _classes(logits: Float[Tensor, "b k"], name: int | str | None, scale: Scale) -> Int[Tensor, " b"]:
    """Return the class that a name means for every picture."""
    if name is None or (name in ("top", "") and not _is_label(str(name), scale)):
        return logits.argmax(1)
    if name == "second" and not _is_label(name, scale):
        if logits.shape[1] < 2:
            raise TargetError("target 'second': the model has only one class")
        return logits.topk(2, dim=1).indices[:, 1]
    index = scale.index(name, int(logits.shape[1]))
    return torch.full((len(logits),), index, device=logits.device)


def per_picture(target: Targets, count: int) -> list[TargetSpec]:
    """Return one target a picture.

    Raises
    ------
    TargetError
        A list of another length than the batch, or something that is no target.
    """
    given = as_python(target)
    targets = [as_python(one) for one in given] if isinstance(given, list) else [given] * count
    if len(targets) != count:
        raise TargetError(f"{len(targets)} targets for {count} pictures: give one, or a list with one for each")
    for one in targets:
        if isinstance(one, bool) or not (isinstance(one, None | int | str | Fixed) or callable(one)):
            raise TargetError(f"target {one!r} is none of: a class number, a label, a contrast 'a - b', a callable")
    return targets


def as_python(target: Any) -> Any:  # noqa: ANN401  (numbers come from numpy and torch too)
    """Return numpy's and torch's numbers as Python's, and an array of them as a list."""
    return target.tolist() if isinstance(target, Tensor | np.ndarray | np.generic) else target


def scores(output: Any, logits: Callable[[Any], Tensor], targets: Sequence[TargetSpec], scale: Scale) -> Score:  # noqa: ANN401
    """Return the number that each picture's own target names.

    Raises
    ------
    TargetError
        A target names no class, or a callable did not return one number a picture.
    """
    # By type too, for True equals 1; a callable need not be hashable.
    keys = [(type(t), t) if isinstance(t, None | int | str | Fixed) else id(t) for t in targets]
    answers = {key: score(output, logits, t, scale) for key, t in dict(zip(keys, targets, strict=True)).items()}
    for answer in answers.values():
        if len(answer.value) != len(targets):
            raise TargetError(f"the target function returned {len(answer.value)} numbers for {len(targets)} pictures")
    if len(answers) == 1:
        return answers[keys[0]]
    value = torch.stack([answers[key].value[row] for row, key in enumerate(keys)])
    index = torch.stack([answers[key].index[row] for row, key in enumerate(keys)])
    known = (answer.logits for answer in answers.values())
    return Score(value, index, next((logits for logits in known if logits is not None), None))
