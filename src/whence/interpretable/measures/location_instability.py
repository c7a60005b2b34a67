"""Location instability: how much the distance between a filter's peak and a landmark changes between pictures.

CVPR 2018, section 5.2.2.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from whence.interpretable.measures.maps import Maps, Parts
from whence.interpretable.measures.per_filter import PerFilter, strongest
from whence.methods.numbers import at_least


@dataclass(frozen=True, eq=False)
class LocationInstability:
    """The mean over landmarks for each filter, and D_{f,k} for each filter and landmark; low where a filter stays."""

    filters: PerFilter
    landmarks: Float[Tensor, "k l"]


def location_instability(maps: Maps, parts: Parts, *, top: int = 100) -> LocationInstability:
    """Return D_{f,k} = sqrt(var d(p_k, mu^)), d = |p_k - p(mu^)| / sqrt(h^2 + w^2), and its mean over landmarks.

    p(mu^) is the middle of the receptive field of the map's largest value. Each filter and landmark has its ``top``
    pictures, of those that show the landmark and on which the filter is not silent. The variance is the unbiased
    one. Where there are fewer than two such pictures for some landmark, the filter has no number, as in the authors'
    code.

    Raises
    ------
    OptionError
        The parts are not of the same pictures, or ``top`` is below 2.
    """
    at_least(top=(top, 2))
    parts.check(maps)
    peaks = maps.fields.centres(maps.cells)
    deviations = [
        _deviation(
            (peaks - landmark[:, None].to(peaks)).norm(dim=2) / maps.diagonal,
            strongest(maps.peaks, maps.active & present[:, None], top),
        )
        for landmark, present in zip(parts.landmarks.unbind(1), parts.present.unbind(1), strict=True)
    ]
    found = torch.stack(deviations, 1) if deviations else peaks.new_empty(peaks.shape[1], 0)
    return LocationInstability(PerFilter(found.mean(1)), found)


def _deviation(d: Float[Tensor, "n k"], chosen: Bool[Tensor, "n k"]) -> Float[Tensor, " k"]:
    """Return the unbiased standard deviation of each filter's chosen distances, NaN for fewer than two."""
    count = chosen.sum(0)
    mean = d.where(chosen, 0).sum(0) / count
    squares = (d - mean).square().where(chosen, 0).sum(0)
    return (squares / (count - 1)).where(count > 1, torch.nan).sqrt()
