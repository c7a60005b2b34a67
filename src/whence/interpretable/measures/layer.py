"""Which layer's filters are measured."""

from torch import Tensor

from whence.models.masked.wrapper import Interpretable
from whence.models.session import Session


def layer_of(session: Session, x: Tensor, layer: str | None) -> str:
    """Return the layer asked for; if none is, the mask of an ``Interpretable``, or the layer chosen."""
    if layer is None and isinstance(session.module, Interpretable):
        return "interpretable"
    return session.layers(layer, x)[0]
