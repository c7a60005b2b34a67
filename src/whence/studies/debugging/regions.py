"""Where in a picture a reason lies: a box from its own map, and the picture without it."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from whence.pictures.preprocess import Geometry
from whence.pictures.read import Picture

# A cell belongs to a place, or to a picture's own region, from this share of the largest one on.
_SHARE = 0.1
# A box is grown by this part of the input's sides, and the colour around it is taken from a frame of this part.
_MARGIN, _FRAME = 1 / 32, 1 / 16


def place(mean: Float[Tensor, "g k"]) -> Bool[Tensor, "g k"]:
    """Return where a cluster's mean map lies: the cells above a tenth of its largest, and those next to them."""
    inside = (mean >= _SHARE * mean.max()).float()
    return F.max_pool2d(inside[None, None], 3, 1, 1)[0, 0] > 0


def boxes(
    relevance: Float[Tensor, "n g k"], within: Bool[Tensor, "g k"], size: tuple[int, int]
) -> Int[Tensor, "n 4"]:
    """Return each picture's region: the box around the cells above a tenth of its map's largest, within a place.

    A box, since the outline of a map may tell the class. It is grown by 1/32 of the sides.

    Parameters
    ----------
    relevance
        Maps.
    within
        Where their cluster lies.
    size
        (h, w) of the model's input.

    Returns
    -------
    Int[Tensor, "n 4"]
        (top, left, bottom, right) in pixels of the input, the last two exclusive; zeros where a map is zero there.
    """
    own = relevance * within
    top = own.amax((1, 2), keepdim=True)
    on = (own >= _SHARE * top) & (own > 0)
    (first, below), (left, right) = (_ends(on.any(axis), length) for axis, length in zip((2, 1), size, strict=True))
    found = torch.stack([first, left, below, right], 1)
    return torch.where(on.any((1, 2), keepdim=False)[:, None], found, 0)


def _ends(on: Bool[Tensor, "n g"], length: int) -> tuple[Int[Tensor, " n"], Int[Tensor, " n"]]:
    """Return the first and the last pixel, exclusive, of the cells that are on, with the margin."""
    cells, number = on.shape[1], torch.arange(on.shape[1])
    first = torch.where(on, number, cells).amin(1) * length / cells
    last = torch.where(on, number + 1, 0).amax(1) * length / cells
    margin = max(1.0, length * _MARGIN)
    low, high = (first - margin).floor().clamp(min=0), (last + margin).ceil().clamp(max=length)
    return low.long(), high.long()


def area(regions: Int[Tensor, "n 4"], size: tuple[int, int]) -> Float[Tensor, " n"]:
    """Return which share of the input each box covers."""
    sides = regions[:, 2:] - regions[:, :2]
    return sides.prod(1) / (size[0] * size[1])


def moved(regions: Int[Tensor, "n 4"], size: tuple[int, int], generator: torch.Generator) -> Int[Tensor, "n 4"]:
    """Return equal boxes at random places."""
    sides = regions[:, 2:] - regions[:, :2]
    room = torch.tensor(size) - sides + 1
    corner = (torch.rand(len(regions), 2, generator=generator) * room).long()
    return torch.cat([corner, corner + sides], 1)


def filled(region: Int[Tensor, " 4"], size: tuple[int, int]) -> Bool[Tensor, "h w"]:
    """Return which pixels lie in a box."""
    top, left, bottom, right = region.tolist()
    inside = torch.zeros(size, dtype=torch.bool)
    inside[top:bottom, left:right] = True
    return inside


def on_picture(region: Int[Tensor, " 4"], geometry: Geometry) -> Bool[Tensor, "H W"]:
    """Return which of the picture's own pixels lie in a box on the model's input."""
    return geometry.to_picture(filled(region, geometry.grid).float()) >= 0.5


def masked(pixels: Shaped[Tensor, "c H W"], region: Bool[Tensor, "H W"]) -> Shaped[Tensor, "c H W"]:
    """Return a picture whose region has the mean colour of what surrounds it.

    A black patch would be a new mark: easy to see, the same in every picture, and where some classes alone wore the
    old one, it tells these classes as well. In the picture's own colour there is less to be learnt. Whole levels are
    rounded. Where nothing surrounds the region it gets the mean colour of the whole picture.
    """
    if not region.any():
        return pixels.clone()
    frame = _surroundings(region)
    known = pixels.float()[:, frame if frame.any() else torch.ones_like(region)]
    colour = known.mean(1)[:, None, None]
    whole = colour if pixels.is_floating_point() else colour.round()
    return torch.where(region, whole.to(pixels.dtype), pixels)


def _surroundings(region: Bool[Tensor, "H W"]) -> Bool[Tensor, "H W"]:
    """Return the frame around a region's bounding box, a sixteenth of the shorter side wide."""
    wide = max(1, round(min(region.shape) * _FRAME))
    rows, columns = (region.any(axis).nonzero().flatten() for axis in (1, 0))
    frame = torch.zeros_like(region)
    frame[
        max(0, int(rows[0]) - wide) : int(rows[-1]) + wide + 1,
        max(0, int(columns[0]) - wide) : int(columns[-1]) + wide + 1,
    ] = True
    return frame & ~region


def masked_picture(picture: Picture, region: Int[Tensor, " 4"], geometry: Geometry) -> Shaped[Tensor, "C H W"]:
    """Return a picture's own pixels without its region, of the same type: uint8, or floats in [0, 1]."""
    return masked(picture.pixels, on_picture(region, geometry))
