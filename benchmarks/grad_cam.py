"""Grad-CAM: the floor is one forward pass and the tail's backward, which is next to nothing at the last stage."""

from collections.abc import Callable, Iterator

import torch
from captum.attr import LayerGradCam
from pytorch_grad_cam import GradCAM as PeerGradCAM
from torch import Tensor, nn
from torchcam.methods import GradCAM as TorchCam

import whence
from paired import Run, paired, plain_forward

LAYERS = {"mobilenet_v2": "features", "resnet50": "layer4", "convnext_tiny": "features"}
LIMIT = "1.10 forwards"


def contenders(classifier: whence.Classifier, x: Tensor, layer: str) -> dict[str, Callable[[], object]]:
    """Return the same explanation by whence and by each peer, from a tensor to a map of the top class."""
    module: nn.Module = classifier.module
    target = module.get_submodule(layer)
    with torch.no_grad():
        top = module(x).argmax(1)
    peer = PeerGradCAM(model=module, target_layers=[target])
    captum = LayerGradCam(module, target)

    def torch_cam() -> object:
        with TorchCam(module, target_layer=target) as extractor:
            return extractor(top.tolist(), module(x))

    return {
        "whence": lambda: whence.attribute(classifier, x, "grad-cam"),
        "captum": lambda: captum.attribute(x, target=top),
        "torch-cam": torch_cam,
        "grad-cam": lambda: peer(input_tensor=x, targets=None),
    }


def runs(rounds: int, repeats: int) -> Iterator[tuple[str, int, Run]]:
    """Yield a paired run for each net and batch size, on random weights at 224 pixels."""
    for name, layer in LAYERS.items():
        classifier = whence.load_model(f"torchvision:{name}", weights="random")
        for batch in (1, 8):
            x = torch.randn(batch, 3, 224, 224, generator=torch.Generator().manual_seed(0))
            module = classifier.module

            yield name, batch, paired(plain_forward(module, x), contenders(classifier, x, layer), rounds, repeats)
