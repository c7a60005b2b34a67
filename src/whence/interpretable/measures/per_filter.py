"""One number a filter, and what all measures do alike: which pictures count, and which part is the best."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor


@dataclass(frozen=True, eq=False)
class PerFilter:
    """One number for each of K filters, NaN where nothing can be said of it."""

    values: Float[Tensor, " k"]

    @property
    def mean(self) -> float:
        """The mean over the filters that have a number; NaN where none has."""
        return float(self.values.nanmean())

    @property
    def count(self) -> int:
        """How many filters have a number."""
        return int((~self.values.isnan()).sum())


def strongest(peaks: Float[Tensor, "n k"], eligible: Bool[Tensor, "n k"], top: int) -> Bool[Tensor, "n k"]:
    """Return each filter's ``top`` eligible pictures with the largest peaks, and those tied with the last of them."""
    ranked = peaks.where(eligible, -torch.inf)
    return eligible & (ranked >= ranked.topk(min(top, len(ranked)), 0).values[-1])


def best(parts: Float[Tensor, "k p"], names: Sequence[str]) -> tuple[Float[Tensor, " k"], tuple[str | None, ...]]:
    """Return each filter's largest number and its part, the first on a tie; NaN and None where all are NaN."""
    # One more column, so that there is a largest number where there is no part.
    largest, at = F.pad(parts.nan_to_num(nan=-torch.inf), (0, 1), value=-torch.inf).max(1)
    none = largest == -torch.inf
    found = tuple(None if no else names[i] for i, no in zip(at.tolist(), none.tolist(), strict=True))
    return largest.where(~none, torch.nan), found
