"""Draw the figures of I-GOS and I-GOS++, and print the numbers of their maps.

    WHENCE_PHOTOS=... WHENCE_MODELS=... python docs/igos.py --photo bison.jpg
    WHENCE_PHOTOS=... WHENCE_MODELS=... python docs/igos.py --sheet

The first draws one photo, a row for each method: its map, and the picture without and with only the places that the
map ranks highest. The second draws three photos, maps of several methods side by side, for each model. They go into
the folder that is not committed. Without these variables the same figure is made of drawn creatures.
"""

import argparse
import os
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

import whence
from photos import outside, real_model
from whence.creatures import draw
from whence.errors import MissingExtraError, ModelError
from whence.explanation import Explanation
from whence.metrics.evidence import SHARE
from whence.models.classifier import Classifier
from whence.pictures.preprocess import as_seen
from whence.pictures.read import PictureSource, read
from whence.reports.look import Look, Mode
from whence.reports.overlay import lay, placed
from whence.reports.words import number, percent, plain

FIGURES = Path(__file__).parent / "figures"
MODELS, CONVNEXT = ("mobilenetv2", "mobilenetv2_slim"), "torchvision:convnext_tiny"
PHOTOS = ("bison.jpg", "arabian_camel.jpg", "school_bus.jpg")
CREATURE, CREATURES = 1, (3, 8, 10)
# What is asked, by the row's name, and what it is in plain words.
WAYS = {
    "Integrated Gradients": (
        "integrated-gradients:baseline=blurred",
        "gradients summed on the way from the blurred picture, pixel by pixel",
    ),
    "Plain-gradient mask": (
        "igos:variant=paper,direction=gradient",
        "a mask that takes the class away, found along the plain gradient",
    ),
    "I-GOS, as in the paper": ("igos:variant=paper", "the same mask, found along the integrated gradient"),
    "I-GOS": ("igos", "places ranked so that the class goes soonest when they go in this order"),
    "I-GOS++": (
        "igos++",
        "places ranked so that the class goes soonest when they go, and comes soonest when they come",
    ),
}
SHEET = {"Grad-CAM": "grad-cam", "Score-CAM": "score-cam", "I-GOS": "igos", "I-GOS++": "igos++"}
SIDE, GAP, LINE, MARGIN = 192, 10, 17, 222
NAME, TEXT, SMALL = 17, 13, 12
INK, SOFT = "#1b1b22", "#595964"

Pixels = UInt8[np.ndarray, "h w 3"]


@dataclass(frozen=True)
class Tile:
    """One picture over its captions."""

    pixels: Pixels
    captions: tuple[str, ...]


@dataclass(frozen=True)
class Row:
    """What is said on the left, and the pictures to the right of it."""

    name: str
    about: tuple[str, ...]
    tiles: Sequence[Tile]


def write(pen: ImageDraw.ImageDraw, place: tuple[int, int], said: Sequence[tuple[str, int, str]], width: int) -> None:
    """Write texts, each of a size and a colour, below one another, in lines of at most ``width`` pixels."""
    left, top = place
    for text, size, colour in said:
        font, told = ImageFont.load_default(size), plain(text)
        for line in textwrap.wrap(told, int(0.97 * width * len(told) / font.getlength(told))):
            pen.text((left, top), line, fill=colour, font=font)
            top += size + 4
        top += 6


def place(canvas: Image.Image, tile: Tile, left: int, top: int) -> None:
    """Draw a picture over its captions; the pixels of a small one stay to be seen."""
    pen, font = ImageDraw.Draw(canvas), ImageFont.load_default(TEXT)
    how = Image.Resampling.NEAREST if max(tile.pixels.shape) < SIDE else Image.Resampling.LANCZOS
    canvas.paste(Image.fromarray(tile.pixels).resize((SIDE, SIDE), how), (left, top))
    for line, text in enumerate(tile.captions):
        pen.text((left, top + SIDE + 3 + line * LINE), plain(text), fill=INK, font=font)


def page(head: Row, columns: Sequence[str], rows: Sequence[Row]) -> Image.Image:
    """Return rows of pictures below the columns' names; above them the head, its picture on the left."""
    step, right = SIDE + GAP, len(columns) * (SIDE + GAP)
    deep = SIDE + GAP + LINE * max(len(tile.captions) for row in rows for tile in row.tiles)
    above = SIDE + LINE + 3 * GAP if head.tiles else 5 * LINE
    canvas = Image.new("RGB", (MARGIN + right, above + 2 * LINE + len(rows) * deep), "white")
    pen = ImageDraw.Draw(canvas)
    for tile in head.tiles:
        place(canvas, tile, GAP, GAP)
    left = MARGIN if head.tiles else GAP
    said = [(head.name, NAME, INK), *((text, TEXT, SOFT) for text in head.about)]
    write(pen, (left, GAP), said, canvas.width - left - GAP)
    for column, name in enumerate(columns):
        write(pen, (MARGIN + column * step, above), [(name, TEXT, INK)], SIDE)
    for index, row in enumerate(rows):
        top = above + LINE + 5 + index * deep
        said = [(row.name, NAME, INK), *((text, SMALL, SOFT) for text in row.about)]
        write(pen, (GAP, top), said, MARGIN - 2 * GAP)
        for column, tile in enumerate(row.tiles):
            place(canvas, tile, MARGIN + column * step, top)
    return canvas


def seen(model: Classifier, picture: PictureSource) -> Pixels:
    """Return what the model sees of a picture."""
    assert model.preprocess is not None
    return as_seen(model.preprocess(read(picture)).input, model.pixels)


def drawn(e: Explanation, pixels: Pixels, mode: Mode) -> Pixels:
    """Return a map and what the model saw, in the report's colours."""
    look, heat = Look(mode), e.attribution.heatmap()[0].numpy()
    sign = look.sign_for(e.attribution.show, e.attribution.reduce)
    return lay(pixels, heat, sign, placed(None, (pixels.shape[0], pixels.shape[1])), look).drawn()


def explained(model: Classifier, picture: PictureSource, name: str, asked: Sequence[str]) -> Iterator[Explanation]:
    """Explain a picture by one method after the other, and print a line of numbers for each."""
    for method in asked:
        e = whence.explain(model, picture, method)
        assert e.evidence is not None
        line = f"| {model.name} | {name} | {e.label} {e.probability:.3f} | {method} | {e.evidence.removed:.3f} "
        print(f"{line}| {e.evidence.kept:.3f} | {e.map.min():.3g} | {e.map.max():.3g} |", flush=True)
        yield e


def class_of(e: Explanation) -> str:
    """Return the class and its probability on the whole picture."""
    assert e.probability is not None
    return f"{e.label} {percent(e.probability)}"


def figure(model: Classifier, picture: PictureSource, name: str) -> Image.Image:
    """Return a picture with a row for each way: its map, and what its highest places do."""
    pixels, rows = seen(model, picture), []
    found = list(explained(model, picture, name, [asked for asked, _ in WAYS.values()]))
    for (title, (asked, about)), e in zip(WAYS.items(), found, strict=True):
        assert e.evidence is not None
        assert e.pictures is not None
        span = f"from {number(float(e.map.min()))} to {number(float(e.map.max()))}"
        tiles = [Tile(drawn(e, pixels, "blended"), ()), Tile(drawn(e, pixels, "heat-map"), (span,))]
        tiles += [
            Tile(shown, (f"{e.label} {percent(left)}",))
            for shown, left in zip(e.pictures, (e.evidence.removed, e.evidence.kept), strict=True)
        ]
        rows.append(Row(title, (about, f"whence: {asked.replace(',', ', ')}"), tiles))
    top = percent(SHARE)
    about = (
        f'The model "{model.name}" says: {class_of(found[0])}. Where does it see that?',
        "Bright places speak for the class; of a map with a sign, orange ones speak for it and blue ones against it.",
        f"The two pictures on the right test a map. In one the {top} of the area that it ranks highest is blurred "
        f"away; in the other these {top} stand alone and all else is blurred. Beneath each stands what the model "
        "then gives the class: for a good map little in the first, and much in the second.",
    )
    columns = ("the map on the picture", "the map alone", f"without the top {top}", f"the top {top} alone")
    return page(Row(name, about, [Tile(pixels, (class_of(found[0]),))]), columns, rows)


def sheet(models: Sequence[Classifier], pictures: Sequence[tuple[str, PictureSource]]) -> Image.Image:
    """Return the maps of several methods side by side, a row for each model and picture."""
    rows = []
    for model in models:
        for name, picture in pictures:
            pixels, tiles = seen(model, picture), []
            for e in explained(model, picture, name, list(SHEET.values())):
                assert e.evidence is not None
                told = f"removed {percent(e.evidence.removed)}, kept {percent(e.evidence.kept)}"
                tiles.append(Tile(drawn(e, pixels, "blended"), (class_of(e), told)))
            rows.append(Row(name, (model.name,), [Tile(pixels, ()), *tiles]))
    top = percent(SHARE)
    about = (
        f"Beneath each map stands the class with its probability, and what is left of it: where the {top} of the "
        f"area that the map ranks highest is blurred away (removed), and where these {top} stand alone and all else "
        "is blurred (kept).",
    )
    return page(Row("One picture, four maps", about, ()), ("what the model sees", *SHEET), rows)


def creature() -> Image.Image:
    """Return the first figure for a drawn creature."""
    image = figure(whence.load_model("creatures"), draw(CREATURE).pixels, "A drawn creature")
    # Fewer colours keep the committed file small.
    return image.quantize(256, kmeans=2, dither=Image.Dither.NONE)


def creatures() -> Image.Image:
    """Return the sheet for drawn creatures."""
    model = whence.load_model("creatures")
    pictures = [(f"creature {seed}", draw(seed).pixels) for seed in CREATURES]
    return sheet([model], pictures)


def real_models() -> list[Classifier]:
    """Return the models outside the repository, and ConvNeXt where its weights can be had."""
    found = [real_model(name) for name in MODELS]
    try:
        found.append(whence.load_model(CONVNEXT))
    except (MissingExtraError, ModelError) as error:
        print(f"The sheet goes without ConvNeXt-Tiny: {error}")
    return found


def save(image: Image.Image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, optimize=True)
    print(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photo", default=PHOTOS[-1], help="which one of $WHENCE_PHOTOS the first figure draws")
    parser.add_argument("--sheet", action="store_true", help="draw the sheet in place of the first figure")
    asked = parser.parse_args()
    outside_too = {"WHENCE_PHOTOS", "WHENCE_MODELS"} <= set(os.environ)
    models = real_models() if asked.sheet and outside_too else []
    print("| model | picture | class | method | removed | kept | lowest | highest |")
    print("|---" * 8 + "|")
    if not outside_too:
        save(*((creatures(), FIGURES / "igos-sheet.png") if asked.sheet else (creature(), FIGURES / "igos.png")))
    elif asked.sheet:
        photos = [(Path(name).stem.replace("_", " "), outside("WHENCE_PHOTOS") / name) for name in PHOTOS]
        save(sheet(models, photos), FIGURES / "photos" / "igos-sheet.png")
    else:
        photo = outside("WHENCE_PHOTOS") / asked.photo
        save(figure(real_model(MODELS[0]), photo, photo.name), FIGURES / "photos" / f"igos-{photo.stem}.png")


if __name__ == "__main__":
    main()
