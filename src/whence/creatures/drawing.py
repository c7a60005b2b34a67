"""Drawn pictures whose answers are known: nine species of creatures, told apart by any two of four parts."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8

from whence.creatures import scene, shapes
from whence.creatures.code import CLASSES, PARTS, WORDS, Part, Word
from whence.creatures.paint import Light, Palette, painted, texture
from whence.creatures.pose import Pose
from whence.creatures.raster import Canvas, Stencil, stencil
from whence.creatures.shapes import Build, Shape
from whence.creatures.tag import tagged
from whence.errors import OptionError

# What the numbers in a map of parts mean: ``NAMES[0]`` is the background.
NAMES = ("background", "body", "wing", "head", "beak", "crest", "tail", "feet", "eye", "occluder", "tag")
# From the back to the front.
_PAINTING = ("tail", "feet", "body", "crest", "beak", "head", "eye", "wing")
_TEXTURED = ("body", "wing")


@dataclass(frozen=True)
class Creature:
    """One drawn picture with its truth.

    Attributes
    ----------
    pixels
        uint8 [size, size, 3].
    label
        The class, 0 to 8.
    parts
        uint8 [size, size]: which part is seen in each pixel, an index of ``NAMES``.
    centroids
        The middle (x, y) of every part that is drawn, hidden or not, in pixels; the first pixel's middle is (0, 0).
    variants
        The variants of (beak, crest, tail, feet) that the class has, also of parts left out.
    missing
        The parts left out.
    strange
        The parts drawn in a shape that no species has, whatever ``variants`` says of them.
    tag
        The class whose tag it wears, None where it wears none. ``parts`` holds the tag's plate.
    """

    pixels: UInt8[np.ndarray, "size size 3"]
    label: int
    parts: UInt8[np.ndarray, "size size"]
    centroids: Mapping[str, tuple[float, float]]
    variants: Word
    missing: tuple[Part, ...] = ()
    tag: int | None = None
    strange: tuple[Part, ...] = ()


@dataclass(frozen=True)
class _Sheet:
    """A picture in the making: its colours, and which part lies on top."""

    canvas: Canvas
    parts: UInt8[np.ndarray, "size size"]

    def covered(self, canvas: Canvas, by: Stencil, name: str) -> "_Sheet":
        """Return the sheet with ``canvas`` as its colours, on which ``by`` has been painted."""
        return _Sheet(canvas, np.where(by.whole >= 0.5, np.uint8(NAMES.index(name)), self.parts))


def draw(
    seed: int | np.random.Generator,
    label: int | None = None,
    *,
    drop: Collection[str] = (),
    keep: Collection[str] | None = None,
    strange: Collection[str] = (),
    occluders: bool = True,
    tag: int | None = None,
    size: int = 64,
) -> Creature:
    """Draw a creature.

    The same seed gives the same creature in the same scene, whatever is left out, strange, hidden or tagged. A
    creature without its crest looks like one of a species that has none; while two parts are left out at most, those
    that are seen leave one class all the same.

    Parameters
    ----------
    seed
        A number, or a generator, which then moves on to its next creature.
    label
        The class, 0 to 8; the seed's own when not given.
    drop, keep
        The deciding parts to leave out, or the only ones to draw.
    strange
        The deciding parts to draw in a shape that no species has: a trumpet, a top hat, a curl, wheels. Their colours
        and all else stay as they are.
    occluders
        Whether bars and blobs may hide some of the creature, in 35 % of the pictures.
    tag
        The class whose tag is put into a corner.
    size
        The side in pixels.

    Raises
    ------
    OptionError
        For a class or a part that does not exist, for ``drop`` together with ``keep``, and for a strange part that is
        left out.
    """
    missing = _missing(drop, keep)
    odd = _strange(strange, missing)
    species, stance, coat, surroundings, cover, lens = np.random.default_rng(seed).spawn(6)
    own = int(species.integers(CLASSES))
    label = own if label is None else _class(label)
    palette = Palette.drawn(coat)
    sheet = _Sheet(scene.background(surroundings, palette, size), np.zeros((size, size), dtype=np.uint8))
    sheet, centroids = _with_creature(sheet, _placed(stance, WORDS[label], size, odd), missing, coat, palette)
    if occluders:
        for hidden in scene.occluders(cover, size):
            sheet = sheet.covered(scene.hide(cover, sheet.canvas, hidden, palette), hidden, "occluder")
    if tag is not None:
        canvas, plate = tagged(sheet.canvas, _class(tag), tuple(species.integers(2, size=2).tolist()))
        sheet = sheet.covered(canvas, plate, "tag")
    pixels = scene.exposed(lens, sheet.canvas)
    return Creature(pixels, label, sheet.parts, centroids, WORDS[label], missing, tag, odd)


def draw_many(
    count: int,
    seed: int,
    *,
    missing: Sequence[int] = (0,),
    strange: int = 0,
    tags: float | None = None,
    occluders: bool = True,
    size: int = 64,
) -> Iterator[Creature]:
    """Draw ``count`` creatures of random classes, one after the other.

    Creature i is the same in the same scene, whatever the count, the strange parts and the tags.

    Parameters
    ----------
    missing
        How many of the four deciding parts are left out, one of these numbers for each creature.
    strange
        How many of them are drawn in a shape that no species has, as for :func:`draw`.
    tags
        The share of creatures that wear the tag of their own class; the others wear another's. With 1 all wear their
        own, with 0 all wear another's. None: no tags.

    Raises
    ------
    OptionError
        For a negative count or seed, a number of missing or strange parts that is not 0 to 4, more than four of both
        together, and tags that are no share.
    """
    if count < 0 or seed < 0 or not set(missing) <= set(range(len(PARTS) + 1)) or not missing:
        raise OptionError(
            f"cannot draw {count} creatures with seed {seed} and missing={tuple(missing)}: "
            f"count and seed start at 0, and of the four parts 0 to 4 can be missing"
        )
    if not 0 <= strange <= len(PARTS) - max(missing):
        raise OptionError(
            f"strange={strange} with missing={tuple(missing)}: of a creature's four parts 0 to 4 can be strange or "
            "missing, both together"
        )
    if tags is not None and not 0 <= tags <= 1:
        raise OptionError(f"tags={tags}: give the share of creatures that wear their own tag, from 0 to 1")
    for index in range(count):
        generator = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(index,)))
        label = int(generator.integers(CLASSES))
        order = generator.permutation(PARTS).tolist()
        drop, odd = order[: generator.choice(missing)], order[len(order) - strange :]
        tag = None if tags is None else _tag(generator, label, tags)
        yield draw(generator, label, drop=drop, strange=odd, occluders=occluders, tag=tag, size=size)


def _placed(stance: np.random.Generator, word: Word, size: int, strange: Collection[Part] = ()) -> dict[str, Shape]:
    """Return the outline of every part in pixels."""
    build = Build.drawn(stance)
    pose = Pose.drawn(stance, build, size)
    outlines: dict[str, Shape] = {
        "body": shapes.body(build),
        "wing": shapes.wing(build),
        "head": shapes.head(build),
        "eye": shapes.eye(build),
    }
    for part, variant in zip(PARTS, word, strict=True):
        outlines[part] = shapes.deciding(part, shapes.STRANGE if part in strange else variant, build)
    return {name: pose.place(outline) for name, outline in outlines.items()}


def _with_creature(
    sheet: _Sheet, outlines: dict[str, Shape], missing: Collection[Part], coat: np.random.Generator, palette: Palette
) -> tuple[_Sheet, dict[str, tuple[float, float]]]:
    """Paint the parts from the back to the front, and tell where their middles are."""
    light, size, centroids = Light.drawn(coat), len(sheet.canvas), {}
    for name in _PAINTING:
        # Drawn also for a part left out, since the others must not change with it.
        colour = palette.eye(coat) if name == "eye" else palette.part(coat)
        pattern = texture(coat, size) if name in _TEXTURED else np.float32(1)
        if name in missing or not outlines[name]:
            continue
        part = stencil(outlines[name], size)
        sheet = sheet.covered(painted(sheet.canvas, part, colour, pattern * light.on(part)), part, name)
        centroids[name] = part.centroid
    return sheet, centroids


def _tag(generator: np.random.Generator, label: int, own: float) -> int:
    """Return the class itself with the probability ``own``, else one of the others."""
    other = int((label + generator.integers(1, CLASSES)) % CLASSES)
    return label if generator.random() < own else other


def _class(label: int) -> int:
    if label not in range(CLASSES):
        raise OptionError(f"there is no class {label}: creatures have the classes 0 to {CLASSES - 1}")
    return label


def _missing(drop: Collection[str], keep: Collection[str] | None) -> tuple[Part, ...]:
    """Return the parts to leave out, in the order of the code."""
    if drop and keep is not None:
        raise OptionError("give the parts to drop or the parts to keep, not both")
    _check_parts({*drop, *(keep or ())})
    return tuple(part for part in PARTS if (part in drop if keep is None else part not in keep))


def _strange(parts: Collection[str], missing: Collection[Part]) -> tuple[Part, ...]:
    """Return the parts to draw in a shape that no species has, in the order of the code."""
    _check_parts(parts)
    if both := [part for part in missing if part in parts]:
        raise OptionError(f"{', '.join(both)} cannot be both strange and left out: draw or drop each part")
    return tuple(part for part in PARTS if part in parts)


def _check_parts(parts: Collection[str]) -> None:
    if unknown := set(parts) - set(PARTS):
        raise OptionError(f"no part {', '.join(map(repr, sorted(unknown)))} decides: there are {', '.join(PARTS)}")
