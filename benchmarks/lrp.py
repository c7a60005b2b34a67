"""Layer-wise relevance propagation beside zennit, captum and a loop over the layers, from a batch to its maps.

Floors, in forward and backward passes to the input: epsilon 1.0; z+ needs a forward with the positive weights, 1.5;
alpha-beta one, and two transposed passes, 2.0.
"""

from collections.abc import Callable, Iterator
from copy import deepcopy

import torch
from captum.attr import LRP
from torch import Tensor, nn
from zennit.attribution import Gradient
from zennit.composites import EpsilonAlpha2Beta1Flat, EpsilonPlusFlat
from zennit.torchvision import ResNetCanonizer, VGGCanonizer

import whence
from paired import Run, paired

LIMIT = (
    "In forward and backward passes: epsilon 1.2, epsilon-plus-flat 2.0 and 1.5 times faster than zennit's, "
    "epsilon-alpha2-beta1-flat 2.6 and 1.8 times faster; the plain figure is one such pass"
)
CASES = {"resnet50": ResNetCanonizer, "vgg16": VGGCanonizer}
PEERS = {"epsilon-plus-flat": EpsilonPlusFlat, "epsilon-alpha2-beta1-flat": EpsilonAlpha2Beta1Flat}


def forward_and_backward(module: nn.Module, x: Tensor) -> Callable[[], Tensor]:
    """Return the work that all figures are multiples of: the gradient with respect to the input, and nothing else."""

    def plain() -> Tensor:
        leaf = x.clone().requires_grad_()
        return torch.autograd.grad(module(leaf).amax(1).sum(), leaf)[0]

    return plain


def zennit(module: nn.Module, x: Tensor, composite: type, canonizer: type) -> Callable[[], Tensor]:
    """Return zennit's map of the top class; batch norms are merged once, outside of what is timed."""
    own = deepcopy(module)
    attributor = Gradient(own, composite(canonizers=[canonizer()]))
    attributor.__enter__()

    def explained() -> Tensor:
        return attributor(x, lambda y: torch.zeros_like(y).scatter(1, y.argmax(1, keepdim=True), 1.0))[1]

    return explained


def layer_by_layer(module: nn.Module, x: Tensor) -> Callable[[], Tensor]:
    """Return LRP-epsilon of a plain sequence, every layer run again with a graph of its own, as tutorials do."""
    layers = [*module.features, module.avgpool, nn.Flatten(), *module.classifier]

    def explained() -> Tensor:
        values = [x]
        with torch.no_grad():
            for layer in layers:
                values.append(layer(values[-1]))
        r = torch.zeros_like(values[-1]).scatter(1, values[-1].argmax(1, keepdim=True), 1.0) * values[-1]
        for layer, a in zip(reversed(layers), reversed(values[:-1]), strict=True):
            if isinstance(layer, nn.ReLU | nn.Dropout):
                continue
            leaf = a.detach().clone().requires_grad_()
            z = layer(leaf)
            s = r / (z + 1e-6 * torch.where(z < 0, -1.0, 1.0))
            (g,) = torch.autograd.grad(z, leaf, s.detach())
            r = a * g
        return r

    return explained


def contenders(
    classifier: whence.Classifier, x: Tensor, composite: str, canonizer: type
) -> dict[str, Callable[[], object]]:
    """Return every way to draw one map of the top class."""
    module = classifier.module
    ways: dict[str, Callable[[], object]] = {
        "whence": lambda: whence.attribute(classifier, x, "lrp", composite=composite)
    }
    if composite in PEERS:
        return {**ways, "zennit": zennit(module, x, PEERS[composite], canonizer)}
    target = classifier.module(x).argmax(1)
    peer = LRP(deepcopy(module))
    ways["captum"] = lambda: peer.attribute(x, target=target)
    if canonizer is VGGCanonizer:
        ways["layer by layer"] = layer_by_layer(module, x)
    return ways


def runs(rounds: int, repeats: int) -> Iterator[tuple[str, int, Run]]:
    """Yield each architecture's run at batch 1 and 8."""
    for name, canonizer in CASES.items():
        classifier = whence.load_model(f"torchvision:{name}", weights="random")
        for parameter in classifier.module.parameters():
            parameter.requires_grad = False
        # In-place rectifiers stop captum and zennit's hooks; the work is the same.
        for layer in classifier.module.modules():
            if isinstance(layer, nn.ReLU):
                layer.inplace = False
        for batch in (1, 8):
            x = torch.randn(batch, 3, 224, 224, generator=torch.Generator().manual_seed(0))
            for composite in ("epsilon", *PEERS):
                work = contenders(classifier, x, composite, canonizer)
                plain = forward_and_backward(classifier.module, x)
                yield f"{name}, {composite}", batch, paired(plain, work, min(rounds, 3), 1)
