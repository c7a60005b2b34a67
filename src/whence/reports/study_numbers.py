"""From the numbers of a study's rows to what its page says of them."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from whence.reports.evaluation import text
from whence.reports.scores import Estimate, estimate
from whence.reports.study_results import Accuracy, Classes, ClassLine, Panel, Quantity

BINS = 20
# Pictures from which on a mean is so nearly normal that resampling them says nothing more.
MANY = 2000
# Half the length of an interval that holds 95 % of a normal distribution, in standard deviations.
_NORMAL = 1.96
# The powers of ten between which residuals are drawn.
_LEAST, _MOST = -8.0, 0.0
POWERS = ("10⁻⁸ or less", "10⁻⁴", "1 or more")
MOST_CLASSES, _MOST_CONFUSED = 40, 10


@dataclass(frozen=True, eq=False)
class Cell:
    """The numbers of one model's maps by one method, a value for each of n pictures, NaN where there is none.

    ``number`` is the picture's place in the study; ``predicted`` and ``truth`` are classes, -1 where not known.
    """

    model: str
    method: str
    number: Int[Tensor, " n"]
    predicted: Int[Tensor, " n"]
    truth: Int[Tensor, " n"]
    values: Mapping[str, Float[Tensor, " n"]]

    @property
    def known(self) -> Bool[Tensor, " n"]:
        """Which pictures' classes are known."""
        return (self.truth >= 0) & (self.predicted >= 0)

    @property
    def right(self) -> Bool[Tensor, " n"]:
        """Which pictures are known to be recognised."""
        return self.known & (self.predicted == self.truth)

    @property
    def wrong(self) -> Bool[Tensor, " n"]:
        """Which pictures are known to be taken for another class."""
        return self.known & (self.predicted != self.truth)


def estimated(values: Float[Tensor, " n"]) -> Estimate:
    """Return a mean with its 95 % interval: a bootstrap's, or, of many values, that of a normal distribution."""
    defined = values[values.isfinite()]
    count = len(defined)
    if count <= MANY:
        return estimate([*defined.tolist(), *[float("nan")] * (len(values) - count)])
    mean, error = float(defined.mean()), float(defined.std()) / sqrt(count)
    return Estimate(mean, mean - _NORMAL * error, mean + _NORMAL * error, count, len(values) - count)


def share(right: int, count: int) -> Estimate:
    """Return a share of ``count`` with its 95 % interval: Wilson 1927, also right where all or none are."""
    z, p = _NORMAL**2, right / count
    middle = (p + z / (2 * count)) / (1 + z / count)
    half = _NORMAL / (1 + z / count) * sqrt(p * (1 - p) / count + z / (4 * count**2))
    return Estimate(p, max(0.0, middle - half), min(1.0, middle + half), count, 0)


def scale(values: Float[Tensor, " n"]) -> tuple[float, float]:
    """Return from where to where histograms reach: 0 to 1 where all values do, else from the least to the largest."""
    defined = values[values.isfinite()]
    low, high = (float(defined.min()), float(defined.max())) if len(defined) else (0.0, 1.0)
    if low >= 0 and high <= 1:
        return 0.0, 1.0
    return (low - 0.5, high + 0.5) if low == high else (low, high)


def counts(values: Float[Tensor, " n"], ends: tuple[float, float]) -> list[int]:
    """Return how many values lie in each bin; those beyond the ends lie in the outer ones."""
    own = values[values.isfinite()].clamp(*ends)
    return [int(n) for n in torch.histc(own, BINS, *ends).tolist()]


def panel(cell: Cell, name: str, ends: tuple[float, float]) -> Panel:
    """Return the histogram of one quantity of a model's maps by a method."""
    own = cell.values[name]
    return Panel(f"{cell.model}, {cell.method}", f"mean {text(estimated(own))[0]}", counts(own, ends))


def panel_of_truth(cell: Cell, name: str) -> Panel:
    """Return the histogram of a probability of one model: where it is right, and outlined, where it is wrong.

    Where no class is known, of all pictures.
    """
    own, unit = cell.values[name], (0.0, 1.0)
    if not bool(cell.known.any()):
        return Panel(cell.model, f"{len(own):,} pictures", counts(own, unit))
    right, wrong = own[cell.right], own[cell.wrong]
    return Panel(cell.model, f"{len(right):,} right, {len(wrong):,} wrong", counts(right, unit), counts(wrong, unit))


def magnitudes(values: Float[Tensor, " n"]) -> list[int]:
    """Return how many residuals have each order of magnitude, along the axis that ``POWERS`` names."""
    return counts(values[~values.isnan()].abs().log10().clamp(_LEAST, _MOST), (_LEAST, _MOST))


def ranked(cell: Cell, name: str, better: str, most: int) -> tuple[list[int], list[int]]:
    """Return the places of the best and of the worst values, none in both, the most extreme first."""
    own = cell.values[name]
    defined = own.isfinite().nonzero()[:, 0]
    order = defined[own[defined].sort(descending=better == "higher", stable=True).indices].tolist()
    count = min(most, -(-len(order) // 2))
    return order[:count], order[::-1][: min(count, len(order) - count)]


def mistakes(cell: Cell, most: int) -> list[int]:
    """Return the places of the pictures of which the model is surest where it is wrong."""
    places = cell.wrong.nonzero()[:, 0]
    sure = cell.values["predicted_probability"][places].sort(descending=True, stable=True).indices
    return [int(place) for place in places[sure][:most]]


def accuracy(cell: Cell) -> Accuracy | None:
    """Return how often a model is right, None where no class is known."""
    if not bool(cell.known.any()):
        return None
    sure = cell.values["predicted_probability"]
    return Accuracy(
        model=cell.model,
        share=share(int(cell.right.sum()), int(cell.known.sum())),
        right=estimated(sure[cell.right]),
        wrong=estimated(sure[cell.wrong]),
    )


def classes(cell: Cell, labels: Sequence[str] | None, quantity: Quantity | None) -> Classes:
    """Return a line for each class that occurs: the true ones, or, where none is known, those given."""
    known = bool(cell.known.any())
    of = torch.where(cell.known, cell.truth, -1) if known else cell.predicted
    pictures = _by_class(of, torch.ones(len(of)).double())[0]
    recognised = _by_class(of, cell.right.double())[1]
    sure = _by_class(of, cell.values["predicted_probability"])[1]
    value = _by_class(of, cell.values[quantity.text])[1] if quantity else None
    lines = [
        ClassLine(
            label=_label(labels, k),
            pictures=int(pictures[k]),
            accuracy=float(recognised[k]) if known else None,
            probability=float(sure[k]),
            value=None if value is None else float(value[k]),
        )
        for k in pictures.nonzero()[:, 0].tolist()
    ]
    lines.sort(key=lambda line: (line.accuracy or 0.0, -line.pictures))
    shown = lines[:MOST_CLASSES]
    return Classes(cell.model, known, quantity, shown, len(lines) - len(shown), _confused(cell, labels))


def _by_class(of: Int[Tensor, " n"], values: Float[Tensor, " n"]) -> tuple[Float[Tensor, " k"], Float[Tensor, " k"]]:
    """Return how many values each class has, and their mean, NaN where it has none."""
    own = (of >= 0) & values.isfinite()
    size = int(of.clamp(min=0).max()) + 1
    count = of[own].bincount(minlength=size).double()
    return count, of[own].bincount(values[own], minlength=size) / count


def _confused(cell: Cell, labels: Sequence[str] | None) -> list[tuple[str, str, int]]:
    """Return which classes are taken for which others most often."""
    pairs = Counter(zip(cell.truth[cell.wrong].tolist(), cell.predicted[cell.wrong].tolist(), strict=True))
    most = sorted(pairs.items(), key=lambda pair: (-pair[1], pair[0]))[:_MOST_CONFUSED]
    return [(_label(labels, truth), _label(labels, given), count) for (truth, given), count in most]


def _label(labels: Sequence[str] | None, index: int) -> str:
    return labels[index] if labels else f"class {index}"
