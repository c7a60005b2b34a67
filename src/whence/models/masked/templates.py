"""Templates: where a filter should be active, a cone around one place, or nowhere.

Along each axis of a map distances count as shares of its length, d = |di| / H + |dj| / W; for H = W this is the
paper's ||[i, j] - mu||_1 / n. Everything here is free of tau: the mask has none, the losses multiply by theirs.
"""

from typing import Literal, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor

from whence.errors import OptionError, nearest

Centre = Literal["argmax", "centroid"]

# One slope for all filters, or one a filter.
Beta = float | Float[Tensor, ""] | Float[Tensor, " k"]


def check_centre(centre: str) -> None:
    """Refuse a way of centring that does not exist.

    Raises
    ------
    OptionError
        It is neither ``argmax`` nor ``centroid``.
    """
    if centre not in get_args(Centre):
        raise OptionError(f"centre={centre!r} is no way to centre a template: {nearest(centre, get_args(Centre))}")


def exact(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Return maps in float32 where they are of half precision, whose ties would move a centre."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def centres(x: Float[Tensor, "b k h w"], centre: Centre) -> Int[Tensor, "b k 2"]:
    """Return the place (i, j) of each map's template: its maximum, or its centroid, rounded half up.

    ``argmax`` is the paper's mu^; ``centroid`` is what the authors' code trains with. A silent map has its template
    at (0, 0).
    """
    check_centre(centre)
    _, _, h, w = x.shape
    x = x.detach()
    if centre == "argmax":
        flat = x.flatten(2).argmax(2)
        return torch.stack((flat // w, flat % w), 2)
    mass = x.sum((2, 3)).clamp(min=torch.finfo(x.dtype).tiny)
    i = (x.sum(3) * torch.arange(h).to(x)).sum(2) / mass
    j = (x.sum(2) * torch.arange(w).to(x)).sum(2) / mass
    return (torch.stack((i, j), 2) + 0.5).floor().long()


def cones(
    at: Int[Tensor, "b k 2"], like: Float[Tensor, "b2 k2 h w"], beta: Beta, floor: float
) -> Float[Tensor, "b k h w"]:
    """Return max(1 - beta d, floor) around the places ``at``, on maps of the size, device and type of ``like``.

    With ``floor`` -1 this is the positive template T_mu / tau (section 3, after eq. (2)), with 0 the mask.
    """
    h, w = like.shape[2:]
    i, j = at[..., 0, None, None], at[..., 1, None, None]
    rows = (torch.arange(h).to(at)[:, None] - i).abs().to(like) / h
    columns = (torch.arange(w).to(at) - j).abs().to(like) / w
    slope = torch.as_tensor(beta, dtype=like.dtype, device=like.device).reshape(-1, 1, 1)
    return (1 - slope * (rows + columns)).clamp(min=floor)


def table(like: Float[Tensor, "b k h w"], beta: float) -> Float[Tensor, "t n"]:
    """Return all T = H W + 1 templates over tau as rows of n = H W places: the positive ones, the negative one."""
    h, w = like.shape[2:]
    places = torch.cartesian_prod(torch.arange(h), torch.arange(w)).to(like.device)
    positive = cones(places[None], like, beta, floor=-1.0)[0].flatten(1)
    return torch.cat((positive, -torch.ones_like(positive[:1])))
