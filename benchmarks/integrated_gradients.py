"""Integrated Gradients on a real model and photos: the whole call, and its map's error against 729 midpoints."""

from collections.abc import Callable, Iterator

from captum.attr import IntegratedGradients
from torch import Tensor

import whence
from paired import Run, outside, paired, plain_forward
from whence.pictures.read import read

PHOTOS = ("african_elephant", "espresso", "goldfinch", "harvestman")
# Captum's 50 steps at each of these sizes; its best is what counts.
INTERNAL_BATCHES = (4, 8, 16, 1)
LIMIT = "twice as fast as captum's 50 steps at its best, with no larger error on the mean of many photos"
REFERENCE = {"rule": "midpoint", "steps": 729, "tol": None}


def contenders(model: whence.Classifier, x: Tensor, target: int) -> dict[str, Callable[[], Tensor]]:
    """Return the same explanation by whence and by captum, from a tensor to a map."""
    captum = IntegratedGradients(model.module)

    def theirs(batch: int) -> Callable[[], Tensor]:
        return lambda: captum.attribute(x, target=target, n_steps=50, internal_batch_size=batch)

    return {
        "whence": lambda: whence.attribute(model, x, "integrated-gradients", target=target).values,
        **{f"captum, {batch} at once": theirs(batch) for batch in INTERNAL_BATCHES},
    }


def error(found: Tensor, reference: Tensor) -> float:
    """Return how far a map is from the finer one, relative (L2)."""
    return float((found - reference).norm() / reference.norm())


def runs(rounds: int, repeats: int) -> Iterator[tuple[str, int, Run]]:
    """Yield for each photo the maps' errors and a paired run, at the model's own input size."""
    model = whence.load_model(outside("WHENCE_MODELS", "models") / "mobilenetv2")
    assert model.preprocess is not None
    for photo in PHOTOS:
        x = model.preprocess(read(outside("WHENCE_PHOTOS", "photos") / f"{photo}.jpg")).input[None]
        fine = whence.attribute(model, x, "integrated-gradients", **REFERENCE)
        work = contenders(model, x, int(fine.target[0]))
        ours, theirs = (error(work[name](), fine.values) for name in list(work)[:2])

        run = paired(plain_forward(model.module, x), work, min(rounds, 3), 1)
        yield f"{photo}, error {ours:.3f} against captum's {theirs:.3f}", 1, run
