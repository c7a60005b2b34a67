"""Integrated Gradients on a real model and photos: the error of each map beside its time, as multiples of a forward.

`python benchmarks/integrated_gradients.py` needs $WHENCE_MODELS and $WHENCE_PHOTOS.
"""

import argparse
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from captum.attr import IntegratedGradients
from torch import Tensor

import whence
from paired import Run, paired
from whence.pictures.read import read

PHOTOS = ("african_elephant", "espresso", "goldfinch", "harvestman")
# Captum's 50 steps at each of these sizes; its best is what counts.
INTERNAL_BATCHES = (4, 8, 16, 1)
LIMIT = 2.0
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


def runs(
    photos: tuple[str, ...], batches: int, rounds: int, repeats: int
) -> Iterator[tuple[str, dict[str, float], Run]]:
    """Yield for each photo the maps' errors and a paired run, at the model's own input size."""
    model = whence.load_model(Path(os.environ["WHENCE_MODELS"]) / "mobilenetv2")
    assert model.preprocess is not None
    for photo in photos:
        x = model.preprocess(read(Path(os.environ["WHENCE_PHOTOS"]) / f"{photo}.jpg")).input[None]
        fine = whence.attribute(model, x, "integrated-gradients", **REFERENCE)
        work = contenders(model, x, int(fine.target[0]))
        work = dict(list(work.items())[: batches + 1])
        errors = {name: error(call(), fine.values) for name, call in work.items()}

        def plain(x: Tensor = x) -> object:
            with torch.no_grad():
                return model.module(x)

        yield photo, errors, paired(plain, work, rounds, repeats)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--photos", default=",".join(PHOTOS))
    parser.add_argument("--batches", type=int, default=len(INTERNAL_BATCHES), help="how many of captum's sizes")
    asked = parser.parse_args()
    print(
        f"Integrated Gradients against captum's 50 steps, {torch.get_num_threads()} threads; wall time as a multiple"
    )
    print("of one plain no-gradient forward (by CPU time), and the map's error against 729 midpoints.")
    print(f"whence is to be {LIMIT} times faster than captum at its best, with no larger error.\n")
    for photo, errors, run in runs(tuple(asked.photos.split(",")), asked.batches, asked.rounds, asked.repeats):
        spread = f"spread {run.spread:.0%}" + ("" if run.trusted else ", not counted")
        print(f"{photo}: plain forward {run.plain_ms:.1f} ms, {spread}")
        for name, figure in run.figures.items():
            print(f"  {name:20s} {figure.wall:7.1f} ({figure.cpu:.1f})  error {errors[name]:.3f}")
        walls = {name: figure.wall for name, figure in run.figures.items()}
        ours = walls.pop("whence")
        print(f"  captum at its best / whence: {min(walls.values()) / ours:.2f}", flush=True)


if __name__ == "__main__":
    main()
