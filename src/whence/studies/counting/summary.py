"""What is said of models from the counts of many pictures: means, medians, intervals, and paired differences."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import isnan, nan
from statistics import median

from whence.reports.counting_results import KEYS, PAIRED, Difference, Figure, Group, GroupKey, Summary
from whence.reports.scores import estimate
from whence.studies.counting.counted import Counted


@dataclass(frozen=True)
class Case:
    """One picture of one model: its number, and whether the model classifies it correctly, None where not known."""

    model: str
    number: int
    correct: bool | None
    counted: Counted


Together = Sequence[Mapping[str, Case]]
"""Some pictures: of each one the case of every model."""


def groups(cases: Sequence[Case], models: Sequence[str], seed: int = 0) -> tuple[Group, ...]:
    """Return the counts over the pictures of which every model has a graph.

    First over those that all models classify correctly, then over all, then over those where no model's search was
    capped and every model's graph holds all subsets of its sets, so that all counts of subsets are exact.
    """
    by_number: dict[int, dict[str, Case]] = {}
    for case in cases:
        by_number.setdefault(case.number, {})[case.model] = case
    every = [own for own in by_number.values() if len(own) == len(models)]
    correct = [own for own in every if all(case.correct for case in own.values())]
    whole = [own for own in every if all(c.counted.opened and not c.counted.capped for c in own.values())]
    compared = _compared(every, models, seed)

    def group(key: GroupKey, pictures: Together) -> Group:
        # Nothing is resampled again for the same pictures.
        own = compared if len(pictures) == len(every) else _compared(pictures, models, seed)
        return Group(key, len(pictures), *own)

    return group("correct", correct), group("all", every), group("whole", whole)


def _compared(
    pictures: Together, models: Sequence[str], seed: int
) -> tuple[tuple[Summary, ...], tuple[Difference, ...]]:
    """Return what is counted of each model, and of each pair of models; nothing where there is no picture."""
    if not pictures:
        return (), ()
    columns = {model: _columns([own[model].counted for own in pictures]) for model in models}
    summaries = (_summary(model, [own[model].counted for own in pictures], columns[model], seed) for model in models)
    pairs = (_difference(a, b, columns[a], columns[b], seed) for a, b in combinations(models, 2))
    return tuple(summaries), tuple(pairs)


def _columns(counted: Sequence[Counted]) -> dict[str, list[float]]:
    """Return the values of each key, picture by picture."""
    values = [one.values for one in counted]
    return {key: [own[key] for own in values] for key in KEYS}


def _summary(model: str, counted: Sequence[Counted], columns: Mapping[str, Sequence[float]], seed: int) -> Summary:
    def figure(values: Sequence[float]) -> Figure:
        defined = [value for value in values if not isnan(value)]
        return Figure(estimate(values, seed), median(defined) if defined else nan)

    return Summary(
        model,
        {key: figure(values) for key, values in columns.items()},
        capped=sum(one.capped for one in counted),
        rootless=sum(one.rootless for one in counted),
        limited=sum(one.limited for one in counted),
        unopened=sum(not one.opened for one in counted),
    )


def _difference(
    first: str, second: str, of: Mapping[str, Sequence[float]], other: Mapping[str, Sequence[float]], seed: int
) -> Difference:
    """Return the mean differences of two models; NaN minus anything is NaN, which ``estimate`` leaves out."""
    apart = {key: [a - b for a, b in zip(of[key], other[key], strict=True)] for key in PAIRED}
    return Difference(first, second, {key: estimate(values, seed) for key, values in apart.items()})
