"""A leaderboard of methods: their maps of creatures, held against what the classifier itself says of the parts."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from math import inf, isnan, nan
from statistics import mean
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from whence.asking import MethodRequest
from whence.attribution import attribute_all
from whence.batches import answered, mistaken
from whence.creatures.code import PARTS
from whence.creatures.drawing import draw_many
from whence.creatures.score import prepared
from whence.creatures.truth import TAG, Truth, redrawing, truth
from whence.errors import LayerError, ModelError, SizeError, UnsupportedError, WhenceError
from whence.evaluation.regions import region_on_grid
from whence.metrics.pointing import pointing_hits
from whence.metrics.relevance_mass import mass_inside
from whence.models.classifier import Classifier
from whence.registry import METHODS
from whence.reports.scores import Estimate, estimate
from whence.results import Attribution

# The rows that make the scale readable: maps of the truth, of what the class loses without each player alone, and of
# nothing.
ORACLE, WITHOUT, FLAT = "the truth itself", "without each part", "the same everywhere"
# What every map is measured by, and what is measured besides where a tag is worn.
MEASURES, OF_TAG = ("rank", "first", "parts", "mass"), ("tag", "tag_mass")
# A pair of parts suffices that keeps more than this share of the probability.
SUFFICES = 0.9
# So many creatures go through a method together.
_TOGETHER = 10
# A method that meets one of these on every creature does not fit the model.
_UNFIT = (UnsupportedError, SizeError, LayerError)

Map = Float[Tensor, "h w"]
Place = Bool[Tensor, "h w"]


@dataclass(frozen=True)
class Case:
    """A creature as the classifier takes it, with its truth.

    ``places`` says where players are seen on that grid, ``importance`` what each counts for, and ``without`` how far
    the log-odds fall without each alone.
    """

    input: Float[Tensor, "c h w"]
    places: Mapping[str, Place]
    importance: Mapping[str, float]
    without: Mapping[str, float]

    def region(self, names: Iterable[str]) -> Place:
        """Return where any of some players is seen."""
        nowhere = torch.zeros(self.input.shape[1:], dtype=torch.bool)
        return torch.stack([nowhere, *(self.places[name] for name in names if name in self.places)]).any(0)

    @property
    def first(self) -> Place:
        """Where that player is seen which counts most of those that are seen."""
        return self.region(sorted(self.places, key=lambda name: -self.importance[name])[:1])

    def painted(self, values: Mapping[str, float]) -> Map:
        """Return the map that holds each player's value where it is seen."""
        nothing = torch.zeros(self.input.shape[1:], dtype=torch.float64)
        return sum((values[name] * place for name, place in self.places.items()), start=nothing)


@dataclass(frozen=True)
class _Task:
    """One method of those that were asked for, and the creatures that it is to explain."""

    classifier: Classifier
    requests: Sequence[MethodRequest]
    request: MethodRequest
    cases: Sequence[Case]
    seed: int

    def explained(self, numbers: Sequence[int]) -> Attribution:
        """Explain what the classifier says of some of the creatures."""
        x, names = torch.stack([self.cases[n].input for n in numbers]), [f"creature {n}" for n in numbers]
        options = self.request.given({"seed": self.seed}).options
        method = self.request.method
        return attribute_all(self.classifier, x, method, [None], options, names=names, seed=self.seed)[0]


@dataclass(frozen=True)
class Row:
    """What one method's map of one creature scores: ``values`` by measure, NaN where not defined; none in an error.

    ``passes`` (forward, backward, partial) and ``seconds`` are this creature's even share of its batch's.
    """

    creature: int
    method: str
    values: Mapping[str, float]
    passes: tuple[float, float, float] = (0.0, 0.0, 0.0)
    seconds: float = 0.0
    error: str | None = None


@dataclass(frozen=True)
class Line:
    """A method's means over the creatures that it could explain; on ``failed`` of them it could not.

    ``passes`` (forward, backward, partial) and ``seconds`` are means for one creature.
    """

    method: str
    class_agnostic: bool
    estimates: Mapping[str, Estimate]
    passes: tuple[float, ...]
    seconds: float
    failed: int


@dataclass(frozen=True)
class Player:
    """What a part, or the tag, counts for in truth.

    ``importance`` is in log-odds, over all creatures. ``seen`` is the share of these in which it is seen, ``first``
    the share in which it counts most of those that are seen.
    """

    name: str
    importance: Estimate
    seen: float
    first: float


@dataclass(frozen=True)
class Leaderboard:
    """How well methods find out which parts of ``count`` creatures a model goes by.

    ``lines`` stand in the order of their rank agreement. ``pairs`` is how many pairs of players suffice, in the mean.
    ``left_out`` says of which methods, and why, that they do not fit the model.
    """

    model: str
    count: int
    seed: int
    tags: float | None
    players: tuple[Player, ...]
    pairs: float
    lines: tuple[Line, ...]
    rows: tuple[Row, ...]
    left_out: Mapping[str, str]

    @property
    def measures(self) -> tuple[str, ...]:
        """What the maps were measured by."""
        return MEASURES if self.tags is None else MEASURES + OF_TAG

    @property
    def failed(self) -> tuple[Row, ...]:
        """The rows of maps that could not be made."""
        return tuple(row for row in self.rows if row.error is not None)

    def to_json(self) -> dict[str, Any]:
        """Return all but the single rows as JSON can hold it; what is not defined is None."""
        failed = [{"creature": row.creature, "method": row.method, "error": row.error} for row in self.failed]
        told = {**asdict(self), "failed": failed}
        return {name: _plain(value) for name, value in told.items() if name != "rows"}


def _plain(value: Any) -> Any:  # noqa: ANN401  (whatever the result holds)
    if isinstance(value, Mapping):
        return {name: _plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return None if isinstance(value, float) and isnan(value) else value


def leaderboard(
    classifier: Classifier,
    requests: Sequence[MethodRequest],
    count: int,
    seed: int,
    *,
    tags: float | None = None,
    progress: Callable[[str, int, int], None] = lambda stage, done, total: None,
) -> Leaderboard:
    """Score methods on creatures, ``draw_many(count, seed, tags=tags)``.

    Parameters
    ----------
    tags
        The share that wear the tag of their own class; the others wear another's. None: no tags. With tags, the tag
        is a fifth player beside the four parts.

    Raises
    ------
    WhenceError
        The classifier is none of creatures, what its preprocessing does to places is not known, an option is wrong,
        or no method fits.
    """
    truths = _truths(classifier, count, seed, tags, progress)
    cases = [case(classifier, one) for one in truths]
    rows, left_out = _references(cases), {}
    for number, request in enumerate(requests):
        task = _Task(classifier, requests, request, cases, seed)
        found: list[Row | WhenceError] = []
        for start in range(0, count, _TOGETHER):
            found += _rows(task, range(start, min(start + _TOGETHER, count)))
            progress("maps", number * count + len(found), len(requests) * count)
        if all(isinstance(one, _UNFIT) for one in found):
            left_out[request.text] = str(found[0])
        else:
            rows += [_failed(n, request, one) if isinstance(one, WhenceError) else one for n, one in enumerate(found)]
    if len(left_out) == len(requests):
        raise UnsupportedError(next(iter(left_out.values())))
    agnostic = {one.text for one in requests if METHODS.facts(one.method).class_agnostic}
    pairs = float(mean(len(one.pairs(SUFFICES)) for one in truths))
    lines = _lines(rows, agnostic, seed)
    return Leaderboard(classifier.name, count, seed, tags, _players(cases, seed), pairs, lines, tuple(rows), left_out)


def _truths(
    classifier: Classifier, count: int, seed: int, tags: float | None, progress: Callable[[str, int, int], None]
) -> list[Truth]:
    """Ask the classifier about every creature with every set of its players."""
    found = []
    for index, creature in enumerate(draw_many(count, seed, tags=tags)):
        players = PARTS if creature.tag is None else (*PARTS, TAG)
        found.append(truth(classifier, redrawing(creature, seed, index), players))
        progress("the truth", index + 1, count)
    return found


def case(classifier: Classifier, of: Truth) -> Case:
    """Return a creature with its truth on the grid that the classifier sees.

    Raises
    ------
    ModelError
        The classifier has no preprocessing, or what that does to places is not known.
    """
    (ready,) = prepared(classifier, of.pixels[None])
    if ready.geometry is None:
        raise ModelError(
            f"what the preprocessing of {classifier.name} does to places is not known: give it as a model.toml"
        )
    laid = {name: region_on_grid(place, ready)[0] for name, place in of.places.items()}
    places = {name: place for name, place in laid.items() if place.any()}
    return Case(ready.input, places, of.importance, of.without)


def measured(heat: Map, of: Case) -> dict[str, float]:
    """Return what a map scores by every measure, NaN where one is not defined.

    ``rank``: how the order of the players by the map agrees with that by the truth. ``first``: whether the highest
    place lies in the player that counts most, ``parts`` in any deciding part, ``tag`` in the tag: 1 or 0, and where
    several places are highest, their share. ``mass`` and ``tag_mass``: which share of all that is positive lies in
    the deciding parts, and in the tag.
    """
    parts, tag = of.region(PARTS), of.region([TAG])
    found = {
        "rank": rank_agreement({name: heat[place].double().mean().item() for name, place in of.places.items()}, of),
        "first": _pointing(heat, of.first),
        "parts": _pointing(heat, parts),
        "mass": _mass(heat, parts),
    }
    return found | ({"tag": _pointing(heat, tag), "tag_mass": _mass(heat, tag)} if TAG in of.importance else {})


def rank_agreement(told: Mapping[str, float], of: Case) -> float:
    """Return how the order of the players by what is told of each agrees with that by the truth, -1 to 1.

    The share of the pairs that are told in the right order, less the share in the wrong one: Kendall's tau. A pair
    that is told to be equal counts for neither, so that who tells nothing gets 0; a pair that is equal in truth is no
    pair (Somers 1962, d). NaN where there is no pair.
    """
    signs = [
        _sign(of.importance[one] - of.importance[other]) * _sign(told[one] - told[other])
        for one, other in combinations(told, 2)
        if of.importance[one] != of.importance[other]
    ]
    return float(mean(signs)) if signs else nan


def _sign(number: float) -> int:
    return (number > 0) - (number < 0)


def _pointing(heat: Map, region: Place) -> float:
    return pointing_hits(heat[None], region[None]).item() if region.any() else nan


def _mass(heat: Map, region: Place) -> float:
    return mass_inside(heat[None], region[None]).item() if region.any() else nan


def _references(cases: Sequence[Case]) -> list[Row]:
    """Return what maps score that make the scale readable."""
    rows = []
    for n, one in enumerate(cases):
        flat = torch.ones_like(one.input[0])
        maps = {ORACLE: one.painted(one.importance), WITHOUT: one.painted(one.without), FLAT: flat}
        rows += [Row(n, name, measured(heat, one)) for name, heat in maps.items()]
    return rows


def _rows(task: _Task, numbers: Sequence[int]) -> list[Row | WhenceError]:
    """Return what one method's maps of some creatures score, or why there is no map."""

    def run(some: Sequence[int]) -> list[Row]:
        answer = task.explained(some)
        passes, seconds = _each(answer), answer.seconds / len(some)
        return [
            Row(n, task.request.text, measured(heat, task.cases[n]), passes, seconds)
            for n, heat in zip(some, answer.heatmap().cpu(), strict=True)
        ]

    return answered(numbers, run, lambda error: not mistaken(error, task.request, task.requests))


def _each(answer: Attribution) -> tuple[float, float, float]:
    """Return one picture's even share of the passes."""
    passes, count = answer.passes, len(answer)
    return passes.forward / count, passes.backward / count, passes.partial / count


def _failed(creature: int, request: MethodRequest, error: WhenceError) -> Row:
    return Row(creature, request.text, {}, error=str(error))


def _players(cases: Sequence[Case], seed: int) -> tuple[Player, ...]:
    """Return what each player counts for over all creatures, in the order of the code, the tag last."""
    first = [max(one.places, key=lambda name: one.importance[name], default="") for one in cases]
    return tuple(
        Player(
            name,
            estimate([one.importance[name] for one in cases], seed),
            float(mean(name in one.places for one in cases)),
            float(mean(own == name for own in first)),
        )
        for name in (*PARTS, TAG)
        if name in cases[0].importance
    )


def _lines(rows: Sequence[Row], agnostic: Iterable[str], seed: int) -> tuple[Line, ...]:
    """Return a line for each method, the best first by rank agreement, those without any last."""
    by_method: dict[str, list[Row]] = {}
    for row in rows:
        by_method.setdefault(row.method, []).append(row)
    lines = [_line(method, own, method in agnostic, seed) for method, own in by_method.items()]
    return tuple(sorted(lines, key=lambda line: -_rank(line)))


def _rank(line: Line) -> float:
    rank = line.estimates["rank"].mean if line.estimates else nan
    return -inf if isnan(rank) else rank


def _line(method: str, rows: Sequence[Row], class_agnostic: bool, seed: int) -> Line:
    good = [row for row in rows if row.error is None]
    return Line(
        method,
        class_agnostic,
        {name: estimate([row.values[name] for row in good], seed) for name in (good[0].values if good else ())},
        tuple(float(mean(passes)) for passes in zip(*(row.passes for row in good), strict=True)),
        mean(row.seconds for row in good) if good else nan,
        len(rows) - len(good),
    )
