"""Print the table of docs/stages.md, and draw its figure: Grad-CAM from the first to the last stage of one net.

    WHENCE_PHOTOS=... WHENCE_MODELS=... python docs/stages.py --photos 24

Without these variables only the figure of a drawn creature is made.
"""

import argparse
import os
from pathlib import Path
from statistics import mean

import numpy as np
from jaxtyping import UInt8
from PIL import Image

import whence
from make_figures import FIGURES, save, strip
from photos import photos, real_model
from whence.creatures import draw
from whence.explanation import Explanation
from whence.reports.figures import figures

CREATURES = ("stem", "stages.0", "stages.1", "stages.2", "top")
MOBILENET = ("blocks.0", "blocks.1", "blocks.2", "blocks.3", "blocks.4", "blocks.5", "blocks.6", "bn2")


def at(layers: tuple[str, ...]) -> list[str]:
    return [f"grad-cam:layer={layer}" for layer in layers]


def overlay(explanation: Explanation) -> UInt8[np.ndarray, "h w 3"]:
    """Return the map on the picture, as the report shows it."""
    (drawn,) = figures(explanation._contents())
    assert drawn is not None
    return drawn.explanations[0].laid.blended()


def figure(explained: list[Explanation]) -> Image.Image:
    """Return the maps of one picture side by side, each with its layer and evidence."""

    def title(e: Explanation) -> str:
        assert e.evidence is not None
        return f"{e.attribution.layer}: {e.evidence.removed:.2f} / {e.evidence.kept:.2f}"

    return strip([(title(e), overlay(e)) for e in explained])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=int, default=24)
    asked = parser.parse_args()
    creatures = whence.load_model("creatures")
    save(figure(whence.explain(creatures, draw(3).pixels, at(CREATURES))), FIGURES / "stages.png")
    if not {"WHENCE_PHOTOS", "WHENCE_MODELS"} <= set(os.environ):
        return
    model = real_model("mobilenetv2")
    explained = whence.explain(model, [str(path) for path in photos(asked.photos)], at(MOBILENET))
    bus = whence.explain(model, Path(os.environ["WHENCE_PHOTOS"]) / "school_bus.jpg", at(MOBILENET))
    save(figure(bus), FIGURES / "photos" / "stages.png")
    print(
        f"\n{model.name}, {len(explained)} photos, mean probability {mean(e[0].probability for e in explained):.3f}\n"
    )
    print("| layer | map | removed | kept |")
    print("|---|---|---|---|")
    for stage, layer in enumerate(MOBILENET):
        found = [e[stage].evidence for e in explained]
        height, width = explained[0][stage].map.shape
        removed, kept = mean(e.removed for e in found), mean(e.kept for e in found)
        print(f"| {layer} | {height} x {width} | {removed:.3f} | {kept:.3f} |")


if __name__ == "__main__":
    main()
