"""I-GOS++: figures are multiples of one plain forward in the best batch; seconds are those of one picture.

A few steps (and points of the path) of each are run, and counted as often as the default runs them. The floor is one
run there and back for each of the default's pictures on the path. The reference is the authors' own search
(variant=igos-pp: 20 steps, 15 points, line search along the path) on the same machinery, so that the ratio is that of
the passes alone.
"""

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

import whence
from paired import Run, paired, plain_forward
from score_cam import CHUNK, chunk_of, scaled
from whence.methods.igos.objective import TERMS
from whence.methods.igos.settings import SETTINGS

LIMIT = "1.10 of the floor; a fifth of the reference"
NETS = ("mobilenet_v2", "resnet50", "convnext_tiny")
STEPS = 3
# The first of the reference's searches try more steps than later ones.
SEARCHES, POINTS = 4, 3


def runs(rounds: int, repeats: int) -> Iterator[tuple[str, int, Run]]:
    """Yield a paired run for each net, on random weights at 224 pixels."""
    default, reference = SETTINGS["area"], SETTINGS["igos-pp"]
    pictures = default.iterations * len(TERMS["igos++"]) * default.steps
    for name in NETS:
        classifier = whence.load_model(f"torchvision:{name}", weights="random")
        x = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
        chunk = chunk_of(x)

        def floor(c: whence.Classifier = classifier, chunk: Tensor = chunk) -> Tensor:
            leaf = chunk.detach().clone().requires_grad_()
            return torch.autograd.grad(c.module(leaf).softmax(1)[:, 0].sum(), leaf)[0]

        contenders = {
            "floor": floor,
            "whence": lambda c=classifier, x=x: whence.attribute(c, x, "igos++", iterations=STEPS),
            "reference": lambda c=classifier, x=x: whence.attribute(
                c, x, "igos++", variant="igos-pp", iterations=SEARCHES, steps=POINTS
            ),
        }
        run = paired(plain_forward(classifier.module, chunk), contenders, rounds, 1)
        times = {
            "floor": pictures,
            "whence": CHUNK * default.iterations / STEPS,
            "reference": CHUNK * reference.iterations / SEARCHES * reference.steps / POINTS,
        }
        figures = {who: scaled(run.figures[who], n) for who, n in times.items()}
        seconds = figures["whence"].wall * run.plain_ms / 1000 / CHUNK
        yield f"{name}, {pictures} passes there and back, {seconds:.0f} s", 1, replace(run, figures=figures)
