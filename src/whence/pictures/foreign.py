"""Any callable as preprocessing: torchvision's, albumentations', a transformers processor, a user's own.

Nothing is known of such a callable. What it does to black and to white, and where its output lies on the picture, is
found by sending it pictures of the same size: black, white, the pictures' own coordinates as grey, and a pattern,
again and again, that tells what it does at random.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from PIL import Image
from torch import Tensor

from whence.errors import PictureError
from whence.pictures.preprocess import Geometry, PixelRange, Prepared, Preprocessing
from whence.pictures.read import Picture

_NO_GEOMETRY = (
    "the preprocessing moves pixels in a way that is no crop and resize: the map stays on the model's input grid"
)
_MOVES_AT_RANDOM = (
    "the preprocessing moves pixels at random, and one draw is explained: the map stays on the model's input grid"
)
_COLOURS_AT_RANDOM = (
    "the preprocessing changes colours at random, and one draw is explained: the map stays on the model's input grid"
)
# So often the same picture is sent where chance is looked for: a mirror of every second picture is missed by one
# classifier in 2048.
_DRAWS = 12
_SMALL = (64, 96)
# Places of edges, as shares of a side, that neither a mirror nor a turn maps onto themselves.
_EDGES = (0.13, 0.24, 0.42, 0.55, 0.61, 0.83)
# This share of the places may change from bright to dark, because it lies at the fields' borders.
_BLURRED = 0.01
# An input value counts as coming from the picture where white and black differ by this share of the most.
_ALIVE = 0.02


def _as_pil(pixels: np.ndarray) -> Any:  # noqa: ANN401  (what a stranger's callable takes is not ours to type)
    return Image.fromarray(pixels)


def _as_unit_tensor(pixels: np.ndarray) -> Any:  # noqa: ANN401
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1).float() / 255


def _call(function: Callable[..., Any], pixels: np.ndarray) -> Any:  # noqa: ANN401
    """Call as the libraries of the field are called; plain callables get a PIL image, or else a unit tensor."""
    library = type(function).__module__.partition(".")[0]
    if library == "transformers":
        return function(images=_as_pil(pixels), return_tensors="pt")
    if library == "albumentations":
        return function(image=pixels)
    try:
        return function(_as_pil(pixels))
    except (TypeError, AttributeError) as error:
        try:
            return function(_as_unit_tensor(pixels))
        except Exception:
            raise error from None


def _tensor(output: Any) -> Float[Tensor, "c h w"]:  # noqa: ANN401
    """Return the one tensor in whatever the callable returned, without a batch axis."""
    if isinstance(output, Mapping):
        output = next((output[key] for key in ("pixel_values", "image") if key in output), output)
    if isinstance(output, np.ndarray):
        last = output.ndim == 3 and output.shape[-1] in (1, 3)
        output = torch.from_numpy(output.transpose(2, 0, 1).copy() if last else output.copy())
    if not isinstance(output, Tensor) or not output.is_floating_point():
        kind = output.dtype if isinstance(output, Tensor) else type(output).__name__
        raise PictureError(f"the preprocessing returned {kind}: it must return one floating tensor [C, h, w]")
    made: Tensor = output[0] if output.ndim == 4 and output.shape[0] == 1 else output
    if made.ndim != 3:
        raise PictureError(f"the preprocessing returned shape {list(made.shape)}: it must return [C, h, w]")
    return made


@dataclass(frozen=True)
class _Found:
    """What is known of the callable at one size; a note where the geometry is not."""

    geometry: Geometry | None
    pixels: PixelRange | None
    note: str | None


class ForeignPreprocess(Preprocessing):
    """A callable from a picture to a tensor, with the geometry that was found for it."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self._found: dict[tuple[int, int], _Found] = {}
        self._drawn: str | None = None

    @property
    def pixels(self) -> PixelRange | None:
        """What black and white become, as found on a picture of 256 x 256."""
        return self._probed((256, 256)).pixels

    @property
    def shape(self) -> tuple[int, int, int] | None:
        """The input's (C, h, w) as returned for a picture of 256 x 256."""
        channels, height, width = self._run(np.zeros((256, 256, 3), np.uint8)).shape
        return channels, height, width

    def __call__(self, picture: Picture) -> Prepared:
        """Turn a picture into the model's input; the geometry is None, with a note, where it cannot be found."""
        prepared = self._run(picture.rgb8())
        found = self._probed(picture.size)
        return Prepared(prepared, found.geometry, (found.note,) if found.note else ())

    def _run(self, pixels: np.ndarray) -> Float[Tensor, "c h w"]:
        try:
            made = _call(self.function, pixels)
        except Exception as error:  # a stranger's callable may raise anything
            told = f"{type(error).__name__}: {error}"
            raise PictureError(
                f"the preprocessing failed on a picture of {pixels.shape[0]} x {pixels.shape[1]} ({told}): "
                "it is called with a PIL image, or a tensor [3, H, W] in [0, 1]"
            ) from error
        return _tensor(made).detach().float()

    def _probed(self, size: tuple[int, int]) -> "_Found":
        if size not in self._found:
            # The user's own draws go on as if nothing had been looked for.
            with torch.random.fork_rng([]):
                chance = self._chance(size)
                geometry, pixels = (None, None) if chance else self._probe(size)
            self._found[size] = _Found(geometry, pixels, chance or (None if geometry else _NO_GEOMETRY))
        return self._found[size]

    def _chance(self, size: tuple[int, int]) -> str | None:
        """Return what the callable does at random, found by many small draws once, and by two of each size."""
        if self._drawn is None:
            try:
                self._drawn = _told([self._run(_pattern(_SMALL)) for _ in range(_DRAWS)])
            except PictureError:  # a crop, say, that is larger than the small picture
                self._drawn = _told([self._run(_pattern(size)) for _ in range(_DRAWS)])
        return self._drawn or _told([self._run(_pattern(size)) for _ in range(2)]) or None

    def _probe(self, size: tuple[int, int]) -> tuple[Geometry | None, PixelRange | None]:
        """Send black, white and coordinates through the callable, and fit one line an axis."""
        height, width = size
        rows = np.broadcast_to(np.linspace(0, 255, height).round()[:, None], size)
        columns = np.broadcast_to(np.linspace(0, 255, width).round()[None, :], size)
        black, white, y, x = (
            self._run(np.repeat(grey.astype(np.uint8)[:, :, None], 3, axis=2))
            for grey in (np.zeros(size), np.full(size, 255), rows, columns)
        )
        if not black.shape == white.shape == y.shape == x.shape:
            return None, None
        alive = ((white - black).abs() > _ALIVE * (white - black).abs().max()).all(0)
        if not alive.any():
            return None, None
        pixels = _pixel_range(black, white, alive)
        if pixels is None:
            return None, None
        place_y, place_x = (pixels.to_pixels(ramp).mean(0) for ramp in (y, x))
        down = _line(place_y, alive, axis=0, length=height)
        along = _line(place_x, alive, axis=1, length=width)
        if down is None or along is None:
            return None, pixels
        grid = (int(black.shape[1]), int(black.shape[2]))
        return Geometry(size, grid, (down[0], along[0], down[1], along[1])), pixels


def _pattern(size: tuple[int, int]) -> np.ndarray:
    """Return a board of dark and bright fields of all sizes, far enough from black and white to be changed."""
    down, along = (np.searchsorted(_EDGES, (np.arange(n) + 0.5) / n) % 2 for n in size)
    grey = np.where(np.not_equal.outer(down, along), 168, 88).astype(np.uint8)
    return np.repeat(grey[:, :, None], 3, axis=2)


def _told(draws: Sequence[Float[Tensor, "c h w"]]) -> str:
    """Return in words in what the results for one pattern differ, nothing where they are all the same."""
    first, *others = draws
    if all(torch.equal(first, other) for other in others):
        return ""
    if any(first.shape != other.shape for other in others):
        return _MOVES_AT_RANDOM
    fields = [_fields(draw) for draw in draws]
    still = all(bool((field != fields[0]).float().mean() <= _BLURRED) for field in fields)
    return _COLOURS_AT_RANDOM if still else _MOVES_AT_RANDOM


def _fields(values: Float[Tensor, "c h w"]) -> Bool[Tensor, "h w"]:
    """Return where the bright fields of the pattern lie, whatever the colours."""
    grey = values.mean(0)
    some = grey.flatten()[:: grey.numel() // 1_000_000 + 1]
    return grey > (some.quantile(0.1) + some.quantile(0.9)) / 2


def _pixel_range(
    black: Float[Tensor, "c h w"], white: Float[Tensor, "c h w"], alive: Bool[Tensor, "h w"]
) -> PixelRange | None:
    """Return one value a channel for black and for white, or None where the picture's content decides them."""
    low, high = black[:, alive], white[:, alive]
    span = (high - low).abs().amax()
    if max((v.amax(1) - v.amin(1)).max() for v in (low, high)) > 0.01 * span:
        return None
    return PixelRange(low.mean(1), high.mean(1))


def _line(
    place: Float[Tensor, "h w"], alive: Bool[Tensor, "h w"], axis: int, length: int
) -> tuple[float, float] | None:
    """Fit place = a + b * index along ``axis``; return where the grid's first and last edge lie, in pixels.

    ``place`` holds each input value's coordinate, 0 at the centre of the picture's first pixel and 1 at that of its
    last. None where a straight line misses by more than two pixels and one per cent.
    """
    count = place.shape[axis]
    mask = alive.double().movedim(axis, 0).reshape(count, -1)
    weight = mask.sum(1)
    centre = (place.double().movedim(axis, 0).reshape(count, -1) * mask).sum(1) / weight.clamp(min=1)
    index = torch.arange(count, dtype=torch.float64) + 0.5
    # The picture's own border is repeated by some resizes: the middle tells the slope.
    inner = (weight > 0) & (centre > 0.02) & (centre < 0.98)
    if inner.sum() < 2:
        return None
    design = torch.stack((torch.ones_like(index), index), dim=1)
    a, b = torch.linalg.lstsq(design[inner], centre[inner, None]).solution[:, 0].tolist()
    fitted = a + b * index
    off = ((place.double().movedim(axis, 0).reshape(count, -1) - fitted[:, None]).abs() * mask)[inner].max()
    if off > max(2 / length, 0.01) or abs(b) < 1e-9:
        return None
    first, last = (u * (length - 1) + 0.5 for u in (a, a + b * count))
    return first, last
