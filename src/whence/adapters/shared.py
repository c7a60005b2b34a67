"""What the adapters share: models, layers and methods as other libraries name them."""

from collections.abc import Iterable

from jaxtyping import Float
from torch import Tensor, nn

from whence.errors import LayerError, ModelError
from whence.models.classifier import Classifier
from whence.registry import METHODS
from whence.results import Attribution


def classifier_of(model: object) -> Classifier:
    """Return the model as a Classifier.

    Raises
    ------
    ModelError
        It is a function, which has no layers to look into.
    """
    if isinstance(model, nn.Module):
        return Classifier(model)
    if not isinstance(model, Classifier):
        raise ModelError(
            f"{type(model).__name__} is no torch.nn.Module: give the module itself, no function around it"
        )
    return model


def layer_name(classifier: Classifier, layer: nn.Module | str) -> str:
    """Return the dotted name under which the model holds a layer; a name stays as it is.

    Raises
    ------
    LayerError
        The module is none of the model's.
    """
    if isinstance(layer, str):
        return layer
    named = classifier.module.named_modules()
    found: str | None = next((name for name, module in named if module is layer and name), None)
    if found is None:
        raise LayerError(
            f"the layer {type(layer).__name__} is no part of {classifier.name}: give one of its own modules, "
            "or a name that `whence layers` lists"
        )
    return found


def spelt(method: str) -> str:
    """Return a method's name as a class of any library spells it, without hyphens and capitals."""
    return method.replace("+", "plus").replace("-", "").lower()


def method_of(name: str, among: Iterable[str] | None = None) -> str | None:
    """Return the method that a class name or a method's own name means, None where it is none."""
    known = METHODS.names() if among is None else among
    return next((method for method in known if name == method or spelt(method) == spelt(name)), None)


def on_input(answer: Attribution, channels: int) -> Float[Tensor, "b c H W"]:
    """Return the values on the input's grid and in its channels; a map with one channel is repeated in each."""
    if tuple(answer.values.shape[1:]) == (channels, *answer.input_size):
        return answer.values
    return answer.heatmap()[:, None].expand(-1, channels, -1, -1)
