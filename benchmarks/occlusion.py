"""Occlusion: the floor is one run for every window, at the cost of the best batched forward; figures are multiples.

captum runs at each of several numbers of windows at once; the least of its figures is the one to beat.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
from captum.attr import Occlusion
from torch import Tensor, nn

import whence
from paired import Run, paired, plain_forward
from score_cam import CHUNK, chunk_of, scaled

LIMIT = "no slower than captum at its best"
WINDOW, STRIDE = 64, 32
AT_ONCE = (1, 8, 32)
NETS = ("mobilenet_v2", "resnet50", "convnext_tiny")


def contenders(classifier: whence.Classifier, x: Tensor) -> dict[str, Callable[[], object]]:
    """Return the same map by whence and by captum, of the top class."""
    module: nn.Module = classifier.module
    with torch.no_grad():
        top = module(x).argmax(1)
    captum = Occlusion(module)
    shape, strides = (3, WINDOW, WINDOW), (3, STRIDE, STRIDE)

    def by_captum(at_once: int) -> Callable[[], object]:
        return lambda: captum.attribute(x, shape, strides=strides, target=top, perturbations_per_eval=at_once)

    peers = {f"captum, {n} at once": by_captum(n) for n in AT_ONCE}
    return {"whence": lambda: whence.attribute(classifier, x, "occlusion", window=WINDOW, stride=STRIDE), **peers}


def runs(rounds: int, repeats: int) -> Iterator[tuple[str, int, Run]]:
    """Yield a paired run for each net, on random weights at 224 pixels."""
    for name in NETS:
        classifier = whence.load_model(f"torchvision:{name}", weights="random")
        x = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
        chunk = chunk_of(x)

        run = paired(plain_forward(classifier.module, chunk), contenders(classifier, x), rounds, repeats)
        windows = whence.methods.facts("occlusion").cost({"window": WINDOW, "stride": STRIDE}, classifier).forward - 1
        figures = {who: scaled(figure, CHUNK / windows) for who, figure in run.figures.items()}
        yield f"{name}, {windows} windows", 1, replace(run, figures=figures)
