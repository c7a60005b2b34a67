"""Score-CAM: the floor is one run for every channel that is not constant, at the cost of the best batched forward.

Figures are multiples of that floor. grad-cam runs a part of the channels, and is scaled to all of them.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
from pytorch_grad_cam import ScoreCAM as PeerScoreCAM
from torch import Tensor, nn

import whence
from paired import Figure, Run, outside, paired, plain_forward
from whence.pictures.read import read

LIMIT = "1.15 of the floor; 3 times faster than grad-cam on MobileNetV2 with real weights"
CHUNK = 8
CHANNELS = 64
PHOTOS = ("affenpinscher.jpg", "espresso.jpg")


def cases() -> Iterator[tuple[str, whence.Classifier, Tensor]]:
    """Yield nets with a picture: the real one on photos, where they are, and a drawn one on noise."""
    photos, models = outside("WHENCE_PHOTOS", "photos"), outside("WHENCE_MODELS", "models")
    if photos.is_dir() and models.is_dir():
        classifier = whence.load_model(models / "mobilenetv2")
        for name in PHOTOS:
            yield f"MobileNetV2, {name}", classifier, classifier.preprocess(read(photos / name)).input[None]
    noise = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    yield "resnet18, noise", whence.load_model("torchvision:resnet18", weights="random"), noise


def scaled(figure: Figure, factor: float) -> Figure:
    """Return a figure as a multiple of something else than the plain forward beside it."""
    return Figure(figure.wall * factor, figure.least * factor, figure.most * factor, figure.cpu * factor)


def chunk_of(x: Tensor) -> Tensor:
    """Return as many copies of a picture as run best at once, in the order in which they run best."""
    return x.repeat(CHUNK, 1, 1, 1).contiguous(memory_format=torch.channels_last)


def runs(rounds: int, repeats: int) -> Iterator[tuple[str, int, Run]]:
    """Yield a paired run for each net and picture; each contender runs for many seconds, so that few rounds do."""
    for name, classifier, x in cases():
        module: nn.Module = classifier.module
        found = whence.attribute(classifier, x, "score-cam", variant="logit")
        count, live = found.weights.shape[1], found.passes.forward - 2
        layer = module.get_submodule(found.layer)
        peer = PeerScoreCAM(module, [layer], reshape_transform=lambda a: a[:, :CHANNELS])
        chunk = chunk_of(x)

        contenders: dict[str, Callable[[], object]] = {
            "whence": lambda c=classifier, x=x: whence.attribute(c, x, "score-cam", variant="logit"),
            "grad-cam": lambda peer=peer, x=x: peer(input_tensor=x, targets=None),
        }
        run = paired(plain_forward(module, chunk), contenders, min(rounds, 3), 1)
        floor = CHUNK / live
        figures = {
            "whence": scaled(run.figures["whence"], floor),
            "grad-cam": scaled(run.figures["grad-cam"], floor * count / CHANNELS),
        }
        yield f"{name}, {live} of {count} channels", 1, replace(run, figures=figures)
