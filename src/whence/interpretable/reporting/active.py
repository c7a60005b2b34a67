"""Where in a picture a filter is active: its map after the mask, brought to the picture's size, above a threshold."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from whence.interpretable.measures import ReceptiveFields


def active(
    maps: Float[Tensor, "n h w"], threshold: Float[Tensor, " n"], fields: ReceptiveFields, size: tuple[int, int]
) -> Bool[Tensor, "n H W"]:
    """Return where each map, stretched between the middles of its cells' receptive fields, is above its threshold.

    Between two middles values are interpolated linearly, beyond the outermost they stay as they are. ``size`` is
    (H, W), that of the model's input.
    """
    rows, columns = (_weights(m, n).to(maps) for m, n in zip((fields.rows, fields.columns), size, strict=True))
    return rows @ maps @ columns.T > threshold[:, None, None]


def _weights(middles: Float[Tensor, " cells"], length: int) -> Float[Tensor, "length cells"]:
    """Return how much each cell counts at each pixel: tents around the middles, flat beyond the ends."""
    cells = len(middles)
    at = torch.arange(length).to(middles).clamp(float(middles[0]), float(middles[-1]))
    right = torch.searchsorted(middles, at).clamp(min(1, cells - 1), cells - 1)
    left = (right - 1).clamp(min=0)
    share = ((at - middles[left]) / (middles[right] - middles[left])).nan_to_num()
    weights = middles.new_zeros(length, cells)
    return weights.scatter_add(1, left[:, None], 1 - share[:, None]).scatter_add(1, right[:, None], share[:, None])
