"""The one ranking of places: by the signed, reduced map, ties averaged."""

from math import ceil

import torch
from jaxtyping import Float
from torch import Tensor

from whence.errors import OptionError


def top_share(heat: Float[Tensor, "b h w"], share: float) -> Float[Tensor, "b h w"]:
    """Return for each place how much of it belongs to the ``share`` of the area where the map is highest.

    1 where the map is higher than at the share's edge, 0 where it is lower; the places tied there take equal parts of
    what is left, so that every mask has the same area, also where the map is constant.

    Raises
    ------
    OptionError
        ``share`` is not between 0 and 1.
    """
    if not 0 < share < 1:
        raise OptionError(f"share={share}: give a part of the area between 0 and 1, such as 0.064")
    # In half precision the areas could not be counted.
    flat = heat.flatten(1).float() if heat.dtype in (torch.float16, torch.bfloat16) else heat.flatten(1)
    area = share * flat.shape[1]
    edge = flat.topk(ceil(area), dim=1).values[:, -1:]
    above, tied = (flat > edge).to(flat), (flat == edge).to(flat)
    left = area - above.sum(1, keepdim=True)
    return (above + tied * left / tied.sum(1, keepdim=True)).reshape(heat.shape)
