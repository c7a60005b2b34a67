"""grad-cam's call, whence's numbers: ``from whence.adapters.grad_cam import GradCAM, ClassifierOutputTarget``.

There is a class for every method that makes one map of a layer, named as grad-cam names it: ``GradCAM``,
``GradCAMPlusPlus``, ``XGradCAM``, ``LayerCAM``, ``HiResCAM``, ``EigenCAM``, ``ScoreCAM``, ``AblationCAM`` and so on.
A call returns what grad-cam's does, [B, H, W] in [0, 1], made of the method's own map: its positive part, each
picture from its least to its largest value, bilinear on the input, the mean over the layers.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from types import TracebackType
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Float32
from torch import Tensor, nn

from whence.adapters.shared import classifier_of, layer_name, method_of
from whence.attribution import attribute
from whence.errors import LayerError, OptionError, TargetError, nearest
from whence.methods.eigen_cam import first_component
from whence.models.outputs import logits_of
from whence.models.session import move, opened
from whence.models.targets import TargetSpec, per_picture
from whence.registry import METHODS
from whence.results import Attribution

# grad-cam's own, so that a map divided by its largest value is the same number.
_EPSILON = 1e-7
_CONTRASTS = (0.9, 1.0, 1.1)


@dataclass(frozen=True)
class ClassifierOutputTarget:
    """A class, by its number."""

    category: int

    def __call__(self, model_output: Float[Tensor, "*b k"]) -> Float[Tensor, "*b"]:
        """Return the class's logit in one picture's output, or in each one's."""
        return model_output[..., self.category]


class BaseCAM:
    """One method, called as grad-cam calls it; a class of this module each.

    Parameters
    ----------
    model
        A module that classifies pictures, or a Classifier; it is not changed, and need not be in eval mode.
    target_layers
        Modules of the model, or their dotted names.
    reshape_transform
        Not needed: where in a layer's output the places lie is found out.
    """

    of: ClassVar[str]
    batch_size: int | None = None

    def __init__(
        self,
        model: object,
        target_layers: Sequence[nn.Module | str] | nn.Module | str,
        reshape_transform: Callable[..., Any] | None = None,
    ) -> None:
        if isinstance(target_layers, str | nn.Module) or not target_layers:
            raise LayerError("target_layers: give a list with at least one layer")
        self.classifier = classifier_of(model, self.of)
        self.layers = tuple(layer_name(self.classifier, layer) for layer in target_layers)
        self._input: Tensor | None = None
        if reshape_transform is not None:
            warnings.warn("reshape_transform is not needed, and not called: layouts are found out", stacklevel=2)

    def __call__(
        self,
        input_tensor: Float[Tensor, "b c h w"],
        targets: Sequence[Any] | None = None,
        aug_smooth: bool = False,
        eigen_smooth: bool = False,
    ) -> Float32[np.ndarray, "b h w"]:
        """Return the maps of a batch, [B, H, W] in [0, 1].

        Parameters
        ----------
        input_tensor
            [B, C, H, W], as the model takes it.
        targets
            One a picture: a ``ClassifierOutputTarget`` (ours or grad-cam's), a callable from one picture's logits
            [K] to a number, or one of whence's own targets; None for each picture's top class.
        aug_smooth
            Take the mean over the picture and its mirror image at three contrasts; the class stays that of the
            unchanged picture.
        eigen_smooth
            Take the first principal component of the weighed channels in place of their sum, with the sum's sign.

        Raises
        ------
        OptionError
            ``eigen_smooth`` of a method whose channels have no weights.
        WhenceError
            As ``whence.attribute``.
        """
        self._input = input_tensor
        asked = None if targets is None else [_target(target) for target in targets]
        if not aug_smooth:
            return self._maps(input_tensor, asked, eigen_smooth).cpu().numpy()
        asked = self._settled(input_tensor, asked)
        maps = []
        for factor in _CONTRASTS:
            maps.append(self._maps(factor * input_tensor, asked, eigen_smooth))
            maps.append(self._maps(factor * input_tensor.flip(-1), asked, eigen_smooth).flip(-1))
        return torch.stack(maps).mean(0).cpu().numpy()

    def __enter__(self) -> "BaseCAM":
        """Return this; nothing is held that would have to be released."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let every error through."""

    @property
    def outputs(self) -> Any:  # noqa: ANN401  (modules return anything)
        """What the model returns for the last batch; run anew."""
        if self._input is None:
            raise OptionError("outputs: there are none before the first call")
        with opened(self.classifier) as session:
            return session.run(move(self.classifier, self._input))

    def _settled(self, x: Float[Tensor, "b c h w"], target: list[TargetSpec] | None) -> list[TargetSpec]:
        """Return each picture's target with its classes as the unchanged picture has them."""
        targets = per_picture(target, len(x))
        with opened(self.classifier) as session:
            return session.fixed(session.run(session.arranged(move(self.classifier, x))), targets)

    def _attributed(
        self, x: Float[Tensor, "b c h w"], target: list[TargetSpec] | None, layers: tuple[str, ...]
    ) -> Attribution:
        options: dict[str, object] = {"layer": layers if len(layers) > 1 else layers[0]}
        if self.batch_size is not None and "batch" in METHODS.facts(self.of).options:
            options["batch"] = self.batch_size
        return attribute(self.classifier, x, self.of, target=target, **options)

    def _maps(
        self, x: Float[Tensor, "b c h w"], target: list[TargetSpec] | None, eigen_smooth: bool
    ) -> Float32[Tensor, "b h w"]:
        if eigen_smooth:
            found = [_component(self._attributed(x, target, (layer,))) for layer in self.layers]
        else:
            answer = self._attributed(x, target, self.layers)
            found = [values[:, 0] for values in answer.layers.values()] or [answer.values[:, 0]]
        size = (x.shape[2], x.shape[3])
        spread = [
            F.interpolate(_scaled(cam.clamp(min=0))[:, None], size=size, mode="bilinear", align_corners=False)
            for cam in found
        ]
        return _scaled(torch.cat(spread, dim=1).mean(1)).float()


def _scaled(maps: Float[Tensor, "b h w"]) -> Float[Tensor, "b h w"]:
    """Return each picture's map from 0 at its least value to 1 at its largest."""
    above = maps - maps.amin((1, 2), keepdim=True)
    return above / (above.amax((1, 2), keepdim=True) + _EPSILON)


def _component(answer: Attribution) -> Float[Tensor, "b h w"]:
    """Return the first principal component of the weighed channels over the places, with the sign of their sum."""
    if answer.weights is None or answer.activation is None:
        raise OptionError(f"eigen_smooth: {answer.method} has no weight for each channel, leave it out")
    a = (answer.weights[:, :, None, None] * answer.activation).flatten(2).mT
    along = ((a - a.mean(1, keepdim=True)) @ first_component(a)[:, :, None])[:, :, 0]
    total = a.sum(2)
    with_it = (along * (total - total.mean(1, keepdim=True))).sum(1, keepdim=True)
    return (along * torch.where(with_it < 0, -1.0, 1.0)).reshape(answer.activation[:, 0].shape)


def _target(target: Any) -> TargetSpec:  # noqa: ANN401  (grad-cam's, a user's or whence's)
    """Return whence's target for one of grad-cam's.

    Others of grad-cam's targets have a category too, and measure something else of it: they are called.
    """
    if target is None or isinstance(target, int | str):
        return target
    if type(target).__name__ == "ClassifierOutputTarget" or (hasattr(target, "category") and not callable(target)):
        return int(target.category)
    if not callable(target):
        raise TargetError(
            f"target {target!r} is no ClassifierOutputTarget, and cannot be called on a picture's output"
        )
    return lambda output: torch.stack([target(row) for row in logits_of(output)])


@cache
def _class(name: str, method: str) -> type[BaseCAM]:
    """Return the class of one method."""
    about = f"grad-cam's call of ``{method}``.\n\n{METHODS.facts(method).sentence}"
    return type(name, (BaseCAM,), {"of": method, "__doc__": about, "__module__": __name__})


def __getattr__(name: str) -> Any:  # noqa: ANN401
    """Return the class that a method is called by."""
    if not name[:1].isupper():
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    known = [
        m for m in METHODS.names() if METHODS.facts(m).family == "activation" and METHODS.facts(m).needs == "layer"
    ]
    method = method_of(name, known)
    if method is None:
        raise AttributeError(f"there is no method {name!r} for grad-cam's call: {nearest(name, known)}")
    return _class(name, method)
