"""Creatures as files: pictures, maps of their parts, and a table of their truth."""

import csv
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from whence.creatures.code import LABELS, PARTS, VARIANTS
from whence.creatures.drawing import NAMES, Creature, draw_many
from whence.creatures.folders import new_folder

_LOCATED = NAMES[1:9]
_COLUMNS = (
    "file",
    "label",
    *PARTS,
    "missing",
    "strange",
    "tag",
    *(f"{name}_{axis}" for name in _LOCATED for axis in "xy"),
)


def write(
    out: Path,
    count: int,
    seed: int,
    *,
    missing: Sequence[int] = (0,),
    strange: int = 0,
    tags: float | None = None,
    size: int = 64,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write ``count`` creatures into a new folder; the options are those of :func:`draw_many`.

    - ``00000.png``, ...: the pictures;
    - ``parts/00000.png``, ...: which part is seen in each pixel, an index of ``NAMES``, 8 bits;
    - ``deciding/00000.png``, ...: white where one of the four parts is seen that decide, black elsewhere;
    - ``creatures.csv``: file, label, the four variants of its species, the parts left out, those in a shape that no
      species has, the label whose tag is worn (empty for no tag), and each part's middle in pixels (empty for a part
      that is not drawn).

    Raises
    ------
    OutputError
        If ``out`` is not a new or an empty folder.
    """
    with new_folder(out) as folder, (folder / "creatures.csv").open("w", newline="", encoding="utf-8") as table:
        for name in ("parts", "deciding"):
            (folder / name).mkdir()
        rows = csv.writer(table)
        rows.writerow(_COLUMNS)
        creatures = draw_many(count, seed, missing=missing, strange=strange, tags=tags, size=size)
        for index, creature in enumerate(creatures):
            file = f"{index:05d}.png"
            Image.fromarray(creature.pixels).save(folder / file)
            Image.fromarray(creature.parts).save(folder / "parts" / file)
            deciding = np.isin(creature.parts, [NAMES.index(part) for part in PARTS])
            Image.fromarray(deciding.astype(np.uint8) * 255).save(folder / "deciding" / file)
            rows.writerow((file, *_row(creature)))
            if progress:
                progress(index + 1, count)


def _row(creature: Creature) -> list[str]:
    """Return what the table says of a creature."""
    variants = [VARIANTS[part][variant] for part, variant in zip(PARTS, creature.variants, strict=True)]
    middles = [creature.centroids.get(name, ()) for name in _LOCATED]
    places = [f"{middle[axis]:.2f}" if middle else "" for middle in middles for axis in (0, 1)]
    tag = "" if creature.tag is None else LABELS[creature.tag]
    return [LABELS[creature.label], *variants, "+".join(creature.missing), "+".join(creature.strange), tag, *places]
