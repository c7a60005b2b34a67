"""Print the tables of docs/lrp.md on photos, and draw their figure into the folder that is not committed.

WHENCE_PHOTOS=... WHENCE_MODELS=... python docs/lrp_photos.py
"""

from pathlib import Path

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

import whence
from lrp_maps import coloured, ranks_alike, sheet
from photos import outside, real_model
from whence.errors import NotFiniteError
from whence.models.classifier import Classifier
from whence.pictures.preprocess import as_seen
from whence.pictures.read import read
from whence.results import Attribution

FIGURE = Path(__file__).parent / "figures" / "photos" / "lrp.png"
MODEL, PHOTOS = "mobilenetv2", ("zebra", "goldfinch", "school_bus")
COMPOSITES = (
    "auto",
    "lrp-0",
    "epsilon-plus",
    "epsilon-plus-flat",
    "epsilon-alpha2-beta1-flat",
    "excitation-backprop",
    "cp-lrp",
    "montavon",
)
# What is explained: the options of `lrp`, by the name of a row.
CASES = {
    **{composite: {"composite": composite} for composite in COMPOSITES},
    "auto, ignore": {"bias": "ignore"},
    "epsilon-plus-flat, ignore": {"composite": "epsilon-plus-flat", "bias": "ignore"},
    "lrp-0, ignore": {"composite": "lrp-0", "bias": "ignore"},
    "auto, distribute": {"bias": "distribute"},
    "epsilon-plus-flat, distribute": {"composite": "epsilon-plus-flat", "bias": "distribute"},
    "auto, sglrp": {"start": "sglrp"},
    "epsilon-plus-flat, sglrp": {"composite": "epsilon-plus-flat", "start": "sglrp"},
}


def inputs(model: Classifier) -> Float[Tensor, "b c h w"]:
    """Return the photos as the model sees them."""
    assert model.preprocess is not None
    return torch.stack([model.preprocess(read(outside("WHENCE_PHOTOS") / f"{name}.jpg")).input for name in PHOTOS])


def explained(model: Classifier, x: Float[Tensor, "b c h w"]) -> dict[str, Attribution | None]:
    """Return the answer for each case; None where numbers overflow."""
    found: dict[str, Attribution | None] = {}
    for name, options in CASES.items():
        try:
            found[name] = whence.attribute(model, x, "lrp", **options)
        except NotFiniteError:
            found[name] = None
    return found


def row(name: str, answer: Attribution, second: Attribution) -> str:
    """Return one line of the table: what was handed back, and how much the second class's map is like it."""
    of = answer.balance
    assert of is not None

    def said(amount: Tensor) -> str:
        # A contrast starts with nothing, of which nobody has a share.
        return " / ".join(f"{share:.3g}" for share in (amount / of.start).tolist()) if of.start.min() > 1e-3 else "-"

    pairs = zip(answer.heatmap(), second.heatmap(), strict=True)
    alike = " / ".join(f"{ranks_alike(*pair):.2f}" for pair in pairs)
    return f"| {name} | {said(of.input)} | {said(of.bias)} | {said(of.stabiliser)} | {alike} |"


def table(model: Classifier, x: Float[Tensor, "b c h w"], found: dict[str, Attribution | None]) -> str:
    """Return the shares of what was started with, and how much a map is like that of the second class."""
    lines = ["| | input | biases | stabilisers | like the second class's |", "|---" * 5 + "|"]
    for name, answer in found.items():
        if answer is None:
            lines.append(f"| {name} | overflows | | | |")
        else:
            second = whence.attribute(model, x, "lrp", target="second", **CASES[name])
            lines.append(row(name, answer, second))
    return "\n".join(lines)


def figure(model: Classifier, found: dict[str, Attribution | None]) -> Image.Image:
    """Return the photos with all their maps: a row for each case, empty where numbers overflow."""
    x = inputs(model)
    seen = [as_seen(one, model.pixels) for one in x]
    rows = [("", seen)]
    for name, answer in found.items():
        heat = torch.zeros(len(x), *x.shape[2:]) if answer is None else answer.heatmap()
        rows.append((name, [coloured(one) for one in heat]))
    return sheet(PHOTOS, rows)


def drawn(model: Classifier) -> Image.Image:
    """Return the figure."""
    return figure(model, explained(model, inputs(model)))


def main() -> None:
    model = real_model(MODEL)
    x = inputs(model)
    found = explained(model, x)
    print(f"{model.name}: {' / '.join(PHOTOS)}\n\n{table(model, x, found)}")
    FIGURE.parent.mkdir(parents=True, exist_ok=True)
    figure(model, found).save(FIGURE, optimize=True)


if __name__ == "__main__":
    main()
