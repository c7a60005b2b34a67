"""Print the table of docs/methods/integrated-gradients.md: how far each rule's map is from 729 midpoints.

WHENCE_PHOTOS=... WHENCE_MODELS=... python docs/quadrature.py
"""

import whence
from photos import outside, real_model
from whence.pictures.read import read

PHOTOS = ("african_elephant", "espresso", "goldfinch", "harvestman")
BASELINES = ("zeros", "black")
RULES = (("gauss-legendre", 50), ("midpoint", 42), ("graded", 42))


def main() -> None:
    model = real_model("mobilenetv2")
    assert model.preprocess is not None
    print("| photo, baseline | " + " | ".join(f"{rule}, {steps}" for rule, steps in RULES) + " |")
    print("|---|" + "---|" * len(RULES))
    for photo in PHOTOS:
        x = model.preprocess(read(outside("WHENCE_PHOTOS") / f"{photo}.jpg")).input[None]
        for baseline in BASELINES:
            fine, *found = (
                whence.attribute(
                    model, x, "integrated-gradients", rule=rule, steps=steps, tol=None, baseline=baseline
                ).values
                for rule, steps in (("midpoint", 729), *RULES)
            )
            errors = (f"{float((values - fine).norm() / fine.norm()):.3f}" for values in found)
            print(f"| {photo}, {baseline} | " + " | ".join(errors) + " |", flush=True)


if __name__ == "__main__":
    main()
