"""From a study of two models to pairs of rows and of maps."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from whence.asking import MethodRequest
from whence.errors import ModelError, OptionError
from whence.models.classifier import Classifier
from whence.registry import METHODS
from whence.results import reduced

if TYPE_CHECKING:
    from whence.studies.comparing.averaging import Pairs
    from whence.studies.job import ModelEntry
    from whence.studies.study import Study

_TOGETHER = 64
_COLUMNS = (
    *("number", "picture", "truth", "layer", "predicted", "predicted_label", "correct"),
    *("target", "target_label", "probability"),
)

Row = Mapping[str, Any]


def comparable(models: "Sequence[Classifier | ModelEntry]") -> None:
    """Refuse models that are not two checkpoints of one.

    Raises
    ------
    ModelError
        They see pictures differently, or tell other classes.
    OptionError
        They are not two.
    """
    if len(models) != 2:
        raise OptionError(f"two models are compared, and {len(models)} given: name --model twice")
    (mine, theirs), names = map(_kind, models), " and ".join(model.name for model in models)
    for what in ("size of input", "preprocessing"):
        if mine[what] != theirs[what]:
            raise ModelError(
                f"{names} have another {what} ({mine[what]}, {theirs[what]}): "
                "`whence study cross` compares models that see pictures differently"
            )
    for what in ("labels", "activation"):
        if mine[what] != theirs[what]:
            raise ModelError(f"{names} have other {what}: only models of the same classes are compared")


def _kind(model: "Classifier | ModelEntry") -> dict[str, object]:
    activation = model.scale.activation if isinstance(model, Classifier) else model.activation
    size = None if model.input is None else " x ".join(map(str, model.input))
    return {
        "size of input": size,
        "preprocessing": model.preprocessing,
        "labels": model.labels,
        "activation": activation,
    }


@dataclass(frozen=True, eq=False)
class Rows:
    """The rows of the pictures that have a map on both models; ``failed`` counts those that lack each model's."""

    method: str
    first: Sequence[Row]
    second: Sequence[Row]
    failed: tuple[int, int]

    @property
    def numbers(self) -> list[int]:
        """The pictures' numbers in the study."""
        return [row["number"] for row in self.first]


def rows(study: "Study", method: str | None = None) -> Rows:
    """Return the rows of a study that are compared, those of ``method`` where it has several.

    Raises
    ------
    ModelError, OptionError
        The study's models are not two checkpoints of one; no picture has a map on both; or which method is meant is
        not clear.
    """
    comparable(study.job.models)
    method = _method(study.job.methods, method)
    by_model = []
    for model in study.job.models:
        where = {"model": model.name, "method": method, "status": "ok"}
        found = study.table(columns=_COLUMNS, where=where).to_pylist()
        by_model.append({row["number"]: row for row in found})
    one, other = by_model
    numbers = sorted(one.keys() & other.keys())
    if not numbers:
        raise OptionError(f"no picture has a map of both models by {method}: see the errors in the study's report")
    count = len(study.job.pictures)
    return Rows(
        method, [one[n] for n in numbers], [other[n] for n in numbers], (count - len(one), count - len(other))
    )


def _method(methods: Sequence[str], asked: str | None) -> str:
    if asked is None and len(methods) > 1:
        raise OptionError(f"this study has {' and '.join(methods)}: name the one whose maps are compared")
    if asked is not None and asked not in methods:
        raise OptionError(f"this study has no maps by {asked!r}: it has {' and '.join(methods)}")
    return asked or methods[0]


def pairs(study: "Study", of: Rows) -> "Pairs":
    """Yield both models' maps of the pictures of ``of``, in order, some at a time.

    Raises
    ------
    OptionError
        Maps have several shapes, or no places; or the study kept none.
    """
    numbers = set(of.numbers)
    one, other = (_maps(study, model.name, of.method, numbers) for model in study.job.models)
    shapes: set[tuple[int, ...]] = set()
    while first := list(islice(one, _TOGETHER)):
        second = list(islice(other, len(first)))
        shapes |= {tuple(heat.shape) for heat in (*first, *second)}
        if len(shapes) > 1:
            found = " and ".join(f"{height} x {width}" for height, width in sorted(shapes))
            raise OptionError(
                f"maps by {of.method} have {found} places: name a layer of one size in both models "
                "(layer=NAME), or state a crop in their preprocessing"
            )
        if first[0].numel() < 2:
            raise OptionError(f"{of.method} gives maps without places here: take another method or layer")
        yield torch.stack(first), torch.stack(second)


def _maps(study: "Study", model: str, method: str, numbers: set[int]) -> Iterator[Float[Tensor, "h w"]]:
    """Yield a model's reduced maps of some pictures."""
    how = METHODS.facts(MethodRequest.read(method).method).reduce
    for table, values in study.maps(model, method):
        for number, heat in zip(table["number"].to_pylist(), reduced(values, how), strict=True):
            if number in numbers:
                yield heat
