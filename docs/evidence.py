"""Print the table of docs/evidence.md: every method with its evidence, seconds and passes, on real photos.

WHENCE_PHOTOS=... WHENCE_MODELS=... python docs/evidence.py --model mobilenetv2 --photos 24
"""

import argparse
from collections.abc import Sequence
from statistics import mean, median

import torch
from torch import Tensor

import whence
from photos import photos, real_model
from whence.errors import UnsupportedError
from whence.explanation import Explanation
from whence.metrics.evidence import SHARE, evidence
from whence.models.classifier import Classifier
from whence.models.session import opened
from whence.pictures.read import read

# With its 4000 masks it would take most of the time alone.
QUICK = {"rise": "rise:samples=500"}


def row(name: str, explained: Sequence[Explanation]) -> str:
    """Return one method's line of the table."""
    found = [e.evidence for e in explained if e.evidence]
    totals = [(e.passes.forward, e.passes.backward, e.passes.partial) for e in explained]
    passes = " / ".join(f"{mean(kind):.0f}" for kind in zip(*totals, strict=True))
    return (
        f"| {name} | {mean(e.removed for e in found):.3f} | {mean(e.kept for e in found):.3f} "
        f"| {median(e.seconds for e in explained):.2f} | {passes} |"
    )


def blind(model: Classifier, explained: Sequence[Explanation], kind: str) -> str:
    """Return the line of a map that knows nothing of the model."""
    found = []
    for number, explanation in enumerate(explained):
        assert model.preprocess is not None
        x = model.preprocess(read(explanation.subject.name)).input[None]
        index = int(explanation.attribution.target[0])
        with opened(model) as session:
            found += evidence(session, x, _heat(kind, x, number), [index], [index])[0]
    return f"| *{kind}* | {mean(e.removed for e in found):.3f} | {mean(e.kept for e in found):.3f} | | |"


def _heat(kind: str, x: Tensor, seed: int) -> Tensor:
    height, width = x.shape[2:]
    if kind == "places at random":
        coarse = torch.rand(1, 1, 7, 7, generator=torch.Generator().manual_seed(seed))
        return torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear")[0]
    down, across = torch.linspace(-1, 1, height), torch.linspace(-1, 1, width)
    return -(down[:, None] ** 2 + across**2)[None]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="mobilenetv2")
    parser.add_argument("--photos", type=int, default=24)
    asked = parser.parse_args()
    model, paths = real_model(asked.model), [str(path) for path in photos(asked.photos)]
    first = whence.explain(model, paths, "grad-cam")
    before = mean(e.probability for e in first)
    print(f"{model.name}, the first {len(paths)} photos, each one's top class (mean probability {before:.3f});")
    print(f"probability after removing and after keeping {SHARE:.1%} of the area;")
    print("passes forward / backward / partial.\n")
    print("| method | removed | kept | seconds | passes |")
    print("|---|---|---|---|---|")
    refused = []
    for name in whence.methods.names():
        asked_for = QUICK.get(name, name)
        try:
            print(row(asked_for, whence.explain(model, paths, asked_for)), flush=True)
        except UnsupportedError as error:
            refused.append(f"- `{name}`: {error}")
    for kind in ("places at random", "the picture's centre"):
        print(blind(model, first, kind))
    print("\nNot for this model:\n", *refused, sep="\n")


if __name__ == "__main__":
    main()
