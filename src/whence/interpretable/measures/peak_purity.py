"""Peak purity: the share of a filter's peaks that lie in one part.

Unlike part interpretability it does not ask how many pictures a filter fires on, so that a mask gains nothing by
leaving one peak a picture.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from whence.interpretable.measures.maps import Maps, Parts
from whence.interpretable.measures.per_filter import PerFilter, best, strongest
from whence.methods.numbers import at_least


@dataclass(frozen=True, eq=False)
class PeakPurity:
    """The share of each filter's peaks in its best part, that part's name, and the shares in every part."""

    filters: PerFilter
    best: tuple[str | None, ...]
    parts: Float[Tensor, "k p"]


def peak_purity(maps: Maps, parts: Parts, *, top: int = 100, margin: float = 2.0) -> PeakPurity:
    """Return which share of each filter's ``top`` largest peaks lies in one part, for the part that holds most.

    A peak is the middle of the receptive field of the map's largest value; it lies in a part that has a pixel at
    most ``margin`` rows and columns away. Pictures without the part count as missed, silent maps not at all.

    Raises
    ------
    OptionError
        The parts are not of the same pictures, ``top`` is below 1 or ``margin`` negative.
    """
    at_least(top=(top, 1), margin=(margin, 0))
    parts.check(maps)
    chosen = strongest(maps.peaks, maps.active, top)
    rows = _windows(maps.fields.rows, maps.size[0], margin)
    columns = _windows(maps.fields.columns, maps.size[1], margin)
    cells = maps.cells[..., 0] * len(maps.fields.columns) + maps.cells[..., 1]
    hits = [
        ((rows @ place.to(rows) @ columns.T > 0).flatten(1).gather(1, cells) & chosen).sum(0)
        for place in parts.places.unbind(1)
    ]
    counted = torch.stack(hits, 1) if hits else cells.new_empty(cells.shape[1], 0)
    shares = counted.double() / chosen.sum(0)[:, None]
    largest, names = best(shares, parts.names)
    return PeakPurity(PerFilter(largest), names, shares)


def _windows(middles: Float[Tensor, " cells"], length: int, margin: float) -> Float[Tensor, "cells length"]:
    """Return 1 for the pixels at most ``margin`` away from the pixel in which each middle lies, 0 for the others."""
    pixels = torch.arange(length).to(middles)
    # A pixel reaches half a pixel to either side of its middle.
    return ((middles[:, None] - pixels).abs() <= margin + 0.5).float()
