"""How far a cell of a layer's map looks in effect: the effective receptive field.

Luo, Li, Urtasun and Zemel, NIPS 2016, arXiv:1701.04128: most of what a cell hangs on lies in the middle of what it
could see.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from whence.errors import ModelError
from whence.interpretable.measures.layer import layer_of
from whence.interpretable.measures.receptive import receptive_fields
from whence.models.classifier import Classifier
from whence.models.session import Session, chunk_size, move, opened
from whence.models.taps import ended_at


def effective_radius(model: Classifier | nn.Module, x: Float[Tensor, "b c h w"], layer: str | None = None) -> float:
    """Return the standard deviation per axis, in pixels, of |d a_k / d x| about the cell in the middle of the map.

    a_k is the rectified value of filter k there; the gradient's size is summed over the input's channels and over the
    pictures, and made a distribution over the places for each filter: a filter counts alike whatever the scale of its
    values. The variance is the mean over filters and over both axes. Pictures on which a filter is silent in the
    middle count nothing for it, and one that is silent there on all of them is left out.

    It takes one backward pass a filter for each batch of pictures, from the layer on; what comes after is not run.

    Parameters
    ----------
    model
        Run in evaluation mode, and not changed.
    x
        Inputs as the model takes them; some dozens, for filters that are active in the middle.
    layer
        A path that ``whence layers`` lists. None takes the masked maps of an ``Interpretable``, and of any other
        model the layer that ``whence layers`` marks.

    Raises
    ------
    LayerError
        The layer does not exist, never runs, or has no map.
    NotFiniteError
        An input or a gradient holds NaN or infinity.
    ModelError
        No gradient of any filter flows back to the picture.
    """
    classifier = model if isinstance(model, Classifier) else Classifier(model)
    fields = receptive_fields(classifier, x, layer)
    rows, columns = (
        (torch.arange(length) - middles[len(middles) // 2]).square()
        for middles, length in zip((fields.rows, fields.columns), x.shape[2:], strict=True)
    )
    squares = (rows[:, None] + columns) / 2
    with opened(classifier) as session:
        batch = move(classifier, x)
        name = layer_of(session, batch, layer)
        parts = [_gradients(session, some, name) for some in torch.split(batch, chunk_size(batch))]
    sizes = torch.stack(parts).sum(0)
    total = sizes.sum((1, 2))
    if not bool((total > 0).any()):
        raise ModelError(
            f"no gradient flows from the middle of layer {name!r} to the picture: choose a layer that is not cut off "
            "from it, and pictures on which its filters are active"
        )
    variance = (sizes * squares).sum((1, 2)) / total
    return float(variance[total > 0].mean().sqrt())


def _gradients(session: Session, x: Float[Tensor, "b c h w"], layer: str) -> Float[Tensor, "k h w"]:
    """Return |d a_k / d x| for the cell in the middle, summed over pictures and channels, for each filter."""
    leaf = x.clone().requires_grad_()
    with torch.enable_grad():
        with ended_at(session.module, layer) as returned:
            session.run(leaf)
        maps = session.layout(layer, returned[0], x).to_maps(returned[0]).relu()
        session.finite(maps, f"the activation of layer {layer!r}")
        middle = maps[:, :, maps.shape[2] // 2, maps.shape[3] // 2].sum(0).unbind()
    sizes = torch.zeros(len(middle), *x.shape[2:], dtype=torch.float64)
    if not maps.requires_grad:
        return sizes
    for value, size in zip(middle, sizes, strict=True):
        (gradient,) = torch.autograd.grad(value, leaf, retain_graph=True, materialize_grads=True)
        session.finite(gradient, f"the gradient of layer {layer!r}")
        size += gradient.double().abs().sum((0, 1)).cpu()
    return sizes
