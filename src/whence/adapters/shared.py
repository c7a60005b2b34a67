"""What the adapters share: models, layers and methods as other libraries name them."""

from collections.abc import Iterable

from jaxtyping import Float
from torch import Tensor, nn

from whence.errors import LayerError, ModelError
from whence.models.classifier import Classifier
from whence.registry import METHODS
from whence.results import Attribution

# Classes of Captum's, by which Quantus names its methods too, whose names are not the methods' own.
CAPTUM_NAMES = {"Saliency": "gradient", "LayerGradCam": "grad-cam"}


def classifier_of(model: object, method: str) -> Classifier:
    """Return the model as a Classifier for a method.

    Raises
    ------
    ModelError
        It is a function, into which the method would have to look.
    """
    if isinstance(model, nn.Module):
        return Classifier(model)
    if callable(model) and not isinstance(model, type | Classifier) and METHODS.facts(method).needs == "scores":
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


def on_grid(answer: Attribution, channels: int) -> Float[Tensor, "b c H W"]:
    """Return the values on the input's grid: in its channels where the method has a value for each, else one map."""
    if tuple(answer.values.shape[1:]) == (channels, *answer.input_size):
        return answer.values
    return answer.heatmap()[:, None]


def on_input(answer: Attribution, channels: int) -> Float[Tensor, "b c H W"]:
    """Return the values on the input's grid and in its channels; a map with one channel is repeated in each."""
    return on_grid(answer, channels).expand(-1, channels, -1, -1)
