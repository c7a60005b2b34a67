"""RISE: the floor is one run for every mask, at the cost of the best batched forward; figures are multiples of it.

No peer in the [bench] extra has it. Few masks are run: the cost is the same for each.
"""

from collections.abc import Iterator
from dataclasses import replace

import torch

import whence
from paired import Run, paired, plain_forward
from score_cam import CHUNK, chunk_of, scaled

LIMIT = "1.10 of the floor"
MASKS = 128
NETS = ("mobilenet_v2", "resnet50", "convnext_tiny")


def runs(rounds: int, repeats: int) -> Iterator[tuple[str, int, Run]]:
    """Yield a paired run for each net, on random weights at 224 pixels."""
    for name in NETS:
        classifier = whence.load_model(f"torchvision:{name}", weights="random")
        x = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
        chunk = chunk_of(x)

        contenders = {"whence": lambda c=classifier, x=x: whence.attribute(c, x, "rise", samples=MASKS)}
        run = paired(plain_forward(classifier.module, chunk), contenders, rounds, repeats)
        figures = {who: scaled(figure, CHUNK / MASKS) for who, figure in run.figures.items()}
        yield f"{name}, {MASKS} masks", 1, replace(run, figures=figures)
