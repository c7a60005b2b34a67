"""Ablation-CAM: the floor is one forward pass, and the tail once a channel where it is not linear.

grad-cam runs the net from the picture on for every channel, but for the layer itself. It is timed on the first
channels of each layer, and scaled to all of them.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import torch
from pytorch_grad_cam import AblationCAM
from pytorch_grad_cam.ablation_layer import AblationLayer
from torch import Tensor, nn

import whence
from paired import Figure, Run, paired, plain_forward

# The last block of each net, and layers inside it. The block is
# named, not the stage that holds it and whose output is the same: grad-cam puts its own layer in the place of the one
# named, and so leaves out what stands inside.
CASES = (
    ("mobilenet_v2", "features.18"),
    ("resnet50", "layer4.2"),
    ("convnext_tiny", "features.7"),
    ("resnet50", "layer4.2.conv1"),
    ("convnext_tiny", "features.7.2.block.0"),
)
LIMIT = "10 forwards at the last block, 20 times faster than grad-cam inside it"
# grad-cam takes 32 channels at once by default.
MEASURED = 64


class First(AblationLayer):
    """grad-cam's layer, told to ablate the first channels alone."""

    def activations_to_be_ablated(self, activations: object, ratio_channels_to_ablate: float = 1.0) -> np.ndarray:
        self.indices = np.arange(MEASURED)
        return self.indices


def contenders(classifier: whence.Classifier, x: Tensor, layer: str) -> dict[str, Callable[[], object]]:
    """Return the whole map by whence, and grad-cam's first channels and its forward passes around them."""
    module: nn.Module = classifier.module
    peer = AblationCAM(module, [module.get_submodule(layer)], ablation_layer=First())
    return {
        "whence": lambda: whence.attribute(classifier, x, "ablation-cam", layer=layer),
        "grad-cam": lambda: peer(input_tensor=x, targets=None),
    }


def scaled(peer: Figure, channels: int) -> Figure:
    """Return the peer's figure for all channels; two of its forwards are no loop."""

    def whole(multiple: float) -> float:
        return 2 + (multiple - 2) * channels / MEASURED

    return Figure(whole(peer.wall), whole(peer.least), whole(peer.most), whole(peer.cpu))


def runs(rounds: int, repeats: int) -> Iterator[tuple[str, int, Run]]:
    """Yield a paired run for each net and layer, on random weights and one picture of 224 pixels."""
    x = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    for name, layer in CASES:
        classifier = whence.load_model(f"torchvision:{name}", weights="random")
        module: nn.Module = classifier.module

        channels = whence.attribute(classifier, x, "ablation-cam", layer=layer).weights.shape[1]
        run = paired(plain_forward(module, x), contenders(classifier, x, layer), min(rounds, 3), min(repeats, 2))
        figures = run.figures | {"grad-cam": scaled(run.figures["grad-cam"], channels)}
        yield f"{name} {layer}, {channels} channels", 1, replace(run, figures=figures)
