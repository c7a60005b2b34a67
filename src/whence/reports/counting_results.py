"""What a page about counted sub-explanations is made of: plain data, no model in sight."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any, Literal

from whence.reports.scores import Estimate

SCHEMA = 1

THRESHOLDS = (0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1)
"""Shares of the whole picture's probability, theta, from which a subset counts."""
OVERLAPS = (0, 1, 2)
"""How many patches two sets may share to count as two ways to the decision."""

Kind = Literal["sub", "tree", "share"]
GroupKey = Literal["correct", "all", "whole"]


def at(kind: Kind, theta: float) -> str:
    """Return the key of what is counted from a threshold on."""
    return f"{kind}:{theta}"


@dataclass(frozen=True)
class Measure:
    """What is counted: its names in count.json and on the page, and what it says of a model that has more of it."""

    key: str
    title: str
    about: str


SINGLE = (
    Measure("roots", "|M|", "sets found that suffice"),
    *(
        Measure(
            f"compatible:{n}",
            f"overlap {n}",
            f"most of them of which no two share more than {n} patch{'es' * (n != 1)}",
        )
        for n in OVERLAPS
    ),
    Measure("size", "size", "patches of a set, mean over the sets of a picture"),
    Measure("area", "area", "area under the mean ratio over the share of patches kept"),
)
BY_THRESHOLD: Mapping[Kind, str] = {
    "sub": "|SUB(θ)|, each subset once",
    "share": "|SUB(θ)| / (2^k − 2), free of the size",
    "tree": "|SUB(θ)|, once for each way to it",
}
KEYS = (*(m.key for m in SINGLE), *(at(kind, theta) for kind in BY_THRESHOLD for theta in THRESHOLDS))
"""Everything that is counted of a picture, in order."""
PAIRED = tuple(key for key in KEYS if not key.startswith("tree:"))
"""What pairs of models are compared by: not the ways to subsets, which grow with the factorial of a set's size."""


@dataclass(frozen=True)
class Figure:
    """The mean over pictures with its interval, and the median of the same pictures, NaN where there are none."""

    estimate: Estimate
    median: float


@dataclass(frozen=True)
class Summary:
    """What is counted of one model: ``figures`` by key, and on how many pictures the counts are not whole.

    ``capped`` searches ended before their end or found no set of patches, ``rootless`` are the latter; ``limited``
    ones found as many sets as were asked for; ``unopened`` graphs do not hold all subsets of their sets.
    """

    model: str
    figures: Mapping[str, Figure]
    capped: int
    rootless: int
    limited: int
    unopened: int


@dataclass(frozen=True)
class Difference:
    """The mean of what is counted of the first model minus that of the second, picture by picture, by key."""

    first: str
    second: str
    estimates: Mapping[str, Estimate]


@dataclass(frozen=True)
class Group:
    """Some of the pictures, the same for all models."""

    key: GroupKey
    pictures: int
    summaries: tuple[Summary, ...]
    differences: tuple[Difference, ...]


@dataclass(frozen=True)
class Search:
    """How the sets were searched: the same for all pictures and models; as ``AttentionGraph`` has it."""

    grid: int
    style: str
    baseline: str
    threshold: float
    criterion: str
    overlap: int
    expand: float


@dataclass(frozen=True)
class CountReport:
    """Everything that is shown of counted sub-explanations.

    ``method`` is the search as it was asked for, ``limit`` the most sets that it shows, ``budget`` the most that it
    asks the model about. ``missing`` is how many graphs the study has still to make, ``failed`` says of each model
    how many pictures have none. ``rows`` are the counts of each picture and model, as JSON holds them.
    """

    whence: str
    method: str
    search: Search
    limit: int
    budget: int
    models: tuple[str, ...]
    missing: int
    failed: Mapping[str, int]
    seed: int
    groups: tuple[Group, ...]
    rows: Sequence[Mapping[str, Any]]


def figures(report: CountReport) -> dict[str, Any]:
    """Return everything as it stands in count.json; what is not defined is None."""
    told: dict[str, Any] = _known(
        {
            "schema": SCHEMA,
            "whence": report.whence,
            "method": report.method,
            "search": {**vars(report.search), "roots": report.limit, "budget": report.budget},
            "thresholds": list(THRESHOLDS),
            "overlaps": list(OVERLAPS),
            "seed": report.seed,
            "models": list(report.models),
            "missing": report.missing,
            "failed": dict(report.failed),
            "groups": [_group(group) for group in report.groups],
            "pictures": [dict(row) for row in report.rows],
        }
    )
    return told


def _group(group: Group) -> dict[str, Any]:
    def summary(one: Summary) -> dict[str, Any]:
        made = {key: {**vars(f.estimate), "median": f.median} for key, f in one.figures.items()}
        return {**vars(one), "figures": made}

    def difference(one: Difference) -> dict[str, Any]:
        return {**vars(one), "estimates": {key: dict(vars(e)) for key, e in one.estimates.items()}}

    return {
        **vars(group),
        "summaries": [summary(one) for one in group.summaries],
        "differences": [difference(one) for one in group.differences],
    }


def _known(value: Any) -> Any:  # noqa: ANN401  (what JSON holds)
    """Return the value with None in the place of NaN and infinity."""
    if isinstance(value, dict):
        return {key: _known(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_known(one) for one in value]
    return None if isinstance(value, float) and not isfinite(value) else value
