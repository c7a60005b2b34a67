"""What stands behind a layer: a convolution with a rectifier where one is added, then the mask."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from whence.errors import OptionError
from whence.models.masked.templates import Beta, Centre, centres, check_centre, cones, exact


class Mask(nn.Module):
    """The mask of a rectified map: x o max(1 - beta d, 0), d the distance from the map's centre, without tau.

    ``on`` switches it; a net that is trained from nothing learns without the mask first.

    Parameters
    ----------
    beta
        How fast the mask falls, one number or one a filter; at d = 1 / beta it has reached zero.
    centre
        ``argmax`` or ``centroid``.

    Raises
    ------
    OptionError
        ``centre`` is neither.
    """

    beta: Tensor

    def __init__(self, beta: Beta = 4.0, centre: Centre = "argmax") -> None:
        super().__init__()
        check_centre(centre)
        if not bool(((slope := torch.as_tensor(beta)) > 0).all()) or not bool(slope.isfinite().all()):
            raise OptionError(f"beta={beta}: give numbers above 0")
        # In float64 until it is moved to the maps' type, so that a net in float64 gets the slope asked for.
        self.register_buffer("beta", torch.as_tensor(beta, dtype=torch.float64).detach().clone())
        self.centre: Centre = centre
        self.on = True

    def forward(self, x: Float[Tensor, "b k h w"]) -> Float[Tensor, "b k h w"]:
        """Return the masked maps; to the gradient the mask is a constant.

        Switched off it returns a copy: what follows may work in place.
        """
        return x * masks(x, self.beta, self.centre) if self.on else x.clone()

    def extra_repr(self) -> str:
        """Return the way of centring, and whether the mask is on."""
        return f"centre={self.centre}, on={self.on}"


@torch.no_grad()
def masks(x: Float[Tensor, "b k h w"], beta: Beta, centre: Centre) -> Float[Tensor, "b k h w"]:
    """Return max(T_mu^ / tau, 0) for each map, found in float32 where the maps are of half precision."""
    maps = exact(x)
    return cones(centres(maps, centre), maps, beta, floor=0.0).to(x)


class Rectified(nn.Conv2d):
    """A convolution of 3 x 3 with as many filters as channels and a rectifier behind it; at first the identity.

    On a rectified map nothing changes until it is trained; of a signed map the negative part is lost.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels, 3, padding=1)

    def reset_parameters(self) -> None:
        """Make the convolution the identity."""
        nn.init.dirac_(self.weight)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, x: Float[Tensor, "b k h w"]) -> Float[Tensor, "b k h w"]:
        """Return relu(x * kernel + bias)."""
        return super().forward(x).relu()
