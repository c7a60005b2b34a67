"""Two colour maps, even in lightness and safe for colour-blind eyes, and the scales that put values on them."""

from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Literal

import numpy as np
from jaxtyping import Float, UInt8

from whence.errors import MissingExtraError, OptionError, nearest

# Which values of a map are drawn: those above 0, those below, the size of all, or all with their sign.
Sign = Literal["positive", "negative", "absolute", "all"]

# The colours that need no other library; any other name is matplotlib's.
OURS = "whence"

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
def table(sign: Sign, colours: str = OURS) -> UInt8[np.ndarray, "256 3"]:
    """Return 256 colours: of our own dark to light for one sign, blue over near-white to orange for both.

    Raises
    ------
    OptionError, MissingExtraError
        ``colours`` is no colour map of matplotlib's, or matplotlib is not installed.
    """
    if colours != OURS:
        return _foreign(colours)
    if sign != "all":
        return _ramp(_SEQUENTIAL, 256)
    arms = (0.42, 0.955)
    return np.concatenate([_ramp(_AGAINST, 128, arms), _ramp(_FOR, 128, arms)[::-1]])


def _foreign(name: str) -> UInt8[np.ndarray, "256 3"]:
    """Return a colour map of matplotlib's."""
    try:
        known = import_module("matplotlib").colormaps
    except ImportError as error:
        raise MissingExtraError(
            f"matplotlib is needed for the colours {name!r}: pip install 'whence[matplotlib]', or take {OURS!r}"
        ) from error
    if name not in known:
        raise OptionError(f"there are no colours {name!r}: {nearest(name, [OURS, *known])}")
    return np.asarray(known[name](np.linspace(0, 1, 256), bytes=True)[:, :3], np.uint8)


@dataclass(frozen=True)
class Scale:
    """What the colours stand for: 0 to ``top`` for one sign, -``top`` to ``top`` for both.

    The last colour of a negative scale stands for -``top``.
    """

    sign: Sign
    top: float
    colours: str = OURS

    @property
    def ticks(self) -> tuple[float, float, float]:
        """Return the values of the first colour, the middle and the last."""
        if self.sign == "all":
            return -self.top, 0.0, self.top
        end = -self.top if self.sign == "negative" else self.top
        return 0.0, end / 2, end

    def normalised(self, values: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
        """Return the values of this sign, divided by the end of the scale and cut to [-1, 1]."""
        drawn = _of_sign(values, self.sign)
        if self.top == 0:
            return np.zeros_like(drawn)
        return np.asarray(np.clip(drawn / (-self.top if self.sign == "negative" else self.top), -1, 1))

    def unit(self, values: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
        """Return each value's place on the scale, in [0, 1]; a map that is zero everywhere is drawn as zero."""
        place = self.normalised(values)
        return (place + 1) / 2 if self.sign == "all" else place

    def rgb(self, values: Float[np.ndarray, "*shape"]) -> UInt8[np.ndarray, "*shape 3"]:
        """Return each value's colour."""
        return np.asarray(table(self.sign, self.colours)[np.rint(self.unit(values) * 255).astype(np.uint8)])


def _of_sign(values: Float[np.ndarray, "*shape"], sign: Sign) -> Float[np.ndarray, "*shape"]:
    """Return the values that are drawn, the others as 0."""
    if sign == "positive":
        return np.asarray(np.maximum(values, 0))
    if sign == "negative":
        return np.asarray(np.minimum(values, 0))
    return np.abs(values) if sign == "absolute" else values


def scale_of(
    values: Float[np.ndarray, "*shape"], sign: Sign, outlier_perc: float | int = 0, colours: str = OURS
) -> Scale:
    """Return the scale of a map, which reaches to its largest value, or, without outliers, less far.

    The outliers are the largest values that make up ``outlier_perc`` per cent of the sum of all sizes: the scale ends
    at the value at which the sum of the sizes, sorted from small to large, reaches the rest.
    """
    sizes = np.abs(_of_sign(values, sign))
    return Scale(sign, float(_without_outliers(sizes, outlier_perc) or sizes.max(initial=0)), colours)


def _without_outliers(sizes: Float[np.ndarray, "*shape"], outlier_perc: float | int) -> float:
    """Return the largest size that is no outlier; 0 where every one is taken."""
    if outlier_perc == 0 or not sizes.size:
        return 0.0
    ordered = np.sort(sizes, axis=None)
    sums = np.cumsum(ordered)
    # In this order of factors, because a scale that ends at another of the sorted values looks like another map.
    place = np.searchsorted(sums, sums[-1] * 0.01 * (100.0 - outlier_perc))
    return float(ordered[min(int(place), len(ordered) - 1)])
