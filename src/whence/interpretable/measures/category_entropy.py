"""Category entropy: over how many classes a filter's activation is spread."""

from math import log
from typing import get_args

import torch

from whence.errors import OptionError, nearest
from whence.interpretable.measures.maps import Maps
from whence.interpretable.measures.per_filter import PerFilter
from whence.models.masked.categories import Statistic


def category_entropy(maps: Maps, *, statistic: Statistic = "max") -> PerFilter:
    """Return -sum_c p_c log p_c / log C, p_c the share of class c in the sum of the class means of the activation.

    0 where a filter fires for one class alone, 1 where it fires for all alike. C counts the classes that have
    pictures. NaN for dead filters, and where there is one class only.

    Parameters
    ----------
    maps
        The maps and the labels.
    statistic
        What a map counts: its ``max`` or its ``sum``.

    Raises
    ------
    OptionError
        ``statistic`` is neither.
    """
    if statistic not in get_args(Statistic):
        raise OptionError(f"statistic={statistic!r} does not exist: {nearest(statistic, get_args(Statistic))}")
    value = maps.peaks.double() if statistic == "max" else maps.values.double().sum((2, 3))
    _, labels, counts = torch.unique(maps.labels, return_inverse=True, return_counts=True)
    means = value.new_zeros(len(counts), value.shape[1]).index_add_(0, labels, value) / counts[:, None]
    p = means / means.sum(0)
    if len(counts) == 1:
        return PerFilter(torch.full_like(p[0], torch.nan))
    # Rounding may leave the entropy a little above that of equal shares.
    return PerFilter((torch.special.entr(p).sum(0) / log(len(counts))).clamp(0, 1))
