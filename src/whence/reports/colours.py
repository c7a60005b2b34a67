"""Two colour maps, even in lightness and safe for colour-blind eyes, and the scales that put values on them."""

from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
from jaxtyping import Float, UInt8

Show = Literal["positive", "signed"]

# From dark to light: night, violet, rose, amber, cream.
_SEQUENTIAL = ("#0d0b2b", "#5a1d7e", "#c23b69", "#f0903a", "#fbf3b9")
# From the far end of either sign to the neutral middle; the two arms have the same lightness at the same value.
_AGAINST = ("#0f3f86", "#4d8fd0", "#f1eff0")
_FOR = ("#93370a", "#dd7a35", "#f1eff0")

# Linear sRGB to cone responses and on to Oklab: B. Ottosson, "A perceptual color space for image processing", 2020.
_TO_CONES = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
_TO_LAB = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)


def oklab(rgb: UInt8[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3"]:
    """Return lightness, green to red, and blue to yellow of sRGB colours, in Oklab."""
    unit = rgb / 255
    linear = np.where(unit <= 0.04045, unit / 12.92, ((unit + 0.055) / 1.055) ** 2.4)
    return np.asarray(np.cbrt(linear @ _TO_CONES.T) @ _TO_LAB.T)


def _srgb(lab: Float[np.ndarray, "n 3"]) -> UInt8[np.ndarray, "n 3"]:
    """Return the nearest sRGB colours of Oklab colours."""
    cones = (lab @ np.linalg.inv(_TO_LAB).T) ** 3
    linear = np.clip(cones @ np.linalg.inv(_TO_CONES).T, 0, 1)
    unit = np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.asarray(np.rint(unit * 255), np.uint8)


def _ramp(
    anchors: tuple[str, ...], count: int, lightness: tuple[float, float] | None = None
) -> UInt8[np.ndarray, "n 3"]:
    """Return ``count`` colours through the anchors, evenly spaced in lightness, which has to rise."""
    lab = oklab(np.array([list(bytes.fromhex(anchor[1:])) for anchor in anchors], np.uint8))
    dark, light = lightness or (lab[0, 0], lab[-1, 0])
    even = np.linspace(dark, light, count)
    place = np.linspace(lab[0, 0], lab[-1, 0], count)
    # One polynomial through all anchors has no kinks, which the eye would take for edges of the map.
    hue = [np.polyval(np.polyfit(lab[:, 0], lab[:, axis], len(lab) - 1), place) for axis in (1, 2)]
    return _srgb(np.stack([even, *hue], axis=1))


@cache
def table(show: Show) -> UInt8[np.ndarray, "256 3"]:
    """Return 256 colours: dark to light for positive maps, blue over near-white to orange for signed ones."""
    if show == "positive":
        return _ramp(_SEQUENTIAL, 256)
    arms = (0.42, 0.955)
    return np.concatenate([_ramp(_AGAINST, 128, arms), _ramp(_FOR, 128, arms)[::-1]])


@dataclass(frozen=True)
class Scale:
    """What the first and the last colour stand for: 0 to ``top``, or -``top`` to ``top`` for a signed map."""

    show: Show
    top: float

    @property
    def low(self) -> float:
        """Return the value of the first colour."""
        return -self.top if self.show == "signed" else 0.0

    @property
    def ticks(self) -> tuple[float, float, float]:
        """Return the values at the beginning, the middle and the end."""
        return self.low, (self.low + self.top) / 2, self.top

    def unit(self, values: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
        """Return each value's place on the scale, in [0, 1]; a map that is zero everywhere is drawn as zero."""
        if self.top == 0:
            return np.full(values.shape, 0.5 if self.show == "signed" else 0.0)
        scaled = np.clip(values / self.top, -1, 1)
        return (scaled + 1) / 2 if self.show == "signed" else np.clip(scaled, 0, 1)

    def rgb(self, values: Float[np.ndarray, "*shape"]) -> UInt8[np.ndarray, "*shape 3"]:
        """Return each value's colour."""
        return np.asarray(table(self.show)[np.rint(self.unit(values) * 255).astype(np.uint8)])


def scale_of(values: Float[np.ndarray, "*shape"], show: Show) -> Scale:
    """Return the scale of a map: positive maps are cut at 0 and reach to their maximum, signed ones are symmetric."""
    largest = np.abs(values).max(initial=0) if show == "signed" else values.max(initial=0)
    return Scale(show, float(largest))
