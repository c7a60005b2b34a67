"""``timm:NAME``: the models of PyTorch Image Models."""

from collections.abc import Iterator, Mapping
from functools import partial
from math import floor
from typing import Any

from torch import nn

from whence.errors import ModelError, nearest
from whence.models.classifier import Classifier
from whence.models.extras import library
from whence.models.random import undisturbed
from whence.models.sources.request import Request, Shape, constructed, fetching, filled, ready
from whence.models.stated import stated_or_own
from whence.pictures.preprocess import Preprocess, Preprocessing

_INTERPOLATIONS = ("nearest", "bilinear", "bicubic")


def module(name: str, request: Request, shape: Shape | None) -> nn.Module:
    """Build one of timm's models, and fill it."""
    return filled(constructed(partial(_timm(name, request).create_model, name), request), request, shape)


def classifier(name: str, request: Request) -> Classifier:
    """Load one of timm's classifiers, with its preprocessing, and its labels where timm knows them.

    Raises
    ------
    ModelError
        The name is unknown, or the weights do not fit or cannot be fetched.
    MissingExtraError
        timm is not installed, or torchvision does not fit torch.
    """
    timm = _timm(name, request)
    net = _published(timm, name, request) if request.weights is None else _untrained(timm, name, request)
    preprocess = _preprocess(timm.data, net, request)
    if request.weights is not None:
        filled(net, request, preprocess.shape)
    return Classifier(net, preprocess, _labels(timm.data, net), name, spec=request.spec)


def _timm(name: str, request: Request) -> Any:  # noqa: ANN401  (a library without types)
    timm = library("timm", request.asked)
    if not timm.is_model(name):
        raise ModelError(f"{request.asked}: timm has no such model, {nearest(name, timm.list_models())}")
    return timm


def _untrained(timm: Any, name: str, request: Request) -> nn.Module:  # noqa: ANN401
    net: nn.Module = constructed(partial(timm.create_model, name), request)
    return net


def _published(timm: Any, name: str, request: Request) -> nn.Module:  # noqa: ANN401
    try:
        with undisturbed(request.seed):
            net: Any = timm.create_model(name, pretrained=True, **request.options)
    except Exception:
        # timm builds and fetches in one call: where it builds without weights, these are what failed.
        constructed(partial(timm.create_model, name), request)
        with fetching(request):
            raise
    trained = net.pretrained_cfg["num_classes"]
    if net.num_classes not in (0, trained):
        raise ModelError(
            f"{request.asked}: the published weights have a head of {trained} classes, "
            'leave num_classes out, or give weights=FILE or weights="random"'
        )
    return ready(net, request)


def _preprocess(data: Any, net: nn.Module, request: Request) -> Preprocessing:  # noqa: ANN401
    config = data.resolve_data_config(dict(request.options), model=net)
    channels = request.options.get("in_chans", 3)
    if channels != 3:
        # timm states transforms for colour alone, and no mean that would be that of other channels.
        return next(_readings({**config, "input_size": (channels, *config["input_size"][1:])}))
    readings = _readings(config)
    return stated_or_own(readings, data.create_transform(**config, is_training=False))


def _readings(config: Mapping[str, Any]) -> Iterator[Preprocess]:
    channels, *crop = config["input_size"]
    scaled = tuple(floor(side / config["crop_pct"]) for side in crop)
    own = channels if channels == 3 else 1
    if config["interpolation"] in _INTERPOLATIONS:
        yield Preprocess(
            resize=scaled if config["crop_mode"] == "squash" else scaled[0],
            crop=tuple(crop),
            interpolation=config["interpolation"],
            channels=channels,
            mean=tuple(config["mean"])[:own],
            std=tuple(config["std"])[:own],
        )


def _labels(data: Any, net: Any) -> list[str] | None:  # noqa: ANN401
    """Return the words of ImageNet's classes, where the published model has just these."""
    subset = data.infer_imagenet_subset(net)
    if subset is None or net.pretrained_cfg.get("num_classes") != net.num_classes:
        return None
    return list(data.ImageNetInfo(subset).label_descriptions())
