"""What a filter marks in a picture: its valid cells, those above a threshold, blown up to the picture's pixels.

Both functions return a function from maps and thresholds to 1 for each pixel that is marked and 0 for the others.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from whence.interpretable.measures.receptive import ReceptiveFields
from whence.models.masked.templates import exact

Marks = Callable[[Float[Tensor, "n k h w"], Float[Tensor, " k"]], Float[Tensor, "n k pixels"]]


def bilinear(size: tuple[int, int]) -> Marks:
    """Mark where the map, bilinearly enlarged to the picture, is above the threshold."""

    def marks(values: Tensor, threshold: Tensor) -> Tensor:
        large = F.interpolate(exact(values), size, mode="bilinear", align_corners=False)
        return (large.flatten(2) > threshold[:, None]).float()

    return marks


def round_fields(fields: ReceptiveFields, size: tuple[int, int], radius: float | None) -> Marks:
    """Mark the union of the discs around the middles of the valid cells' receptive fields.

    ``radius`` is in pixels; by default it is the distance between two cells, along the axis where that is larger.
    """
    rows, columns = (
        (middles[:, None] - torch.arange(length).to(middles)).square()
        for middles, length in zip((fields.rows, fields.columns), size, strict=True)
    )
    reach = distance(fields, size) if radius is None else radius
    discs = (rows[:, None, :, None] + columns[None, :, None] <= reach**2).float()
    discs = discs.reshape(len(rows) * len(columns), -1)

    def marks(values: Tensor, threshold: Tensor) -> Tensor:
        valid = values.flatten(2) > threshold[:, None]
        counts = valid.sum(2).flatten()
        # The union of the discs of each map's valid cells, which are few: the sum of those rows alone.
        cells = valid.flatten(0, 1).nonzero()[:, 1]
        union = F.embedding_bag(cells, discs, counts.cumsum(0) - counts, mode="sum") > 0
        return union.float().reshape(*valid.shape[:2], -1)

    return marks


def distance(fields: ReceptiveFields, size: tuple[int, int]) -> float:
    """Return the distance between two cells' middles in pixels, along the axis where that is larger."""
    return max(
        float(middles[1] - middles[0]) if len(middles) > 1 else float(length)
        for middles, length in zip((fields.rows, fields.columns), size, strict=True)
    )
