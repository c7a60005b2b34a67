"""Model folders, written: what ``load_model`` reads back as the same model."""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from math import inf
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor, nn

from whence.errors import ModelError
from whence.models.folder import FILE, ModelFile, built, bundled, read
from whence.models.load import PYTHON
from whence.models.masked.wrapper import Interpretable
from whence.models.sources.request import RANDOM, Request, Shape
from whence.models.sources.torchvision import as_published
from whence.models.targets import Activation
from whence.models.wrapped import Wrapped, WrapperForm
from whence.pictures.preprocess import Preprocess, Preprocessing

WEIGHTS, LABELS = "weights.safetensors", "labels.txt"


@dataclass(frozen=True)
class Origin:
    """What builds a model's architecture again: the ``source`` and the ``options`` of a model file.

    ``code`` is the Python file that the source names, where it names one; ``file`` the model file that stated all
    this, where one did.
    """

    source: str
    options: Mapping[str, Any] = field(default_factory=dict)
    code: Path | None = None
    file: ModelFile | None = None

    @classmethod
    def of(cls, spec: str, options: Mapping[str, Any]) -> "Origin":
        """Return the origin of what ``load_model(spec, **options)`` builds.

        Raises
        ------
        ModelError
            The architecture lies in a folder of transformers, which a model file cannot name.
        """
        if python := PYTHON.fullmatch(spec):
            path = Path(python["path"])
            return cls(f"{path.name}:{python['function']}", options, path)
        path = bundled().get(spec, Path(spec))
        if path.is_dir() or path.suffix == ".toml":
            file = read(path / FILE if path.is_dir() else path)
            code, _, _ = file.source.partition(":")
            found = file.inside("source", code) if code.endswith(".py") else None
            return cls(file.source, {**file.options, **options}, found, file)
        if spec.startswith("hf:") and Path(spec.removeprefix("hf:")).exists():
            raise ModelError(
                f"{spec!r} is a folder, which a model file cannot name: give the type of its architecture, such as "
                "hf:vit, with weights=FILE"
            )
        kind, _, name = spec.partition(":")
        return cls(spec, {**(as_published(name) if kind == "torchvision" else {}), **options})

    def built(self, shape: Shape | None, *, trust: bool = False, seed: int = 0) -> nn.Module:
        """Return the architecture with weights drawn from ``seed``, for inputs of a shape (C, H, W).

        Raises
        ------
        ModelError
            Its constructor refuses the options.
        TrustError
            It is a Python file, and trust was not given.
        """
        home = self.file.path if self.file else (self.code or Path(FILE)).with_name(FILE)
        file = ModelFile(home, self.source, "", self.options, RANDOM, None, "softmax", None)
        return built(file, Request(self.source, RANDOM, trust=trust, seed=seed, options=self.options), shape)


def write(
    folder: Path,
    module: nn.Module,
    origin: Origin,
    *,
    name: str,
    labels: Sequence[str] | None,
    preprocess: Preprocessing | None,
    activation: Activation = "softmax",
    half: bool = False,
) -> None:
    """Write a model into a folder that is there: ``model.toml``, the weights, the labels.

    Parameters
    ----------
    module
        What the origin builds, or a wrapper around it.
    half
        Keep the weights in half precision.

    Raises
    ------
    ModelError
        The preprocessing is a function, or the module has two wrappers, which a model file cannot state.
    """
    table: dict[str, Any] = {"name": name, "source": origin.source}
    if origin.options:
        table["options"] = dict(origin.options)
    table |= {"weights": WEIGHTS, **({"labels": LABELS} if labels else {}), "activation": activation}
    if preprocess is not None:
        table["preprocess"] = stated(preprocess)
    if isinstance(module, Wrapped):
        if isinstance(module.plain(), Wrapped):
            raise ModelError(
                f"the model has two wrappers, and a model file states one: write the plain() of {name!r}"
            )
        if isinstance(module, Interpretable) and not module.interpretable.mask.on:
            raise ModelError(
                f"the mask of {name!r} is off, which a model file cannot state: switch it on, or write plain()"
            )
        table[module.form.table] = _changed(module.form)
    (folder / FILE).write_text(toml(table), encoding="utf-8")
    if labels:
        (folder / LABELS).write_text("\n".join(labels) + "\n", encoding="utf-8")
    if origin.code:
        shutil.copyfile(origin.code, folder / origin.code.name)
    # Parameters under two names must not share their memory in the file.
    state = {key: value.detach().cpu().contiguous().clone() for key, value in module.state_dict().items()}
    if half:
        state = {key: _halved(key, value) for key, value in state.items()}
    (folder / WEIGHTS).write_bytes(save(state))


def _halved(key: str, value: Tensor) -> Tensor:
    """Return a weight in half precision; the averages that decide the filters' categories stay as they are."""
    if value.dtype != torch.float32 or key.startswith("interpretable.categories."):
        return value
    halved = value.half()
    if not bool(halved.isfinite().all()):
        raise ModelError(f"{key!r} holds numbers beyond half precision: write the weights in full")
    return halved


def stated(preprocess: Preprocessing) -> dict[str, Any]:
    """Return a preprocessing as the table of a model file.

    Raises
    ------
    ModelError
        It is a function, which a model file cannot state.
    """
    if not isinstance(preprocess, Preprocess):
        raise ModelError(
            "the model's preprocessing is a function, which a model file cannot state: give a whence Preprocess, or "
            "a model folder whose model.toml has [preprocess]"
        )
    return _changed(preprocess)


def _changed(settings: Preprocess | WrapperForm) -> dict[str, Any]:
    """Return the fields that differ from their defaults."""
    values = asdict(settings)
    return {one.name: values[one.name] for one in fields(settings) if values[one.name] != one.default}


def toml(table: Mapping[str, Any]) -> str:
    """Return a table of texts, numbers, truths, lists and tables of these as TOML."""
    lines = [f"{_key(key)} = {_value(value)}" for key, value in table.items() if not isinstance(value, Mapping)]
    for key, value in table.items():
        if isinstance(value, Mapping):
            lines += ["", f"[{_key(key)}]", *(f"{_key(name)} = {_value(one)}" for name, one in value.items())]
    return "\n".join(lines) + "\n"


def _key(key: str) -> str:
    return key if key.replace("-", "").replace("_", "").isalnum() else json.dumps(key)


def _value(value: Any) -> str:  # noqa: ANN401
    """Return a value as TOML, which writes texts, numbers, truths and lists as JSON does."""
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{_key(key)} = {_value(one)}" for key, one in value.items()) + " }"
    if not isinstance(value, str | bool | int | float | list | tuple) or value in (inf, -inf) or value != value:
        raise ModelError(f"{value!r} cannot be stated in a model file, which takes texts, numbers, truths and lists")
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_value(one) for one in value) + "]"
    return json.dumps(value, ensure_ascii=False)
