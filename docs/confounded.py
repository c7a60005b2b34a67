"""Draw the figure of docs/debugging.md: `python docs/confounded.py`.

One creature with its own tag and with another's, each as a model that learnt the tags and one that never saw one
explain what they take it for.
"""

from pathlib import Path

from PIL import Image

import whence
from lrp_maps import Pixels, coloured, sheet
from whence.creatures import LABELS, draw

FIGURE = Path(__file__).parent / "figures" / "confounded.png"
METHODS = ["grad-cam", "integrated-gradients", "lrp", "occlusion"]
MODELS = ("creatures-confounded", "creatures")
SEED, OWN, OTHER = 3, 4, 2


def row(spec: str, tag: int) -> tuple[str, list[Pixels]]:
    """Return what a model takes the creature for, and the maps of that."""
    pixels = draw(SEED, OWN, tag=tag).pixels
    explained = whence.explain(whence.load_model(spec), pixels, METHODS)
    said = f"{explained[0].label}, {explained[0].probability:.0%}"
    worn = "its own tag" if tag == OWN else f"the tag of {LABELS[tag]}"
    return f"a {LABELS[OWN]},\n{worn}\n\n{spec}:\n{said}", [pixels, *(coloured(e.heatmap()) for e in explained)]


def figure() -> Image.Image:
    """Return both models on both pictures, a row for each."""
    rows = [row(spec, tag) for spec in MODELS for tag in (OWN, OTHER)]
    return sheet(["the picture", *METHODS], rows)


def main() -> None:
    figure().save(FIGURE, optimize=True)
    print(FIGURE)


if __name__ == "__main__":
    main()
