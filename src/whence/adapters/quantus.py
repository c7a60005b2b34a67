"""Quantus' call, whence's numbers: ``explain_func=whence.adapters.quantus.explain_func``."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from whence.adapters.shared import CAPTUM_NAMES, classifier_of, layer_name, method_of, on_grid, on_input
from whence.attribution import attribute
from whence.errors import OptionError
from whence.registry import METHODS


def explain_func(
    model: object,
    inputs: np.ndarray | Tensor,
    targets: np.ndarray | Tensor | Sequence[int] | int,
    *,
    method: str = "gradient",
    device: object = None,
    softmax: bool | None = None,
    reduce_axes: Sequence[int] | None = None,
    keepdims: bool = True,
    channel_first: bool = True,
    gc_layer: nn.Module | str | None = None,
    xai_lib: str = "whence",
    xai_lib_kwargs: Mapping[str, object] | None = None,
    **options: object,
) -> Float[np.ndarray, "b *rest"]:
    """Explain a batch as Quantus asks for it.

    Parameters
    ----------
    model
        A module that classifies pictures, or a function for methods that need scores alone. It runs where
        it is: ``device`` moves nothing.
    inputs, targets
        [B, C, H, W] as the model takes it, and one class number a picture or one for all.
    method
        A name that ``whence.methods.names()`` lists, or the class name that Quantus has for it, such as
        ``"IntegratedGradients"``; the gradient if not given, as in Quantus.
    softmax
        True to explain the class's probability in place of its logit.
    reduce_axes
        Axes to be summed, as in Quantus, a map with one channel as it is; ``()`` keeps the channels. If not
        given, the channels are reduced as the method states: a gradient to its largest absolute value, relevances to
        their sum.
    keepdims
        Whether reduced axes stay, with length 1.
    gc_layer
        The layer, a module of the model or its name, for the methods that need one.
    xai_lib_kwargs, options
        The method's own.

    Returns
    -------
    ndarray
        [B, 1, H, W] on the input's grid, or [B, C, H, W] with ``reduce_axes=()``: a map with one channel is then
        repeated in each.

    Raises
    ------
    OptionError
        An option is not the method's, the channels stand last, or the pictures themselves are to be summed.
    WhenceError
        As ``whence.attribute``.
    """
    if not channel_first:
        raise OptionError("channel_first=False: a torch model takes its channels first, [B, C, H, W]")
    if reduce_axes is not None and not set(reduce_axes) <= {1, 2, 3}:
        raise OptionError(f"reduce_axes={tuple(reduce_axes)}: give axes 1, 2 or 3, and () to reduce none")
    name = METHODS.facts(CAPTUM_NAMES.get(method) or method_of(method) or method).name
    classifier = classifier_of(model, name)
    layer = {} if gc_layer is None else {"layer": layer_name(classifier, gc_layer)}
    x = torch.as_tensor(inputs)
    answer = attribute(
        classifier, x, name, target=_target(targets, bool(softmax)), **layer, **(xai_lib_kwargs or {}), **options
    )
    if reduce_axes is None:
        heat = answer.heatmap()
        return (heat[:, None] if keepdims else heat).cpu().numpy()
    channels = int(x.shape[1])
    if not reduce_axes:
        return on_input(answer, channels).cpu().numpy()
    values: np.ndarray = on_grid(answer, channels).cpu().numpy()
    return np.asarray(values.sum(axis=tuple(reduce_axes), keepdims=keepdims))


def _target(targets: Any, softmax: bool) -> Any:  # noqa: ANN401  (numbers of any library)
    """Return whence's target, or targets, for Quantus' class numbers."""
    found = np.asarray(targets).reshape(-1).tolist()
    found = [f"probability:{index}" for index in found] if softmax else found
    return found[0] if np.ndim(targets) == 0 else found
