"""The maps of a whole set of pictures, as the measures take them."""

from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from whence.errors import OptionError
from whence.interpretable.measures.layer import layer_of
from whence.models.classifier import Classifier
from whence.models.masked.mask import Mask
from whence.models.session import chunk_size, move, opened
from whence.models.taps import recorded


def maps_of(
    model: Classifier | nn.Module,
    batches: Iterable[Tensor],
    layer: str | None = None,
    *,
    mask: Mask | None = None,
) -> Float[Tensor, "n k h w"]:
    """Return a layer's rectified maps of all pictures, on the CPU; the model runs in evaluation mode, unchanged.

    Parameters
    ----------
    model
        An ``Interpretable``, any other module, or a classifier with one.
    batches
        Inputs [B, C, H, W], all of one size, as the model takes them.
    layer
        A path that ``whence layers`` lists. None takes the masked maps of an ``Interpretable`` (those before the mask
        are ``interpretable.added``), and of any other model the layer that ``whence layers`` marks.
    mask
        Applied afterwards: what a mask alone does to the measures of a model that was trained without.

    Raises
    ------
    LayerError
        The layer does not exist, never runs, or has no map.
    OptionError
        There are no batches, or their maps are not all of one size.
    NotFiniteError
        A map holds NaN or infinity.
    """
    classifier = model if isinstance(model, Classifier) else Classifier(model)
    found = [_maps(classifier, x, layer, mask) for x in batches]
    sizes = {tuple(maps.shape[1:]) for maps in found}
    if len(sizes) != 1:
        made = " and ".join(" x ".join(map(str, size)) for size in sorted(sizes)) or "missing"
        raise OptionError(f"the maps are {made}: give at least one batch, and all pictures in one size")
    return torch.cat(found)


def _maps(
    classifier: Classifier, x: Float[Tensor, "b c h w"], layer: str | None, mask: Mask | None
) -> Float[Tensor, "b k i j"]:
    """Return the maps of one batch."""
    found = []
    with opened(classifier) as session:
        batch = move(classifier, x)
        name = layer_of(session, batch, layer)
        for some in torch.split(batch, chunk_size(batch)):
            with recorded(session.module, [name], gradients=False) as kept:
                session.run(some)
            session.finite(kept[name], f"the activation of layer {name!r}")
            maps = session.layout(name, kept[name], some).to_maps(kept[name]).relu()
            found.append((maps if mask is None else mask(maps)).cpu())
    return torch.cat(found)
