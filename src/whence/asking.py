"""What is asked for: the methods with the options that a user gave, targets and baselines."""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from torch import Tensor

from whence.errors import OptionError, PictureError, nearest
from whence.models.classifier import Classifier
from whence.models.targets import Targets, TargetSpec, as_python, per_picture
from whence.pictures.baselines import BASELINES
from whence.pictures.read import read
from whence.registry import METHODS, METRICS, Registry

Wanted = TargetSpec | list[TargetSpec]
"""One target for all pictures, or a list with one for each."""

T = TypeVar("T")


@dataclass(frozen=True)
class MethodRequest:
    """A method with the options that a user gave."""

    method: str
    options: Mapping[str, object]

    @property
    def text(self) -> str:
        """The request as it is written on the command line."""
        return _text(self.method, self.options)

    @classmethod
    def read(cls, text: str) -> "MethodRequest":
        """Read ``NAME`` or ``NAME:key=value,...``; ``+`` joins a list inside a value.

        Raises
        ------
        UnknownNameError, OptionError
            There is no such method or option, or a value cannot be read.
        """
        return cls(*_read(METHODS, text))

    def given(self, more: Mapping[str, object]) -> "MethodRequest":
        """Return the request with those of the options that its method has and that it does not state itself."""
        known = METHODS.facts(self.method).options
        return MethodRequest(self.method, {key: v for key, v in more.items() if key in known} | dict(self.options))


@dataclass(frozen=True)
class MetricRequest:
    """A metric with the options that a user gave."""

    metric: str
    options: Mapping[str, object]

    @classmethod
    def read(cls, text: str) -> "MetricRequest":
        """Read ``NAME`` or ``NAME:key=value,...``; raises as ``MethodRequest.read``."""
        made = cls(*_read(METRICS, text))
        METRICS.facts(made.metric).checked(made.options)
        return made

    @property
    def text(self) -> str:
        """The request as it is written on the command line."""
        return _text(self.metric, self.options)


def _read(registry: Registry[Any], text: str) -> tuple[str, dict[str, object]]:
    """Return the name and the options of ``NAME`` or ``NAME:key=value,...``."""
    name, _, rest = text.partition(":")
    known = registry.facts(name).options
    options: dict[str, object] = {}
    for pair in filter(None, rest.split(",")):
        key, equals, value = pair.partition("=")
        if not equals:
            raise OptionError(f"{registry.kind} {text!r}: after the colon stand key=value pairs, joined by commas")
        if key not in known:
            raise OptionError(f"{name} has no option {key!r}: {nearest(key, known)}")
        options[key] = known[key].read(value)
    return name, options


def _text(name: str, options: Mapping[str, object]) -> str:
    return ":".join(filter(None, (name, written(options))))


def once(asked: Iterable[T]) -> list[T]:
    """Return requests without those that ask the same again, in whatever words."""
    found: list[T] = []
    for request in asked:
        if request not in found:
            found.append(request)
    return found


def written(options: Mapping[str, object]) -> str:
    """Return options as ``key=value,...``, which ``read`` understands."""

    def said(value: object) -> str:
        if isinstance(value, tuple):
            return "+".join(map(said, value))
        return str(value).lower() if value is None or isinstance(value, bool) else str(value)

    return ",".join(f"{key}={said(value)}" for key, value in options.items())


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


def wanted(target: Targets, count: int) -> Wanted:
    """Return one target for all pictures, or one for each.

    Raises
    ------
    TargetError
        A list of another length, or something that is no target.
    """
    return per_picture(target, count) if isinstance(as_python(target), list) else per_picture(target, 1)[0]


def baseline_of(classifier: Classifier, value: Any) -> Any:  # noqa: ANN401  (an option of any kind)
    """Return a baseline as methods take it: a picture as the model's input, names and tensors as they are.

    Raises
    ------
    PictureError
        The picture cannot be read, or the model has no preprocessing for it.
    """
    if isinstance(value, list | tuple):
        return tuple(baseline_of(classifier, one) for one in value)
    named = isinstance(value, str) and (value in BASELINES or not os.path.exists(value))
    if named or value is None or isinstance(value, Tensor | bool | int | float):
        return value
    if classifier.preprocess is None:
        raise PictureError(f"{classifier.name} has no preprocessing: give the baseline as a tensor [C, H, W]")
    return classifier.preprocess(read(value)).input
