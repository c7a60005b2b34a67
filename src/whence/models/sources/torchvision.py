"""``torchvision:NAME``: torchvision's image classifiers."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

from torch import nn

from whence.errors import ModelError, nearest
from whence.models.classifier import Classifier
from whence.models.extras import library
from whence.models.sources.request import Request, Shape, constructed, fetching, filled, ready
from whence.models.stated import stated_or_own
from whence.models.weights import fit
from whence.pictures.preprocess import Preprocess

_INTERPOLATIONS = ("nearest", "bilinear", "bicubic")


def module(name: str, request: Request, shape: Shape | None) -> nn.Module:
    """Build one of torchvision's classifiers with exactly the request's options, and fill it."""
    return filled(constructed(partial(_models(name, request).get_model, name), request), request, shape)


def classifier(name: str, request: Request) -> Classifier:
    """Load one of torchvision's classifiers as published, with its preprocessing and labels.

    Raises
    ------
    ModelError
        The name or the weights are unknown, do not fit or cannot be fetched.
    MissingExtraError
        torchvision is not installed, or does not fit torch.
    """
    entries = _models(name, request).get_model_weights(name)
    published = request.weights is None or request.weights in entries.__members__
    entry = entries[request.weights] if published and request.weights else entries.DEFAULT
    request = replace(request, options={**_as_published(name, entry), **request.options})
    transform = _transform(entry, request.options.get("image_size"))
    preprocess = stated_or_own(_readings(transform), transform)
    if published:
        net = _published(name, request, entry)
    else:
        _refuse_unknown_entry(request, entries)
        net = module(name, request, preprocess.shape)
    categories = entry.meta["categories"]
    same = request.options.get("num_classes", len(categories)) == len(categories)
    return Classifier(net, preprocess, categories if same else None, name, spec=request.spec)


def _models(name: str, request: Request) -> Any:  # noqa: ANN401  (a library without types)
    models = library("torchvision", request.asked).models
    known = models.list_models(module=models)
    if name not in known:
        raise ModelError(f"{request.asked}: torchvision has no such image classifier, {nearest(name, known)}")
    return models


def as_published(name: str) -> dict[str, object]:
    """Return the options by which ``torchvision:NAME`` is built, where they are not the constructor's defaults.

    Raises
    ------
    ModelError
        There is no such model.
    MissingExtraError
        torchvision is not installed, or does not fit torch.
    """
    models = _models(name, Request(f"torchvision:{name}"))
    return _as_published(name, models.get_model_weights(name).DEFAULT)


def _as_published(name: str, entry: Any) -> dict[str, object]:  # noqa: ANN401
    """Return the options with which torchvision itself builds a model for its published weights."""
    if name in ("googlenet", "inception_v3"):
        return {"transform_input": True, "init_weights": False}
    if name.startswith("vit_"):
        return {"image_size": entry.meta["min_size"][0]}
    return {}


def _published(name: str, request: Request, entry: Any) -> nn.Module:  # noqa: ANN401
    net: nn.Module = constructed(partial(_models(name, request).get_model, name), request)
    with fetching(request):
        state = entry.get_state_dict(progress=False, check_hash=True, weights_only=True)
    fit(net, state, asked=request.asked, source=str(entry))
    return ready(net, request)


def _refuse_unknown_entry(request: Request, entries: Any) -> None:  # noqa: ANN401
    """Refuse what is written like the name of published weights and is none."""
    word = str(request.weights)
    if word.isidentifier() and word.isupper():
        raise ModelError(f"{request.asked}: there are no weights {word!r}, {nearest(word, entries.__members__)}")


def _transform(entry: Any, size: int | None) -> Any:  # noqa: ANN401
    """Return the published preprocessing, scaled to the size that the constructor was told."""
    transform = entry.transforms()
    if size is None or transform.crop_size == [size]:
        return transform
    return entry.transforms(crop_size=size, resize_size=size * transform.resize_size[0] // transform.crop_size[0])


def _readings(transform: Any) -> Iterator[Preprocess]:  # noqa: ANN401
    interpolation = transform.interpolation.value
    if interpolation in _INTERPOLATIONS:
        yield Preprocess(
            resize=transform.resize_size[0],
            crop=transform.crop_size[0],
            interpolation=interpolation,
            antialias=bool(transform.antialias),
            mean=tuple(transform.mean),
            std=tuple(transform.std),
        )
