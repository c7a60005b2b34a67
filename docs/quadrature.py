"""Print the table of docs/methods/integrated-gradients.md: how far each rule's map is from 729 midpoints.

WHENCE_PHOTOS=... WHENCE_MODELS=... python docs/quadrature.py
"""

from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

import whence
from photos import outside, photos, real_model
from whence.models.classifier import Classifier
from whence.pictures.read import read

PHOTOS = ("african_elephant", "espresso", "goldfinch", "harvestman")
BASELINES = ("zeros", "black")
MANY = 24
RULES = (("gauss-legendre", 50), ("midpoint", 39), ("graded", 39))


def errors(model: Classifier, photo: Path, baseline: str) -> Float[Tensor, " rules"]:
    """Return how far each rule's map is from the fine one, relative (L2)."""
    assert model.preprocess is not None
    x = model.preprocess(read(photo)).input[None]
    fine, *found = (
        whence.attribute(model, x, "integrated-gradients", rule=rule, steps=steps, tol=None, baseline=baseline).values
        for rule, steps in (("midpoint", 729), *RULES)
    )
    return torch.stack([(values - fine).norm() / fine.norm() for values in found])


def row(name: str, baseline: str, found: Float[Tensor, " rules"]) -> str:
    """Return one line of the table."""
    return f"| {name}, {baseline} | " + " | ".join(f"{error:.3f}" for error in found.tolist()) + " |"


def main() -> None:
    model = real_model("mobilenetv2")
    print("| photo, baseline | " + " | ".join(f"{rule}, {steps}" for rule, steps in RULES) + " |")
    print("|---|" + "---|" * len(RULES))
    for photo in PHOTOS:
        for baseline in BASELINES:
            path = outside("WHENCE_PHOTOS") / f"{photo}.jpg"
            print(row(photo, baseline, errors(model, path, baseline)), flush=True)
    every = torch.stack([errors(model, photo, "zeros") for photo in photos(MANY)])
    print(row(f"mean of {MANY} photos", "zeros", every.mean(0)))
    better = [f"{(every[:, number] <= every[:, 0]).sum()}" for number in range(len(RULES))]
    print(f"at most as far as the first rule's: {', '.join(better)} of {MANY}")


if __name__ == "__main__":
    main()
