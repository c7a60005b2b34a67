"""Model folders: a ``model.toml`` beside its weights and labels, and nothing outside its folder."""

import tomllib
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields, replace
from importlib import import_module
from importlib.resources import files
from pathlib import Path
from typing import Any

from torch import nn

from whence.errors import ModelError, OptionError, nearest
from whence.models.cam_head import CamForm
from whence.models.classifier import Classifier
from whence.models.masked.wrapper import Form
from whence.models.sources import python_file, timm, torchvision, transformers
from whence.models.sources.request import Request, Shape, constructed, filled, refuse_loading
from whence.models.targets import Activation
from whence.models.wrapped import WrapperForm
from whence.pictures.preprocess import Preprocess

FILE = "model.toml"
_BUNDLED = "whence.models.bundled"


@dataclass(frozen=True)
class Kind:
    """What a key of the file may hold, and how that is said."""

    accepts: Callable[[object], bool]
    words: str


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return _is_whole(value) or isinstance(value, float)


def _is_list(value: object, of: Callable[[object], bool]) -> bool:
    return isinstance(value, list) and bool(value) and all(of(item) for item in value)


def _is_size(value: object) -> bool:
    return _is_whole(value) or (_is_list(value, _is_whole) and len(value) == 2)  # type: ignore[arg-type]


_TEXT = Kind(lambda value: isinstance(value, str) and bool(value), "a text")
_TABLE = Kind(lambda value: isinstance(value, dict), "a table")
_SIZE = Kind(_is_size, "a whole number or [height, width]")
_NUMBERS = Kind(lambda value: _is_list(value, _is_number), "a list of numbers")

_WHOLE = Kind(_is_whole, "a whole number")
_TRUTH = Kind(lambda value: isinstance(value, bool), "true or false")

_KEYS: dict[str, Kind] = {
    **dict.fromkeys(("name", "source", "weights", "labels"), _TEXT),
    **dict.fromkeys(("options", "preprocess", Form.table, CamForm.table), _TABLE),
    "activation": Kind(lambda value: value in ("softmax", "sigmoid"), "'softmax' or 'sigmoid'"),
}
_PREPROCESS_KEYS: dict[str, Kind] = {
    **dict.fromkeys(("resize", "crop"), _SIZE),
    **dict.fromkeys(("mean", "std"), _NUMBERS),
    "interpolation": _TEXT,
    "antialias": _TRUTH,
    "channels": _WHOLE,
    "round_crop": Kind(lambda value: value in ("even", "down"), "'even' or 'down'"),
}
_FORM_KEYS: dict[str, Kind] = {"layer": _TEXT, **dict.fromkeys(("filters", "classes"), _WHOLE)}
# What may wrap a model, each stated in a table of its own, with the keys of that table.
_FORMS: dict[str, tuple[type[Form | CamForm], dict[str, Kind]]] = {
    CamForm.table: (CamForm, _FORM_KEYS),
    Form.table: (
        Form,
        {
            **_FORM_KEYS,
            "centre": _TEXT,
            "added": _TRUTH,
            "beta": Kind(lambda value: _is_number(value) or _is_list(value, _is_number), "a number, or one a filter"),
        },
    ),
}


@dataclass(frozen=True)
class ModelFile:
    """A ``model.toml`` as read and checked; its paths are still as written."""

    path: Path
    source: str
    name: str
    options: Mapping[str, Any]
    weights: str | None
    labels: str | None
    activation: Activation
    preprocess: Preprocess | None
    form: WrapperForm | None = None

    def inside(self, key: str, text: str) -> Path:
        """Return the path that a key gives, which may not leave the file's folder.

        Raises
        ------
        ModelError
            It is absolute, or leads outside, by ``..`` or by a link.
        """
        folder = self.path.parent.resolve()
        path = (folder / text).resolve()
        if Path(text).is_absolute() or not path.is_relative_to(folder):
            raise ModelError(f"{self.path}: {key} = {text!r} leaves the model's folder, keep its files inside")
        return path


def bundled() -> dict[str, Path]:
    """Return the folders of the models that come with whence, by name."""
    return {path.parent.name: path.parent for path in sorted(_home().glob(f"*/{FILE}"))}


def _home() -> Path:
    return Path(str(files("whence.models"))) / "bundled"


def classifier(path: Path, request: Request) -> Classifier:
    """Load the model that a ``model.toml`` describes; what it does not state, its classifier does not have.

    The request's weights and options go before the file's.

    Raises
    ------
    ModelError
        The file is absent or breaks a rule, or its model cannot be built or filled.
    TrustError
        It needs a pickle or a Python file, and trust was not given.
    """
    file = read(path)
    refuse_loading(file.options, str(path))
    weights = request.weights or _weights(file)
    request = replace(request, weights=weights, options={**file.options, **request.options})
    net = _module(file, request, file.preprocess.shape if file.preprocess else None)
    labels = _labels(file, net)
    return Classifier(net, file.preprocess, labels, file.name, file.activation, spec=request.spec)


def read(path: Path) -> ModelFile:
    """Read and check a model file.

    Raises
    ------
    ModelError
        The file is absent or no TOML, a key is unknown or missing, or a value is not what its key takes.
    """
    table = _checked(_parsed(path), _KEYS, path, "")
    if "source" not in table:
        raise ModelError(f'{path} has no source: say what builds the model, like source = "timm:resnet50"')
    return ModelFile(
        path=path,
        source=table["source"],
        name=table.get("name", path.parent.resolve().name),
        options=table.get("options", {}),
        weights=table.get("weights"),
        labels=table.get("labels"),
        activation=table.get("activation", "softmax"),
        preprocess=_preprocess(table["preprocess"], path) if "preprocess" in table else None,
        form=_form(table, path),
    )


def _parsed(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ModelError(f"there is no {path}: a model folder holds a {FILE} beside its weights") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise ModelError(f"{path} cannot be read as TOML ({error}): mend the file") from error


def _checked(table: dict[str, Any], keys: Mapping[str, Kind], path: Path, under: str) -> dict[str, Any]:
    for key, value in table.items():
        if key not in keys:
            raise ModelError(f"{path}: there is no key {under + key!r}, {nearest(key, keys)}")
        if not keys[key].accepts(value):
            raise ModelError(f"{path}: {under}{key} = {value!r} is not {keys[key].words}")
    return table


def _preprocess(table: dict[str, Any], path: Path) -> Preprocess:
    _checked(table, _PREPROCESS_KEYS, path, "preprocess.")
    lists: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in table.items()}
    lists |= {key: tuple(map(float, table[key])) for key in ("mean", "std") if key in table}
    try:
        return Preprocess(**lists)
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from error


def _form(table: dict[str, Any], path: Path) -> WrapperForm | None:
    """Return the wrapper that a file states in one of the tables for it."""
    stated = [name for name in _FORMS if name in table]
    if not stated:
        return None
    if len(stated) > 1:
        raise ModelError(f"{path} has [{'] and ['.join(stated)}], of which a model can have one: remove the other")
    (name,) = stated
    form, keys = _FORMS[name]
    given = _checked(table[name], keys, path, f"{name}.")
    if missing := {one.name for one in fields(form) if one.default is MISSING} - set(given):
        raise ModelError(f"{path}: [{name}] has no {' and no '.join(sorted(missing))}: state them")
    values: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in given.items()}
    return form(**values)


def _weights(file: ModelFile) -> Path:
    if file.weights is None:
        raise ModelError(f'{file.path} names no weights: add weights = "weights.safetensors", or give weights=FILE')
    return file.inside("weights", file.weights)


def _module(file: ModelFile, request: Request, shape: Shape | None) -> nn.Module:
    """Build and fill the module that the file's source names, in the wrapper that the file states."""
    if file.form is None:
        return built(file, request, shape)
    try:
        wrapped = file.form.around(built(file, replace(request, weights=None), shape))
    except OptionError as error:
        raise ModelError(f"{file.path}: {error}") from error
    return filled(wrapped, request, shape)


def built(file: ModelFile, request: Request, shape: Shape | None) -> nn.Module:
    """Build and fill the module that the file's source names, in no wrapper.

    Raises
    ------
    ModelError
        There is no such source, or its constructor refuses its options.
    """
    kind, _, name = file.source.partition(":")
    if kind.endswith(".py"):
        return python_file.module(file.inside("source", kind), name, request, shape)
    if kind not in _SOURCES:
        raise ModelError(
            f"{file.path}: source = {file.source!r} is unknown, give torchvision:NAME, timm:NAME, hf:TYPE_OR_FOLDER, "
            "whence:NAME or file.py:function"
        )
    return _SOURCES[kind](file, name, request, shape)


def _own_module(file: ModelFile, name: str, request: Request, shape: Shape | None) -> nn.Module:
    """Build an architecture that comes with whence: the function NAME of the module NAME."""
    names = [path.stem for path in _home().glob("[a-z]*.py")]
    if name not in names:
        raise ModelError(
            f"{file.path}: source = 'whence:{name}' is no architecture of whence, {nearest(name, names)}"
        )
    build: Callable[..., nn.Module] = getattr(import_module(f"{_BUNDLED}.{name}"), name)
    return filled(constructed(build, request), request, shape)


def _transformers_module(file: ModelFile, name: str, request: Request, shape: Shape | None) -> nn.Module:
    """Build a type of transformers, or what a config in the model's folder describes; never ask the hub."""
    if transformers.is_type(name, request):
        return transformers.module(name, request, shape)
    path = file.inside("source", name)
    if not path.is_dir():
        raise ModelError(
            f"{file.path}: source = {file.source!r} names no type of transformers and no folder inside the model's, "
            "and a model file never asks the hub: give a type like 'hf:vit', or keep the config in a folder"
        )
    return transformers.module(str(path), request, shape)


_SOURCES: dict[str, Callable[[ModelFile, str, Request, Shape | None], nn.Module]] = {
    "torchvision": lambda _, *rest: torchvision.module(*rest),
    "timm": lambda _, *rest: timm.module(*rest),
    "hf": _transformers_module,
    "whence": _own_module,
}


def _labels(file: ModelFile, net: nn.Module) -> list[str] | None:
    """Read one label a line; their number must be that of the model's classes, where that is known."""
    if file.labels is None:
        return None
    path = file.inside("labels", file.labels)
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").rstrip().split("\n")]
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(f"{file.path}: labels = {file.labels!r} cannot be read as text ({error})") from error
    if "" in lines:
        raise ModelError(f"{path}: line {lines.index('') + 1} is empty, give every class its label")
    classes = _classes(net)
    if classes is not None and classes != len(lines):
        raise ModelError(f"{path} holds {len(lines)} labels for a model of {classes} classes, give one a class")
    return lines


def _classes(net: nn.Module) -> int | None:
    """Return how many classes a module says it has, as timm's and transformers' do."""
    for owner, name in ((net, "num_classes"), (getattr(net, "config", None), "num_labels")):
        if isinstance(count := getattr(owner, name, None), int):
            return count
    return None
