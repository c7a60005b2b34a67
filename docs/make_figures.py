"""The figures of the docs: `make docs-figures`.

Those of drawn creatures go into docs/figures, which is committed; those of photos into docs/figures/photos, which is
not, and only where $WHENCE_PHOTOS and $WHENCE_MODELS are set.
"""

import os
from pathlib import Path
from typing import get_args

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

import confounded
import igos
import interpretable_maps
import lrp_creatures
import lrp_listing
import lrp_photos
import sag
import saturation
import study_debug
import unknown
import whence
from whence.creatures import draw
from whence.models.classifier import Classifier
from whence.pictures.baselines import BASELINES, make_baseline
from whence.pictures.preprocess import as_seen
from whence.pictures.read import PictureSource, read
from whence.reports.figures import figures
from whence.reports.look import Look, Mode, looked

FIGURES = Path(__file__).parent / "figures"
SIDE, GAP, LINE = 200, 10, 24


def strip(titled: list[tuple[str, UInt8[np.ndarray, "h w 3"]]]) -> Image.Image:
    """Return pictures side by side, each with its name below."""
    canvas = Image.new("RGB", (len(titled) * (SIDE + GAP) + GAP, SIDE + LINE + 2 * GAP), "white")
    pen = ImageDraw.Draw(canvas)
    for index, (name, pixels) in enumerate(titled):
        left = GAP + index * (SIDE + GAP)
        canvas.paste(Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.NEAREST), (left, GAP))
        pen.text((left, SIDE + GAP + 4), name, fill="#222222", font=ImageFont.load_default(14))
    return canvas


def baselines(model: Classifier, picture: PictureSource) -> Image.Image:
    """Return a picture as the model sees it, and every baseline of it."""
    assert model.preprocess is not None
    x = model.preprocess(read(picture)).input[None]
    shown = [("the picture", as_seen(x[0], model.pixels))]
    shown += [(name, as_seen(make_baseline(name, x, model.pixels)[0, 0], model.pixels)) for name in BASELINES]
    return strip(shown)


def looks(model: Classifier, picture: PictureSource) -> Image.Image:
    """Return one map in every mode, and, where a mode takes it, with its sign."""
    contents = whence.explain(model, picture, "grad-cam")._contents()
    asked = [(mode, Look(mode)) for mode in get_args(Mode)] + [("heat-map, all", Look("heat-map", "all"))]
    shown = [(name, next(figures(looked(contents, look)))) for name, look in asked]
    return strip([(name, of.explanations[0].laid.drawn()) for name, of in shown if of is not None])


def save(image: Image.Image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, optimize=True)
    print(path)


def main() -> None:
    model = whence.load_model("creatures")
    explained = whence.explain(model, draw(3).pixels)
    (FIGURES / "grad-cam.png").write_bytes(explained._repr_png_())
    print(FIGURES / "grad-cam.png")
    species = [(model.labels[label], draw(0, label, occluders=False).pixels) for label in range(9)]
    save(strip(species), FIGURES / "creatures.png")
    save(baselines(model, draw(3).pixels), FIGURES / "baselines.png")
    save(saturation.figure(), FIGURES / "saturation.png")
    save(looks(model, draw(3).pixels), FIGURES / "looks.png")
    save(confounded.figure(), confounded.FIGURE)
    save(strip(study_debug.clusters()), FIGURES / "study-debug.png")
    save(igos.creature(), FIGURES / "igos.png")
    save(igos.creatures(), FIGURES / "igos-sheet.png")
    save(lrp_creatures.figure(), lrp_creatures.FIGURE)
    save(lrp_listing.figure(*lrp_listing.creature()), lrp_listing.FIGURE)
    save(interpretable_maps.figure(), interpretable_maps.FIGURE)
    save(unknown.figure(), unknown.FIGURE)
    sag.drawn()
    if {"WHENCE_PHOTOS", "WHENCE_MODELS"} <= set(os.environ):
        photo = Path(os.environ["WHENCE_PHOTOS"]) / "school_bus.jpg"
        real = whence.load_model(Path(os.environ["WHENCE_MODELS"]) / "mobilenetv2")
        save(baselines(real, photo), FIGURES / "photos" / "baselines.png")
        save(igos.figure(real, photo, photo.name), FIGURES / "photos" / "igos-school_bus.png")
        save(lrp_photos.drawn(real), lrp_photos.FIGURE)
        (FIGURES / "photos" / "grad-cam.png").write_bytes(whence.explain(real, photo)._repr_png_())


if __name__ == "__main__":
    main()
