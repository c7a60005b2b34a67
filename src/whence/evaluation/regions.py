"""Regions: where the true evidence lies, from masks of pictures to the model's input grid."""

import hashlib
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from whence.errors import PictureError
from whence.pictures.preprocess import Geometry, Prepared
from whence.pictures.read import read


def region_on_grid(source: Any, prepared: Prepared) -> tuple[Bool[Tensor, "h w"], str]:  # noqa: ANN401  (many kinds)
    """Return a mask on the model's input grid, each place that of the nearest pixel, and the mask's hash.

    ``source`` is a picture whose pixels are inside where they are at least half as bright as white, in any channel; a
    map of parts, none of whose numbers is as high, where it is not 0; or booleans [H, W]. It is of the picture's
    size, or, where the way from the picture to the input is not known, of the input's.

    Raises
    ------
    PictureError
        It cannot be read, has an alpha channel, or has another size.
    """
    mask, sha256 = _mask(source)
    place, grid = prepared.geometry, (int(prepared.input.shape[1]), int(prepared.input.shape[2]))
    expected = grid if place is None else place.picture
    if tuple(mask.shape) != expected:
        made, whose = " x ".join(map(str, mask.shape)), "the model's input" if place is None else "the picture"
        size = " x ".join(map(str, expected))
        raise PictureError(f"the region is {made} and {whose} {size}: give a mask of the same size")
    return mask if place is None else _laid(mask, place), sha256


def _mask(source: Any) -> tuple[Bool[Tensor, "H W"], str]:  # noqa: ANN401
    given = torch.from_numpy(source) if isinstance(source, np.ndarray) and source.dtype == bool else source
    if isinstance(given, Tensor) and given.dtype == torch.bool:
        return given.cpu(), hashlib.sha256(given.cpu().numpy().tobytes()).hexdigest()
    picture = read(source)
    if any("alpha" in said for said in picture.decoded):
        raise PictureError(
            f"the region {picture.name!r} is transparent in places or could be: save it in black and white, "
            "without an alpha channel"
        )
    bright = picture.unit().amax(0)
    # Around white JPEG leaves noise in the black.
    inside = bright >= 0.5 if bool((bright >= 0.5).any()) else bright > 0
    return inside, picture.sha256


def _laid(mask: Bool[Tensor, "H W"], place: Geometry) -> Bool[Tensor, "h w"]:
    """Return the pixel under the middle of each place of the grid; outside the picture nothing is inside."""
    top, left, bottom, right = place.box
    y, x = _under(place.grid[0], top, bottom), _under(place.grid[1], left, right)
    height, width = mask.shape
    seen = ((y >= 0) & (y < height))[:, None] & ((x >= 0) & (x < width))
    return mask[y.clamp(0, height - 1)][:, x.clamp(0, width - 1)] & seen


def _under(count: int, start: float, end: float) -> Int[Tensor, " n"]:
    middles = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    return (start + middles * (end - start)).floor().long()
