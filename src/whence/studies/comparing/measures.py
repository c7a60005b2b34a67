"""How far one map is from another, of one picture or of two."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from whence.metrics.randomisation import correlation
from whence.metrics.ranking import Ranking

# Finer than this no eye sees where a mean over pictures lies.
_CELLS = 32


def shares(maps: Float[Tensor, "n h w"]) -> Float[Tensor, "n h w"]:
    """Return the positive part of signed maps, each divided by its sum; NaN where a map has none."""
    positive = maps.clamp(min=0).double()
    return positive / positive.sum((1, 2), keepdim=True)


def moved(p: Float[Tensor, "n h w"], q: Float[Tensor, "n h w"]) -> Float[Tensor, " n"]:
    """Return 1/2 sum |p - q|, the total variation: 0 where shares are the same, 1 where they have no place in common.

    NaN where one of the two is not defined.
    """
    return (p - q).abs().sum((1, 2)) / 2


def rank_correlation(a: Float[Tensor, "n h w"], b: Float[Tensor, "n h w"]) -> Float[Tensor, " n"]:
    """Return Spearman's correlation over the places of signed maps, ties averaged; NaN where a map is constant."""
    return correlation(_ranks(a), _ranks(b))


def _ranks(maps: Float[Tensor, "n h w"]) -> Float[Tensor, "n places"]:
    """Return every place's rank from the highest, but for a constant."""
    ranking = Ranking.of(maps)
    return (ranking.higher + ranking.tied / 2).flatten(1).double()


def others(count: int, generator: torch.Generator) -> Int[Tensor, " n"]:
    """Return for each of ``count`` pictures another one, by chance: a permutation that moves all, of two or more."""
    order = torch.randperm(count, generator=generator)
    other = torch.empty_like(order)
    other[order] = order.roll(1)
    return other


def coarse(shares: Float[Tensor, "n h w"]) -> Float[Tensor, "n g k"]:
    """Return shares on at most 32 x 32 cells, whose sum is that of the places that they cover."""
    rows, columns = (_overlaps(length, min(length, _CELLS)).to(shares) for length in shares.shape[1:])
    return rows @ shares @ columns.T


def _overlaps(length: int, cells: int) -> Float[Tensor, "cells length"]:
    """Return which part of each of ``length`` places lies in each of ``cells`` equal cells."""
    first = torch.arange(cells)[:, None] * (length / cells)
    place = torch.arange(length)
    last = first + length / cells
    return (torch.minimum(last, place + 1) - torch.maximum(first, place)).clamp(min=0)
