"""What is around a creature and before it: background, occluders, the camera's noise."""

import numpy as np
from jaxtyping import UInt8

from whence.creatures.paint import Palette, octaves, painted, texture
from whence.creatures.raster import Canvas, Stencil, stencil
from whence.creatures.shapes import Polygon, ellipse, turned


def background(generator: np.random.Generator, palette: Palette, size: int) -> Canvas:
    """Draw a background: two colours mixed by smooth noise, grain, and up to five ellipses."""
    first, second = palette.backdrop(generator), palette.backdrop(generator)
    mix = (0.5 + 0.4 * octaves(generator, size))[..., None].clip(0, 1)
    grain = generator.uniform(0, 0.06) * generator.standard_normal((size, size, 1), dtype=np.float32)
    canvas: Canvas = first * mix + second * (1 - mix) + grain
    for _ in range(generator.integers(6)):
        disc = stencil((_disc(generator, size),), size)
        alpha = disc.whole[..., None] * np.float32(generator.uniform(0.3, 0.8))
        canvas = canvas * (1 - alpha) + palette.backdrop(generator) * alpha
    return canvas


def _disc(generator: np.random.Generator, size: int) -> Polygon:
    width, height = size * generator.uniform(0.04, 0.2, 2)
    disc = turned((ellipse((0.0, 0.0), (width, height)),), generator.uniform(0, np.pi))
    return disc[0] + size * generator.uniform(0, 1, 2)


def occluders(generator: np.random.Generator, size: int) -> list[Stencil]:
    """Draw one or two bars or blobs in 35 % of the pictures, none in the others."""
    count = generator.integers(1, 3) if generator.random() < 0.35 else 0
    return [stencil((_occluder(generator, size),), size) for _ in range(count)]


def _occluder(generator: np.random.Generator, size: int) -> Polygon:
    middle = size * generator.uniform(0.1, 0.9, 2)
    if generator.random() < 0.5:
        half = size * np.array([1.5, generator.uniform(0.025, 0.05)])
        bar = half * np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)])
        return turned((bar,), generator.uniform(0, np.pi))[0] + middle
    bumps = size * generator.uniform(0.06, 0.13, 24)
    smooth = (bumps + np.roll(bumps, 1) + np.roll(bumps, 2)) / 3
    return ellipse((0.0, 0.0), (1.0, 1.0)) * smooth[:, None] + middle


def hide(generator: np.random.Generator, canvas: Canvas, cover: Stencil, palette: Palette) -> Canvas:
    """Return the canvas behind an occluder, which has a colour of the background: it is no part of anybody."""
    return painted(canvas, cover, palette.backdrop(generator), texture(generator, len(canvas)))


def exposed(generator: np.random.Generator, canvas: Canvas) -> UInt8[np.ndarray, "size size 3"]:
    """Return what a camera makes of the canvas: contrast, gain and noise, then eight bits."""
    contrast, gain, grain = generator.uniform((0.75, 0.85, 0.0), (1.1, 1.1, 0.04)).astype(np.float32)
    noise = grain * generator.standard_normal(canvas.shape, dtype=np.float32)
    seen: Canvas = ((canvas - 0.5) * contrast + 0.5) * gain + noise
    return (255 * seen.clip(0, 1)).round().astype(np.uint8)
