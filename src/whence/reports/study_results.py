"""What the page of a study shows: numbers, pictures with their maps, and what failed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from whence.reports.images import Encoded
from whence.reports.scores import Estimate


@dataclass(frozen=True)
class Quantity:
    """A column of the rows that is measured; ``better`` is None where neither way is."""

    text: str
    title: str
    better: Literal["higher", "lower"] | None = None


@dataclass(frozen=True)
class Line:
    """The means of one model's maps by one method; ``seconds`` is the median of a picture."""

    model: str
    method: str
    pictures: int
    failed: int
    seconds: float
    passes: str
    estimates: Mapping[str, Estimate]


@dataclass(frozen=True)
class Accuracy:
    """How often a model is right, of the pictures whose class is known, and how sure it is then and else."""

    model: str
    share: Estimate
    right: Estimate
    wrong: Estimate


@dataclass(frozen=True)
class Panel:
    """A histogram: how many pictures lie in each bin, and those of another group in an outline."""

    name: str
    said: str
    filled: Sequence[int]
    outlined: Sequence[int] = ()


@dataclass(frozen=True)
class Histograms:
    """Histograms of one quantity, all on one scale; ``ticks`` stand at its beginning, middle and end.

    ``groups`` name what is filled and what is outlined. ``left_out`` panels are not drawn.
    """

    title: str
    about: str
    along: str
    ticks: tuple[str, str, str]
    panels: Sequence[Panel]
    groups: tuple[str, str] | None = None
    left_out: int = 0


@dataclass(frozen=True)
class Tile:
    """A picture with what is said of it; ``missing`` says why there is no image."""

    name: str
    said: str
    value: str
    wrong: bool
    image: Encoded | None
    missing: str | None = None


@dataclass(frozen=True)
class Gallery:
    """Some pictures in an order."""

    title: str
    about: str
    tiles: Sequence[Tile]


@dataclass(frozen=True)
class ClassLine:
    """The pictures of one class: how many are recognised, None where the classes are those given, and means."""

    label: str
    pictures: int
    accuracy: float | None
    probability: float
    value: float | None


@dataclass(frozen=True)
class Classes:
    """One model's classes, those recognised least first, and which are taken for which most often.

    ``left_out`` classes are not shown. ``quantity`` is what ``value`` is the mean of.
    """

    model: str
    known: bool
    quantity: Quantity | None
    lines: Sequence[ClassLine]
    left_out: int
    confused: Sequence[tuple[str, str, int]]


@dataclass(frozen=True)
class Failures:
    """What failed: ``rows`` in all, for each reason how many pictures, and some of them by name.

    ``left_out`` rarer reasons are not named.
    """

    rows: int
    pictures: int
    reasons: Sequence[tuple[str, int]]
    left_out: int
    shown: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class StudyReport:
    """Everything that is shown of a study."""

    whence: str
    name: str
    pictures: int
    explained: int
    rows: int
    models: Sequence[str]
    methods: Sequence[str]
    facts: Mapping[str, str]
    quantities: Sequence[Quantity]
    lines: Sequence[Line]
    accuracies: Sequence[Accuracy]
    histograms: Sequence[Histograms]
    galleries: Sequence[Gallery]
    classes: Sequence[Classes]
    failures: Failures
    notes: Sequence[tuple[str, int]]
    browse: str | None
