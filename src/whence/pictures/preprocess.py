"""Resize, crop, normalise: from a picture's pixels to a model's input, and the way back for a map."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from math import inf
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Shaped, UInt8
from torch import Tensor

from whence.errors import ModelError, PictureError
from whence.pictures.read import MAX_PIXELS, Picture

# Pillow's nearest and its bilinear and bicubic filters go by these names in torch.
_TORCH_MODES = {"nearest": "nearest-exact", "bilinear": "bilinear", "bicubic": "bicubic"}
# The weights of ITU-R 601, with which Pillow turns colour into grey.
_LUMA = torch.tensor([0.299, 0.587, 0.114]).reshape(3, 1, 1)


@dataclass(frozen=True)
class Geometry:
    """Where the model's input grid lies on the picture.

    ``picture`` is (H, W) and ``grid`` is (h, w). ``box`` = (top, left, bottom, right) says which region of the
    picture, in its pixels, the whole grid covers; it may reach outside where the preprocessing pads, and
    top > bottom or left > right where it flips.
    """

    picture: tuple[int, int]
    grid: tuple[int, int]
    box: tuple[float, float, float, float]

    def _unit_coordinates(self) -> tuple[Float[Tensor, " H"], Float[Tensor, " W"]]:
        """Return each pixel centre's place on the grid, 0 at its first edge and 1 at its last."""
        (height, width), (top, left, bottom, right) = self.picture, self.box
        y = (torch.arange(height) + 0.5 - top) / (bottom - top)
        x = (torch.arange(width) + 0.5 - left) / (right - left)
        return y, x

    @cached_property
    def seen(self) -> Bool[Tensor, "H W"]:
        """Return which pixels of the picture the model saw."""
        y, x = ((u >= 0) & (u <= 1) for u in self._unit_coordinates())
        return y[:, None] & x[None, :]

    def to_picture(self, values: Float[Tensor, "h w"]) -> Float[Tensor, "H W"]:
        """Lay a map on the input grid onto the picture's own pixels, bilinearly; 0 where the model saw nothing."""
        y, x = self._unit_coordinates()
        where = torch.stack(torch.meshgrid(2 * x - 1, 2 * y - 1, indexing="xy"), dim=-1).to(values)
        laid = F.grid_sample(values[None, None], where[None], padding_mode="border", align_corners=False)
        return torch.where(self.seen.to(values.device), laid[0, 0], 0.0)

    def to_grid(self, values: Float[Tensor, "H W"]) -> Float[Tensor, "h w"]:
        """Lay a map on the picture's own pixels onto the input grid, bilinearly; 0 where the grid leaves the picture.

        The way back from ``to_picture``: each cell takes the value at its middle.
        """
        (height, width), (top, left, bottom, right) = self.grid, self.box
        y = (top + (torch.arange(height) + 0.5) / height * (bottom - top)) / self.picture[0]
        x = (left + (torch.arange(width) + 0.5) / width * (right - left)) / self.picture[1]
        where = torch.stack(torch.meshgrid(2 * x - 1, 2 * y - 1, indexing="xy"), dim=-1).to(values)
        laid = F.grid_sample(values[None, None], where[None], padding_mode="border", align_corners=False)
        inside = ((y >= 0) & (y <= 1))[:, None] & ((x >= 0) & (x <= 1))[None, :]
        return torch.where(inside.to(values.device), laid[0, 0], 0.0)


@dataclass(frozen=True)
class PixelRange:
    """What the model's input holds for a black and for a white pixel: ``low`` and ``high``, [C].

    Baselines are defined on pixels in [0, 1]; this is the way there and back.
    """

    low: Float[Tensor, " c"]
    high: Float[Tensor, " c"]

    def _like(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.low.to(x).reshape(-1, 1, 1), self.high.to(x).reshape(-1, 1, 1)

    def to_pixels(self, x: Float[Tensor, "*b c h w"]) -> Float[Tensor, "*b c h w"]:
        """Undo the normalisation: input values to pixels in [0, 1]."""
        low, high = self._like(x)
        return (x - low) / (high - low)

    def to_input(self, pixels: Float[Tensor, "*b c h w"]) -> Float[Tensor, "*b c h w"]:
        """Normalise: pixels in [0, 1] to input values."""
        low, high = self._like(pixels)
        return low + pixels * (high - low)


@dataclass(frozen=True)
class Prepared:
    """One picture as the model takes it: ``input`` [C, h, w], and its ``geometry`` (None where unknown)."""

    input: Float[Tensor, "c h w"]
    geometry: Geometry | None
    notes: tuple[str, ...] = ()


class Preprocessing(ABC):
    """What a classifier needs of its preprocessing."""

    @abstractmethod
    def __call__(self, picture: Picture) -> Prepared:
        """Turn a picture into the model's input."""

    @property
    @abstractmethod
    def pixels(self) -> PixelRange | None:
        """What black and white become, None where that is not one value a channel."""

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int, int] | None:
        """The input's (C, h, w), None where it depends on the picture."""


def _two(size: int | tuple[int, int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else size


def with_channels(pixels: Shaped[Tensor, "k H W"], channels: int) -> Shaped[Tensor, "c H W"]:
    """Return grey pixels repeated for a colour model, or colour pixels as grey for a one-channel model."""
    if pixels.shape[0] == channels:
        return pixels
    if pixels.shape[0] == 1:
        return pixels.expand(channels, -1, -1)
    if channels == 1:
        return (pixels * _LUMA.to(pixels)).sum(0, keepdim=True)
    raise PictureError(
        f"the model takes {channels} channels and the picture has {pixels.shape[0]}: "
        "give whence.attribute the tensors themselves"
    )


@dataclass(frozen=True)
class Preprocess(Preprocessing):
    """The preprocessing that a model states: resize, centre crop, normalise.

    ``resize`` is the length of the shorter side or (height, width), ``crop`` the side or (height, width) of the
    centre crop; either may be absent. ``round_crop`` says at which row a crop begins whose middle falls between two:
    the even one, as torchvision has it, or the one ``down`` towards 0, as transformers has it. Pixels lie in [0, 1]
    before ``mean`` and ``std``, one value a channel.
    With antialiasing, a resize equals Pillow's to one level of 255.
    """

    resize: int | tuple[int, int] | None = None
    crop: int | tuple[int, int] | None = None
    interpolation: str = "bilinear"
    antialias: bool = True
    channels: int = 3
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    round_crop: Literal["even", "down"] = "even"

    def __post_init__(self) -> None:
        """Refuse what no model can state."""
        for name, size in (("resize", self.resize), ("crop", self.crop)):
            if size is not None and min(_two(size)) < 1:
                raise ModelError(f"preprocess.{name} = {size} is no size: give one or two lengths of at least 1")
        if self.interpolation not in _TORCH_MODES:
            raise ModelError(
                f"preprocess.interpolation = {self.interpolation!r} is unknown: there are {', '.join(_TORCH_MODES)}"
            )
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) not in (1, self.channels):
                raise ModelError(
                    f"preprocess.{name} has {len(values)} values for {self.channels} channels: give one, or one each"
                )
        if not all(0 < s < inf for s in self.std):
            raise ModelError(f"preprocess.std = {list(self.std)} must be positive")
        if not all(-inf < m < inf for m in self.mean):
            raise ModelError(f"preprocess.mean = {list(self.mean)} must be finite")
        if self.channels < 1:
            raise ModelError(f"preprocess.channels = {self.channels}: give at least 1")

    @cached_property
    def pixels(self) -> PixelRange:
        """What black and white become."""
        mean, std = (torch.tensor(v).expand(self.channels) for v in (self.mean, self.std))
        return PixelRange(low=(0 - mean) / std, high=(1 - mean) / std)

    @property
    def shape(self) -> tuple[int, int, int] | None:
        """The input's (C, h, w), None where it depends on the picture."""
        if self.crop is not None:
            return (self.channels, *_two(self.crop))
        if isinstance(self.resize, tuple):
            return (self.channels, *self.resize)
        return None

    def __call__(self, picture: Picture) -> Prepared:
        """Turn a picture into the model's input.

        Raises
        ------
        PictureError
            The picture's channels are not what the model takes.
        """
        # Pillow, on whose resizes models are trained, rounds 8-bit pictures to whole levels again; so does torch.
        resized = self._resized(picture.pixels if self._smooth else picture.unit())
        unit = resized / 255 if resized.dtype == torch.uint8 else resized
        cropped, (y, x) = self._cropped(with_channels(unit, self.channels))
        grid = (int(cropped.shape[1]), int(cropped.shape[2]))
        # One pixel of the resized picture is this many of the picture's own.
        ky, kx = picture.size[0] / resized.shape[1], picture.size[1] / resized.shape[2]
        box = (y * ky, x * kx, (y + grid[0]) * ky, (x + grid[1]) * kx)
        return Prepared(self.pixels.to_input(cropped), Geometry(picture.size, grid, box))

    @property
    def _smooth(self) -> bool:
        return self.antialias and self.interpolation != "nearest"

    def _resized(self, pixels: Shaped[Tensor, "c H W"]) -> Shaped[Tensor, "c p q"]:
        if self.resize is None:
            return pixels
        height, width = (int(n) for n in pixels.shape[1:])
        if isinstance(self.resize, int):
            shorter = min(height, width)
            size = (self.resize * height // shorter, self.resize * width // shorter)
        else:
            size = self.resize
        if size[0] * size[1] > MAX_PIXELS:
            raise PictureError(
                f"a picture of {height} x {width} would be resized to {size[0]} x {size[1]}: cut it less oblong"
            )
        if size == (height, width):
            return pixels
        mode = _TORCH_MODES[self.interpolation]
        resized = F.interpolate(pixels[None], size=size, mode=mode, antialias=self._smooth)[0]
        # A bicubic filter overshoots; levels of 8 bits are clipped by their type.
        return resized.clamp(0, 1) if resized.is_floating_point() else resized

    def _cropped(self, pixels: Float[Tensor, "c p q"]) -> tuple[Float[Tensor, "c h w"], tuple[int, int]]:
        """Return the centre crop, padded with black where the picture is smaller, and its first row and column."""
        if self.crop is None:
            return pixels, (0, 0)
        height, width = _two(self.crop)
        rounded = round if self.round_crop == "even" else int
        y, x = (rounded((have - want) / 2) for have, want in zip(pixels.shape[1:], (height, width), strict=True))
        beyond_y, beyond_x = y + height - pixels.shape[1], x + width - pixels.shape[2]
        # A negative pad of F.pad is a crop.
        return F.pad(pixels, (-x, int(beyond_x), -y, int(beyond_y))), (y, x)


def pixel_range(x: Float[Tensor, "*shape"]) -> PixelRange:
    """Return the range from the least to the largest value of inputs whose black and white are not known."""
    low, high = x.amin().reshape(1), x.amax().reshape(1)
    return PixelRange(low, torch.where(high > low, high, low + 1))


def as_seen(x: Float[Tensor, "c h w"], pixels: PixelRange | None) -> UInt8[np.ndarray, "h w 3"]:
    """Return a model input as pixels to be shown; stretched from its least to its largest value without a range."""
    unit = (pixels or pixel_range(x)).to_pixels(x.float().cpu()).clamp(0, 1)
    grey = unit if unit.shape[0] == 3 else unit.mean(0, keepdim=True).expand(3, -1, -1)
    return (grey * 255).round().byte().permute(1, 2, 0).numpy()
