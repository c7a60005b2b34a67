"""One table of baselines: what a picture looks like where something is missing.

All are defined on pixels in [0, 1] and then normalised. Source: Sturmfels, Lundberg, Lee, "Visualizing the Impact
of Feature Attribution Baselines", Distill 2020.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Generator, Tensor

from whence.errors import OptionError, UnknownNameError, nearest
from whence.pictures.preprocess import PixelRange

Pixels = Float[Tensor, "b c h w"]


@dataclass(frozen=True)
class Baseline:
    """One row of the table: how it is made, of what, and whether it is drawn at random.

    ``of`` says what ``make`` is given: pixels in [0, 1], or the model's input where the two give the same (a blur
    commutes with the normalisation), so that no pixel range need be known.
    """

    name: str
    make: Callable[[Pixels, Generator, float | None], Pixels]
    sentence: str
    of: Literal["pixels", "input"] = "pixels"
    random: bool = False


def zeros(x: Pixels, generator: Generator, sigma: float | None) -> Pixels:
    """Return the zero of the normalised input."""
    return torch.zeros_like(x)


def black(pixels: Pixels, generator: Generator, sigma: float | None) -> Pixels:
    """Return black everywhere."""
    return torch.zeros_like(pixels)


def max_distance(pixels: Pixels, generator: Generator, sigma: float | None) -> Pixels:
    """Return for every value the valid one farthest from it: 0 or 1."""
    return (pixels < 0.5).to(pixels)


def _kernel(side: int, sigma: float | None) -> Float[Tensor, " k"]:
    """Return the Gaussian: 51 wide with sigma 50 at 224 pixels and scaled with the side, or 3 sigma each way."""
    radius = round(25 * side / 224) if sigma is None else ceil(3 * sigma)
    spread = 50 * side / 224 if sigma is None else sigma
    # The border is mirrored without repeating the edge, which holds one pixel less than the side.
    at = torch.arange(-min(radius, side - 1), min(radius, side - 1) + 1, dtype=torch.float64)
    weight = torch.exp(-(at**2) / (2 * spread**2)) if spread > 0 else (at == 0).to(at)
    return weight / weight.sum()


def blurred(pixels: Pixels, generator: Generator, sigma: float | None) -> Pixels:
    """Return the picture blurred by a Gaussian of ``sigma`` pixels, mirrored at the border."""
    channels = pixels.shape[1]
    for axis in (2, 3):
        kernel = _kernel(int(pixels.shape[axis]), sigma).to(pixels)
        radius = len(kernel) // 2
        shape, pad = ((-1, 1), (0, 0, radius, radius)) if axis == 2 else ((1, -1), (radius, radius, 0, 0))
        weight = kernel.reshape(1, 1, *shape).expand(channels, -1, -1, -1)
        pixels = F.conv2d(F.pad(pixels, pad, mode="reflect"), weight, groups=channels)
    return pixels


def uniform(pixels: Pixels, generator: Generator, sigma: float | None) -> Pixels:
    """Return values drawn evenly from the valid range, the same for every picture."""
    return torch.rand(pixels.shape[1:], generator=generator).to(pixels).expand_as(pixels)


def gaussian(pixels: Pixels, generator: Generator, sigma: float | None) -> Pixels:
    """Return the picture with Gaussian noise of ``sigma`` (0.5, in units of the range), clipped to the range."""
    noise = torch.randn(pixels.shape[1:], generator=generator).to(pixels)
    return (pixels + (0.5 if sigma is None else sigma) * noise).clamp(0, 1)


BASELINES = {
    row.name: row
    for row in (
        Baseline("zeros", zeros, "the zero of the normalised input, that is the mean colour", of="input"),
        Baseline("black", black, "black"),
        Baseline("max-distance", max_distance, "per value the valid one farthest from the picture's"),
        Baseline("blurred", blurred, "the picture, blurred", of="input"),
        Baseline("uniform", uniform, "noise, evenly from the valid range", random=True),
        Baseline("gaussian", gaussian, "the picture under Gaussian noise, clipped to the range", random=True),
    )
}


def make_baseline(
    name: str,
    x: Float[Tensor, "b c h w"],
    pixels: PixelRange | None,
    *,
    sigma: float | None = None,
    draws: int = 1,
    seed: int = 0,
) -> Float[Tensor, "n b c h w"]:
    """Return the named baseline of a batch of model inputs, in the input's own units.

    ``n`` is ``draws`` for the random baselines, over which the caller averages, and 1 for the others. Noise is drawn
    on the CPU from ``seed``, the same for every picture. ``sigma`` is in pixels for ``blurred`` and in units of the
    pixel range for ``gaussian``. ``pixels`` may be None for ``zeros`` and ``blurred`` alone.

    Raises
    ------
    UnknownNameError
        There is no such baseline.
    OptionError
        The baseline needs to know what black and white are, and the model states no preprocessing.
    """
    if name not in BASELINES:
        raise UnknownNameError(f"there is no baseline {name!r}: {nearest(name, BASELINES)}")
    row = BASELINES[name]
    generator = torch.Generator().manual_seed(seed)
    if row.of == "input":
        return row.make(x, generator, sigma)[None]
    if pixels is None:
        free = " or ".join(repr(row.name) for row in BASELINES.values() if row.of == "input")
        raise OptionError(
            f"the baseline {name!r} needs to know what black and white are: give the Classifier its preprocess, "
            f"or use the baseline {free}"
        )
    drawn = [row.make(pixels.to_pixels(x), generator, sigma) for _ in range(draws if row.random else 1)]
    return pixels.to_input(torch.stack(drawn))
