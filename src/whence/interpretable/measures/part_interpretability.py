"""Part interpretability: on which share of the pictures a filter marks one and the same part.

CVPR 2018, section 5.2.1. A filter marks what lies in the cells above its threshold T_f, blown up to the picture.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import floor
from typing import Literal, get_args

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from whence.errors import OptionError, nearest
from whence.interpretable.measures.maps import Maps, Parts
from whence.interpretable.measures.per_filter import PerFilter, best, strongest
from whence.interpretable.measures.regions import Marks, bilinear, round_fields
from whence.methods.numbers import at_least

Region = Literal["round", "bilinear"]

# A filter marks a part where the two overlap by more than this share of their union.
_OVERLAP = 0.2
# How many values are held at once: maps of filters for thresholds, pixels of marks for overlaps.
_AT_ONCE = 2**20


@dataclass(frozen=True, eq=False)
class PartInterpretability:
    """P_f = max_k P_{f,k} for each filter, the part of that, and P_{f,k}, each for two ways of averaging.

    ``filters``, ``best`` and ``parts`` are the paper's, over all pictures that show the part; a filter that fires on
    few pictures is low there, wherever it fires. ``active``, ``active_best`` and ``active_parts`` are over those
    of them on which the filter is strongest and above its threshold.
    """

    filters: PerFilter
    best: tuple[str | None, ...]
    parts: Float[Tensor, "k p"]
    active: PerFilter
    active_best: tuple[str | None, ...]
    active_parts: Float[Tensor, "k p"]


def part_interpretability(
    maps: Maps,
    parts: Parts,
    categories: Int[Tensor, " k"] | None = None,
    *,
    quantile: float = 0.005,
    region: Region = "round",
    radius: float | None = None,
    top: int = 100,
) -> PartInterpretability:
    """Return P_{f,k}, the share of the pictures with part k whose marks by filter f have an IoU above 0.2 with it.

    Parameters
    ----------
    maps, parts
        The maps and the truth of the same pictures.
    categories
        Each filter's category: it is measured on the pictures of that class alone. None: on all pictures.
    quantile
        P(x > T_f) over all places and pictures. On a tie at the threshold fewer places are above it.
    region
        What is marked. ``round``: a disc around the middle of the receptive field of each valid cell. ``bilinear``:
        where the map, bilinearly enlarged, is above T_f.
    radius
        Of the discs, in pixels. The paper gives none. By default it is the distance between two cells, the reach of
        a cell in a map that is enlarged bilinearly: valid neighbours make one region, and what is marked does not
        grow with the depth of the net, as it would with the size of its receptive field.
    top
        How many pictures the second average is over, those with the largest peaks.

    Raises
    ------
    OptionError
        The parts are not of the same pictures, or an option is out of range.
    """
    at_least(top=(top, 1))
    parts.check(maps)
    _check(maps, categories, quantile, radius)
    marks = _marks_of(maps, region, radius)
    k = maps.values.shape[1]
    every, active = torch.full((2, k, len(parts.names)), torch.nan, dtype=torch.float64, device=maps.values.device)
    for pictures, filters in _groups(maps.labels, categories):
        values = maps.values[pictures][:, filters]
        threshold = thresholds(values, quantile)
        marked = _associated(values, threshold, parts.places[pictures], marks)
        contained = parts.contained[pictures][:, None].expand_as(marked)
        peaks = maps.peaks[pictures][:, filters]
        chosen = strongest(peaks, peaks > threshold, top)
        alive = (peaks > 0).any(0)[:, None]
        every[filters] = _share(marked, contained).where(alive, torch.nan)
        active[filters] = _share(marked, contained & chosen[..., None])
    (largest, part), (of_active, active_part) = best(every, parts.names), best(active, parts.names)
    return PartInterpretability(
        PerFilter(largest), part, every, PerFilter(of_active), active_part, active_parts=active
    )


def thresholds(values: Float[Tensor, "n k h w"], quantile: float) -> Float[Tensor, " k"]:
    """Return each filter's T_f: the share ``quantile`` of its values, rounded down, lies above it, fewer on a tie."""
    n, _, h, w = values.shape
    # Rounding must not lose a value where the share of them is whole.
    above = floor(quantile * n * h * w + 1e-6)
    at_once = max(1, _AT_ONCE // (n * h * w))
    found = [
        some.transpose(0, 1).flatten(1).topk(above + 1).values[:, -1] for some in torch.split(values, at_once, 1)
    ]
    return torch.cat(found)


def _groups(
    labels: Int[Tensor, " n"], categories: Int[Tensor, " k"] | None
) -> Iterator[tuple[Tensor | slice, Tensor | slice]]:
    """Yield the pictures of each category that has any, and the filters that are measured on them."""
    if categories is None:
        yield slice(None), slice(None)
        return
    for category in torch.unique(categories):
        pictures = (labels == category).nonzero().flatten()
        if len(pictures):
            yield pictures, (categories == category).nonzero().flatten()


def _associated(
    values: Float[Tensor, "n k h w"],
    threshold: Float[Tensor, " k"],
    places: Bool[Tensor, "n p height width"],
    marks: Marks,
) -> Bool[Tensor, "n k p"]:
    """Return whether the IoU of what is marked and each part is above 0.2."""
    at_once = max(1, _AT_ONCE // (values.shape[1] * places.shape[2:].numel()))
    found = []
    for maps, parts in zip(torch.split(values, at_once), torch.split(places.flatten(2), at_once), strict=True):
        marked, part = marks(maps, threshold), parts.float()
        both = (marked @ part.transpose(1, 2)).double()
        either = marked.sum(2).double()[..., None] + part.sum(2).double()[:, None] - both
        found.append(both / either > _OVERLAP)
    return torch.cat(found)


def _share(marked: Bool[Tensor, "n k p"], counted: Bool[Tensor, "n k p"]) -> Float[Tensor, "k p"]:
    """Return on which share of the pictures that count a part is marked, NaN where none counts."""
    return (marked & counted).sum(0).double() / counted.sum(0)


def _marks_of(maps: Maps, region: Region, radius: float | None) -> Marks:
    """Return what makes maps and thresholds to 1 where something is marked, 0 elsewhere."""
    if region == "bilinear":
        return bilinear(maps.size)
    if region == "round":
        return round_fields(maps.fields, maps.size, radius)
    raise OptionError(f"region={region!r} does not exist: {nearest(region, get_args(Region))}")


def _check(maps: Maps, categories: Tensor | None, quantile: float, radius: float | None) -> None:
    """Refuse options that are out of range."""
    if not 0 < quantile < 1:
        raise OptionError(f"quantile={quantile}: give a share of the places between 0 and 1, such as 0.005")
    if radius is not None and not radius > 0:
        raise OptionError(f"radius={radius}: give a number of pixels above 0, or leave it away")
    k = maps.values.shape[1]
    if categories is not None and len(categories) != k:
        raise OptionError(f"there are {len(categories)} categories and {k} filters: give one category a filter")
