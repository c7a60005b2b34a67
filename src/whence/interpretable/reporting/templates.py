"""The templates of a masked layer, a few of them."""

import torch

from whence.models.masked.templates import cones
from whence.models.masked.wrapper import Interpretable
from whence.reports.filters import Templates


def templates(net: Interpretable, h: int, w: int) -> Templates:
    """Return the templates of maps of h x w cells around the middle, the middle of a side and a corner.

    Where filters have slopes of their own, they are drawn with the mean one.
    """
    mask = net.interpretable.mask
    beta = mask.beta.double().cpu()
    at = [(h // 2, w // 2), (h // 2, 0), (0, 0)]
    drawn = cones(torch.tensor([at]), beta.new_zeros(1, 1, h, w), beta.mean(), floor=-1.0)[0].numpy()
    return Templates(
        count=h * w,
        slopes=(float(beta.min()), float(beta.max())),
        centre=mask.centre,
        positive=list(zip(at, drawn, strict=True)),
        negative=-beta.new_ones(h, w).numpy(),
    )
