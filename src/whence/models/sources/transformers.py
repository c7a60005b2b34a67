"""``hf:NAME_OR_FOLDER``: image classifiers of transformers, from the hub, from a folder, or a type's default."""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

from torch import nn

from whence.errors import ModelError, nearest
from whence.models.classifier import Classifier
from whence.models.extras import library
from whence.models.random import undisturbed
from whence.models.sources.processors import readings
from whence.models.sources.request import RANDOM, Request, Shape, constructed, fetching, filled, ready, refuse_loading
from whence.models.stated import stated_or_own
from whence.models.targets import Activation
from whence.models.weights import check_fit, read_weights
from whence.pictures.preprocess import Preprocess, Preprocessing

_EXAMPLE = "'hf:google/vit-base-patch16-224'"
# Left to itself, transformers fills what a file lacks with new random weights and only logs it.
_REPORTED = {"output_loading_info": True, "ignore_mismatched_sizes": True}


def module(name: str, request: Request, shape: Shape | None) -> nn.Module:
    """Build one of transformers' classifiers, and fill it."""
    with _quiet(request) as hf:
        return _filled(hf, _config(hf, name, request), name, request, shape)


def classifier(name: str, request: Request) -> Classifier:
    """Load one of transformers' classifiers, with its processor and its labels.

    Raises
    ------
    ModelError
        The name is unknown, or the weights are no safetensors, do not fit or cannot be fetched.
    MissingExtraError
        transformers is not installed, or torchvision does not fit torch.
    """
    with _quiet(request) as hf:
        config = _config(hf, name, request)
        preprocess = _preprocess(hf, config, name, request)
        net = _filled(hf, config, name, request, preprocess.shape if preprocess else None)
    several = config.problem_type == "multi_label_classification"
    activation: Activation = "sigmoid" if several else "softmax"
    return Classifier(net, preprocess, _labels(config), name, activation, spec=request.spec)


@contextmanager
def _quiet(request: Request) -> Iterator[Any]:
    """Lend transformers without its log and its progress bars; what it has to say is said in errors."""
    hf = library("transformers", request.asked)
    log = hf.utils.logging
    level, bars = log.get_verbosity(), log.is_progress_bar_enabled()
    log.set_verbosity_error()
    log.disable_progress_bar()
    try:
        yield hf
    finally:
        log.set_verbosity(level)
        if bars:
            log.enable_progress_bar()


def is_type(name: str, request: Request) -> bool:
    """Return whether ``name`` is a type like ``vit``; a folder of that name is ``./vit``."""
    return _plain(name) in _types(library("transformers", request.asked))


def _types(hf: Any) -> dict[str, str]:  # noqa: ANN401  (a library without types)
    """Return the types that classify pictures, by their names without hyphens and underscores."""
    return {_plain(name): name for name in _classifiers(hf)}


def _classifiers(hf: Any) -> Mapping[str, str | tuple[str, ...]]:  # noqa: ANN401
    """Return the names of the classes that classify pictures, by type."""
    mapping: Mapping[str, str | tuple[str, ...]] = (
        hf.models.auto.modeling_auto.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES
    )
    return mapping


def _plain(name: str) -> str:
    return name.lower().replace("-", "").replace("_", "")


def _where(name: str) -> dict[str, bool]:
    """Return how a name is looked up: a folder never asks the hub, and no code comes with a model."""
    return {"local_files_only": os.path.isdir(name), "trust_remote_code": False}


def _config(hf: Any, name: str, request: Request) -> Any:  # noqa: ANN401
    if is_type(name, request):
        return _default_config(hf, _types(hf)[_plain(name)], request)
    if "/" not in name and not os.path.isdir(name):
        raise ModelError(
            f"{request.asked} names no folder, no model of the hub like {_EXAMPLE}, and no type "
            f"that classifies pictures, {nearest(name, _types(hf).values())}"
        )
    with fetching(request):
        config = hf.AutoConfig.from_pretrained(name, **_where(name))
    _check_options(config, request)
    config.update(dict(request.options))
    return config


def _default_config(hf: Any, kind: str, request: Request) -> Any:  # noqa: ANN401
    if request.weights is None:
        raise ModelError(
            f"{request.asked} is a type without weights of its own, "
            f'give weights="{RANDOM}", weights=FILE, or a model of the hub like {_EXAMPLE}'
        )
    default = hf.CONFIG_MAPPING[kind]
    _check_options(default(), request)
    config = constructed(default, replace(request, options={"num_labels": 1000, **request.options}))
    # Where a type has several classifiers, the first is meant; transformers asks for it by name.
    names = _classifiers(hf)[kind]
    config.architectures = [names if isinstance(names, str) else names[0]]
    return config


def _check_options(config: Any, request: Request) -> None:  # noqa: ANN401
    """Refuse options that a config would keep without a word."""
    for option in request.options:
        if not hasattr(config, option):
            raise ModelError(f"{request.asked}: there is no option {option!r}, {nearest(option, config.to_dict())}")


def _filled(hf: Any, config: Any, name: str, request: Request, shape: Shape | None) -> nn.Module:  # noqa: ANN401
    # The options stand in the config by now; a wrapped library's constructor gets what the config says there.
    plain = replace(request, options={})
    refuse_loading(getattr(config, "model_args", None) or {}, request.asked)
    auto = hf.AutoModelForImageClassification
    if request.weights is None:
        safe = {"use_safetensors": None if request.trust else True}
        with fetching(request):
            return _loaded(partial(auto.from_pretrained, name, config=config, **safe, **_where(name)), plain)
    net = constructed(partial(auto.from_config, config), plain).float()
    if request.weights == RANDOM:
        return filled(net, plain, shape)
    state = read_weights(request.weights, trust=request.trust)
    # The class loads the state itself: it knows under which names older files hold its weights.
    kind: Any = type(net)
    return _loaded(partial(kind.from_pretrained, None, config=config, state_dict=state), plain)


def _loaded(load: Callable[..., Any], request: Request) -> nn.Module:
    """Load weights; a file of the user's must fit whole, and nothing may be left without weights."""
    with undisturbed(request.seed):
        net, report = load(**_REPORTED)
    check_fit(
        missing=sorted(report["missing_keys"]),
        unexpected=sorted(report["unexpected_keys"]) if request.weights else (),
        misshaped=sorted(f"{key} {list(have)} for {list(want)}" for key, have, want in report["mismatched_keys"]),
        asked=request.asked,
        source=str(request.weights or request.spec),
    )
    return ready(net.float(), request)


def _preprocess(hf: Any, config: Any, name: str, request: Request) -> Preprocessing | None:  # noqa: ANN401
    """Return what the processor states; an untrained model without one takes pictures squashed to its size."""
    if not is_type(name, request):
        try:
            processor = hf.AutoImageProcessor.from_pretrained(name, **_where(name))
        except (OSError, ValueError):
            processor = None
        if processor is not None:
            return stated_or_own(readings(processor.to_dict()), processor)
        if request.weights != RANDOM:
            return None
    return Preprocess(resize=_side(config), channels=getattr(config, "num_channels", 3), mean=(0.5,), std=(0.5,))


def _side(config: Any) -> tuple[int, int]:  # noqa: ANN401
    size = getattr(config, "image_size", None) or 224
    return (size, size) if isinstance(size, int) else tuple(size)


def _labels(config: Any) -> list[str] | None:  # noqa: ANN401
    """Return the labels, None where there are none or transformers made them up."""
    if not config.id2label:
        return None
    labels = [str(config.id2label[index]) for index in range(config.num_labels)]
    made_up = [f"LABEL_{index}" for index in range(len(labels))]
    return None if labels == made_up else labels
