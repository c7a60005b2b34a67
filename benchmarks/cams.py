"""The Grad-CAM family and Eigen-CAM, from a batch to its maps: the floor of each is one forward pass."""

from collections.abc import Callable, Iterator

import torch
from pytorch_grad_cam import EigenCAM as PeerEigenCAM
from torch import Tensor

import whence
from grad_cam import LAYERS
from paired import Run, paired, plain_forward

LIMIT = "1.10 forwards each; eigen-cam 8 times faster than grad-cam's, 6 times on ConvNeXt"
FAMILY = ("grad-cam++", "xgrad-cam", "layer-cam", "hires-cam", "eigen-cam")


def contenders(classifier: whence.Classifier, x: Tensor, layer: str) -> dict[str, Callable[[], object]]:
    """Return whence's methods, and the peer's Eigen-CAM."""
    peer = PeerEigenCAM(model=classifier.module, target_layers=[classifier.module.get_submodule(layer)])

    def explained(name: str) -> Callable[[], object]:
        return lambda: whence.attribute(classifier, x, name)

    return {
        **{name: explained(name) for name in FAMILY},
        "grad-cam's eigen-cam": lambda: peer(input_tensor=x, targets=None),
    }


def runs(rounds: int, repeats: int) -> Iterator[tuple[str, int, Run]]:
    """Yield a paired run for each net, one picture at a time, on random weights at 224 pixels."""
    for name, layer in LAYERS.items():
        classifier = whence.load_model(f"torchvision:{name}", weights="random")
        x = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
        module = classifier.module

        yield name, 1, paired(plain_forward(module, x), contenders(classifier, x, layer), rounds, repeats)
