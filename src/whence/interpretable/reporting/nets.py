"""What a training left behind: the nets to be compared, and the file that tells its course."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, get_args

import torch
from jaxtyping import Int
from torch import Tensor

from whence.errors import ModelError, OutputError
from whence.interpretable.training.folder import COURSE, SCHEMA
from whence.models.classifier import Classifier
from whence.models.folder import FILE
from whence.models.load import load_model
from whence.models.masked.wrapper import Interpretable
from whence.reports.filters import Entry, Phase


@dataclass(frozen=True)
class Training:
    """What is told of a training: its recipe and data by name, its course, and each net's held-out accuracy.

    ``seed`` and ``share`` say which pictures were held out; None where that is not told.
    """

    recipe: Mapping[str, str]
    data: Mapping[str, str]
    course: Sequence[Entry]
    accuracy: Mapping[str, float]
    seed: int | None = None
    share: float | None = None


@dataclass(frozen=True)
class Nets:
    """An interpretable net, the ordinary one that it began from, and the one trained on without the mask.

    The latter two, and what is told of the training, are None where they are not there.
    """

    interpretable: Classifier
    masked: Interpretable
    plain: Classifier | None
    control: Classifier | None
    training: Training | None

    @property
    def single(self) -> bool:
        """Whether the filters have one category, which is told from all else: class 1 of two."""
        labels = self.interpretable.labels
        return labels is not None and len(labels) == 1

    @property
    def categories(self) -> Int[Tensor, " k"] | None:
        """Each filter's category by the training; None where that knew none."""
        known = self.masked.interpretable.categories
        if self.single:
            return torch.ones(self.masked.form.filters, dtype=torch.long)
        return known.assigned().cpu() if known is not None and bool(known.seen.any()) else None

    @property
    def layer(self) -> str:
        """The layer that is masked."""
        return self.masked.form.layer


def load(
    spec: str | os.PathLike[str],
    *,
    weights: str | os.PathLike[str] | None = None,
    device: str | torch.device = "cpu",
    trust: bool = False,
) -> Nets:
    """Load an interpretable model, and from its folder what a training left beside it.

    Raises
    ------
    ModelError
        A model cannot be loaded, or the one asked for is not interpretable.
    TrustError
        As ``load_model``.
    OutputError
        The file about the training is damaged.
    """
    net = load_model(spec, weights=weights, device=device, trust=trust)
    if not isinstance(net.module, Interpretable):
        raise ModelError(
            f"{os.fspath(spec)!r} is an ordinary model, without [interpretable] in a {FILE}: give the folder that "
            "`whence interpretable train` wrote"
        )
    home = Path(spec).parent if Path(spec).suffix == ".toml" else Path(spec)
    beside = {
        name: load_model(home / name, device=device, trust=trust) if (home / name / FILE).is_file() else None
        for name in ("plain", "control")
    }
    return Nets(net, net.module, beside["plain"], beside["control"], read(home / COURSE))


def read(path: Path) -> Training | None:
    """Read what is told of a training; None where the file is not there.

    Raises
    ------
    OutputError
        It is damaged, or of another schema.
    """
    try:
        told = json.loads(path.read_text("utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise OutputError(f"{path} cannot be read ({error}): train again, or remove the file") from error
    found = told.get("schema") if isinstance(told, dict) else None
    if found != SCHEMA:
        raise OutputError(f"{path} is of schema {found!r}, and this whence reads schema {SCHEMA}: update whence")
    try:
        return _training(told)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise OutputError(f"{path} is damaged ({error!r}): train again, or remove the file") from error


def _training(told: Mapping[str, Any]) -> Training:
    recipe = {name: _text(value) for name, value in told["recipe"].items() if _matters(told["recipe"], name)}
    data = {name: _text(value) for name, value in told["data"].items() if name in ("name", "pictures", "held_out")}
    accuracy = {name: float(share) for name, share in told["accuracy"].items() if share is not None}
    course, share = tuple(map(_entry, told["course"])), told["data"].get("share")
    return Training(recipe, data, course, accuracy, told["recipe"].get("plan.seed"), share)


def _matters(recipe: Mapping[str, Any], name: str) -> bool:
    """Return whether a setting was given, and is not of epochs before the mask that there were none of."""
    return recipe[name] not in (None, [], {}) and not (name.startswith("plain.") and recipe.get("plain.epochs") == 0)


def _entry(told: Mapping[str, Any]) -> Entry:
    if told["phase"] not in get_args(Phase):
        raise ValueError(f"there is no phase {told['phase']!r}")
    numbers = {one.name: told.get(one.name) for one in fields(Entry) if one.name != "phase"}
    if None in (numbers["epoch"], numbers["accuracy"], numbers["task"]):
        raise ValueError("an epoch has no number, accuracy or task loss")
    whole = {"epoch", "changed"}
    read: dict[str, Any] = {
        name: v if v is None else int(v) if name in whole else float(v) for name, v in numbers.items()
    }
    return Entry(told["phase"], **read)


def _text(value: object) -> str:
    """Return a setting in words."""
    if isinstance(value, str):
        return value
    return (
        ", ".join(f"{name} {one}" for name, one in value.items()) if isinstance(value, Mapping) else json.dumps(value)
    )
