"""The wrapper that makes one layer of any CNN interpretable, and can be taken off."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from whence.errors import LayerError, ModelError, OptionError
from whence.models.classifier import Classifier
from whence.models.masked.categories import Categories
from whence.models.masked.mask import Mask, Rectified
from whence.models.masked.templates import Beta, Centre
from whence.models.session import move, opened
from whence.models.taps import passed_through, replaced
from whence.models.wrapped import Wrapped, WrapperForm, refuse_keys


class Behind(nn.Module):
    """What stands behind the layer: ``added``, a convolution with a rectifier or nothing, and the ``mask``.

    ``categories`` is there where classes were given.
    """

    def __init__(self, added: nn.Module, mask: Mask, categories: Categories | None) -> None:
        super().__init__()
        self.added, self.mask, self.categories = added, mask, categories

    def forward(self, x: Float[Tensor, "b k h w"]) -> Float[Tensor, "b k h w"]:
        """Return the masked maps."""
        out: Tensor = self.mask(self.added(x))
        return out


class Interpretable(Wrapped):
    """A model whose ``layer`` goes through ``interpretable``, a module of ours, in every forward pass.

    Nothing is patched into ``model``: the layer's output is replaced while this module's ``forward`` runs, and the
    model alone returns what it always did: ``plain()`` is it, without mask and added layer. The state dict holds the
    model's own keys, unchanged, and ours under ``interpretable.``; it loads into a wrapper, and without ours into the
    model. Wrap first, then hand the wrapper to DistributedDataParallel or ``torch.compile``.
    """

    ours = "interpretable"
    form: "Form"

    def __init__(self, model: nn.Module, form: "Form", behind: Behind) -> None:
        super().__init__()
        self.model, self.form, self.interpretable = model, form, behind
        for module in (self, *behind.modules()):
            module.training = model.training

    def forward(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401  (models take and return anything)
        """Return what the model returns, its layer's output replaced.

        Raises
        ------
        LayerError
            The layer no longer exists, or returns no map of the right shape.
        """
        with replaced(self.model, self.form.layer, self.interpretable):
            return self.model(*args, **kwargs)

    @contextmanager
    def recording(self) -> Iterator[list[Tensor]]:
        """Collect the rectified maps before the mask, one [B, K, H, W] for each forward pass inside the block.

        They are part of the graph: losses of filters are taken on them. Outside such a block none is kept.

        Raises
        ------
        LayerError
            No forward pass was run inside the block.
        """
        raw: list[Tensor] = []

        def keep(_: str, maps: Tensor) -> Tensor:
            raw.append(maps)
            return maps

        with passed_through(self.interpretable, ["added"], keep):
            yield raw


@dataclass(frozen=True)
class Form(WrapperForm):
    """What a wrapper is made of, but for the model and the weights: what a model folder states of it.

    Parameters
    ----------
    layer
        Path of the module whose output is masked.
    filters
        How many maps it returns.
    classes
        Among how many classes each filter has its category; None where none are kept.
    added
        Whether a convolution with a rectifier comes before the mask.
    beta, centre
        As for ``Mask``; several slopes are one a filter.
    """

    table = "interpretable"

    layer: str
    filters: int
    classes: int | None = None
    added: bool = False
    beta: float | tuple[float, ...] = 4.0
    centre: Centre = "argmax"

    def around(self, model: nn.Module) -> Interpretable:
        """Return the model with that layer made interpretable, with categories that have seen nothing.

        Raises
        ------
        OptionError
            The numbers do not fit each other.
        """
        if isinstance(self.beta, tuple) and len(self.beta) != self.filters:
            raise OptionError(
                f"beta holds {len(self.beta)} numbers and layer {self.layer!r} has {self.filters} filters: "
                "give one each"
            )
        first = Rectified(self.filters) if self.added else nn.Identity()
        categories = None if self.classes is None else Categories(self.classes, self.filters)
        behind = Behind(first, Mask(torch.tensor(self.beta, dtype=torch.float64), self.centre), categories)
        return Interpretable(model, self, behind)


def interpretable(
    model: nn.Module,
    x: Float[Tensor, "b c h w"],
    layer: str | None = None,
    *,
    classes: int | None = None,
    added: bool | None = None,
    beta: Beta = 4.0,
    centre: Centre = "argmax",
) -> Interpretable:
    """Return the model with one layer made interpretable; the model itself is not changed.

    Parameters
    ----------
    model
        Any CNN.
    x
        Inputs such as the model takes; one forward pass shows the layer's maps.
    layer
        Path of the module whose output is masked, as ``whence layers`` lists them; None takes the last one that all
        paths from picture to score go through, so that in a residual net nothing goes past the mask.
    classes
        Among how many classes each filter has its category; None keeps no categories.
    added
        Whether a convolution of 3 x 3 with a rectifier comes before the mask. None adds it where the maps have
        values below zero, which cannot be masked. At first it is the identity.
    beta, centre
        As for ``Mask``.

    Raises
    ------
    LayerError
        The layer does not exist, does not run, or its output is no map [B, K, H, W] of more than one place.
    OptionError
        The maps are signed and ``added`` is False, ``beta`` fits no filter count, or there are too few filters.
    ModelError
        The model is wrapped for several devices or compiled, or uses keys under ``interpretable.`` itself.
    """
    classifier = Classifier(model)
    if classifier.module is not model:
        raise ModelError(
            f"{type(model).__name__} hides the model: make the module inside interpretable, then wrap it"
        )
    refuse_keys(model, Interpretable.ours)
    name, maps = _maps(classifier, x, layer)
    signed = bool((maps < 0).any())
    if signed and added is False:
        raise OptionError(
            f"layer {name!r} has values below zero, which a mask cannot take: leave added=False away, so that a "
            "convolution and a rectifier come first, or choose a layer behind a rectifier"
        )
    slopes = tuple(beta.tolist()) if isinstance(beta, Tensor) and beta.ndim else float(beta)
    made = Form(name, maps.shape[1], classes, bool(added or signed), slopes, centre).around(model)
    behind = made.interpretable.to(maps.device)
    # A moving average in half precision would stand still.
    behind.added.to(maps), behind.mask.to(maps)
    return made


def _maps(classifier: Classifier, x: Tensor, layer: str | None) -> tuple[str, Float[Tensor, "b k h w"]]:
    """Return the name of the layer asked for, or of the one chosen, and its maps."""
    with opened(classifier) as session:
        batch = move(classifier, x)
        (name,) = session.layers(layer, batch)
        maps = session.record(batch, [name]).activations[name].detach()
        layout = session.layout(name, maps, batch)
    if layout.kind != "channels-first" or layout.grid == (1, 1):
        raise LayerError(
            f"layer {name!r} returns {list(maps.shape)}: choose one whose output is a map [B, K, H, W] of more than "
            "one place"
        )
    return name, maps
