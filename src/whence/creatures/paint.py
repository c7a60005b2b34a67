"""Colours, textures and shading of a creature's parts."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from PIL import Image

from whence.creatures.raster import Canvas, Stencil

Colour = Float[np.ndarray, "3"]
Field = Float[np.ndarray, "h w"]


def rgb(hue: float, saturation: float, value: float) -> Colour:
    """Return the colour of a hue (1 is the full circle), a saturation and a value in [0, 1]."""
    ramps = np.abs((hue + np.array([0.0, 2 / 3, 1 / 3])) % 1 * 6 - 3) - 1
    colour: Colour = value * (1 - saturation + saturation * ramps.clip(0, 1))
    return colour.astype(np.float32)


@dataclass(frozen=True)
class Palette:
    """The tones of one picture: a bright creature before a dark background, or the other way round.

    ``creature`` and ``ground`` are ranges of value in [0, 1]; ``hue`` is the creature's own.
    """

    creature: tuple[float, float]
    ground: tuple[float, float]
    hue: float

    @classmethod
    def drawn(cls, generator: np.random.Generator) -> "Palette":
        """Draw the tones of one picture."""
        bright, hue = generator.random() < 0.5, generator.random()
        dark, light = (0.15, 0.5), (0.65, 1.0)
        return cls(light, dark, hue) if bright else cls(dark, light, hue)

    def part(self, generator: np.random.Generator) -> Colour:
        """Draw a part's colour; its hue is near the creature's own in 60 % of the cases, else any."""
        own, near, free = generator.random(), generator.normal(0, 0.05), generator.random()
        hue = self.hue + near if own < 0.6 else free
        return rgb(hue, generator.uniform(0.35, 1.0), generator.uniform(*self.creature))

    def eye(self, generator: np.random.Generator) -> Colour:
        """Draw the colour of an eye: nearly white."""
        return rgb(generator.random(), 0.1, generator.uniform(0.85, 1.0))

    def backdrop(self, generator: np.random.Generator) -> Colour:
        """Draw a colour of the background, paler than a part's."""
        return rgb(generator.random(), generator.uniform(0.0, 0.6), generator.uniform(*self.ground))


def octaves(generator: np.random.Generator, size: int, count: int = 5) -> Field:
    """Return smooth noise of mean 0: grids of 2, 4, 8, ... cells, each at half the strength of the one before."""
    total = np.zeros((size, size), dtype=np.float32)
    for octave in range(count):
        cells = generator.standard_normal((2 << octave, 2 << octave), dtype=np.float32)
        smooth = Image.fromarray(cells).resize((size, size), Image.Resampling.BICUBIC)
        total += 0.5**octave * np.asarray(smooth)
    return total


def _plain(generator: np.random.Generator, size: int) -> Field:
    return np.zeros((size, size), dtype=np.float32)


def _stripes(generator: np.random.Generator, size: int) -> Field:
    along, _ = _waves(generator, size)
    stripes: Field = np.sign(along)
    return stripes


def _spots(generator: np.random.Generator, size: int) -> Field:
    along, across = _waves(generator, size)
    return np.where(along + across > 0.8, 1.0, -0.3).astype(np.float32)


def _cloud(generator: np.random.Generator, size: int) -> Field:
    cloud: Field = np.tanh(octaves(generator, size))
    return cloud


def _waves(generator: np.random.Generator, size: int) -> tuple[Field, Field]:
    """Return two waves at right angles to each other, of a length between 1/13 and 1/7 of the side."""
    angle, waves = generator.uniform(0, np.pi), generator.uniform(7, 13)
    phase = generator.uniform(0, 2 * np.pi, 2)
    turns = 2 * np.pi * waves * np.arange(size, dtype=np.float32) / size
    cosine, sine = np.cos(angle), np.sin(angle)
    along = np.sin(turns[None, :] * cosine + turns[:, None] * sine + phase[0])
    across = np.sin(turns[:, None] * cosine - turns[None, :] * sine + phase[1])
    return along.astype(np.float32), across.astype(np.float32)


_TEXTURES: tuple[Callable[[np.random.Generator, int], Field], ...] = (_plain, _stripes, _spots, _cloud)


def texture(generator: np.random.Generator, size: int) -> Field:
    """Draw a texture, a factor about 1 for each pixel: plain, stripes, spots or noise."""
    kind, strength = generator.integers(len(_TEXTURES)), generator.uniform(0.15, 0.35)
    return 1 + strength * _TEXTURES[kind](generator, size)


@dataclass(frozen=True)
class Light:
    """Light from one side: ``towards`` is (x, y) to where it falls, of length ``strength``."""

    towards: Float[np.ndarray, "2"]

    @classmethod
    def drawn(cls, generator: np.random.Generator) -> "Light":
        """Draw a direction and a strength."""
        angle, strength = generator.uniform(0, 2 * np.pi), generator.uniform(0.0, 0.35)
        return cls(strength * np.array([np.cos(angle), np.sin(angle)]))

    def on(self, part: Stencil) -> Field:
        """Return the shade of a part, a factor about 1: every part is lit as if it were round by itself.

        A shade of the whole creature would change with the parts that are left out.
        """
        radius = np.sqrt(part.whole.sum() / np.pi)
        x, y = (np.arange(len(part.whole)) - middle for middle in part.centroid)
        ramp: Field = (x[None, :] * self.towards[0] + y[:, None] * self.towards[1]) / radius
        return 1 - ramp.clip(-0.4, 0.4).astype(np.float32)


def painted(canvas: Canvas, part: Stencil, colour: Colour, factor: Field) -> Canvas:
    """Return the canvas with a part in its colour times a factor for each pixel, and a darker rim."""
    return part.paint(canvas, colour * factor[..., None], colour * np.float32(0.35))
