"""Print the tables of docs/sag.md on creatures: `python docs/sag_creatures.py`.

Which of a creature's parts are enough for the model is known: it is asked about the same scene drawn with some of
them alone. --count says how many creatures are asked about.
"""

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from statistics import mean

import torch

import whence
from sag import Run, area, asked, counted, percent, table
from whence.creatures import PARTS, Creature, draw
from whence.creatures.truth import Players, Truth, truth
from whence.graphs import bits
from whence.models.classifier import Classifier
from whence.reports.scores import estimate

# Creatures that no model was trained on; sets drawn at random for each root.
FRESH, DRAWS = 70_000, 100
SETTINGS: Sequence[Mapping[str, object]] = (
    {}, {"grid": 9}, {"grid": 12}, {"baseline": "zeros"}, {"baseline": "blurred"}, {"style": "boxes"},
    {"criterion": "top1"}, {"threshold": 0.5}, {"grid": 5}, {"grid": 5, "threshold": 0.5},
    {"grid": 4, "threshold": 0.5},
)  # fmt: skip


@dataclass(frozen=True)
class Covering:
    """How many parts a set shows at least half of; whether these are enough for the model, by each criterion.

    ``shown`` is the share of all parts' area that the set shows.
    """

    parts: int
    enough: bool
    first: bool
    shown: float

    @property
    def pair(self) -> bool:
        """Whether these are two parts that are enough together."""
        return self.parts == 2 and self.enough


def covering(run: Run, of: Truth, sets: Sequence[int]) -> list[Covering]:
    """Return what sets of patches cover of a creature."""
    masks, found = run.graph.places.masks(sets, torch.zeros((), dtype=torch.float64))[:, 0], []
    anywhere = torch.stack(list(of.places.values())).any(0)
    for mask in masks:
        parts = frozenset(part for part, where in of.places.items() if mask[where].mean() >= 0.5)
        enough = of.kept[parts] > run.graph.threshold
        found.append(Covering(len(parts), enough, parts in of.first, float(mask[anywhere].mean())))
    return found


def at_random(run: Run, generator: torch.Generator) -> list[int]:
    """Return sets drawn at random, as large as the roots."""
    orders = [torch.rand(DRAWS, run.graph.places.count, generator=generator).argsort(1) for _ in run.graph.roots]
    sizes = [len(root.patches) for root in run.graph.roots]
    return [bits(row) for order, size in zip(orders, sizes, strict=True) for row in order[:, :size].tolist()]


def of_creatures(model: Classifier, subjects: Sequence[Truth], options: Mapping[str, object]) -> list[object]:
    """Return one setting's line: what the roots of all creatures cover, and sets drawn at random beside them."""
    name = ", ".join(f"{key}={value}" for key, value in options.items()) or "the default"
    runs = [asked(model, one.pixels, **options) for one in counted(name, subjects)]
    generator = torch.Generator().manual_seed(0)
    found: list[list[Covering]] = []
    chance: list[Covering] = []
    for run, one in zip(runs, subjects, strict=True):
        found.append(covering(run, one, [bits(root.patches) for root in run.graph.roots]))
        chance += covering(run, one, at_random(run, generator))
    every = list(chain.from_iterable(found))
    main = estimate([mean(one.pair for one in own) for own in found if own])
    threshold = runs[0].graph.threshold
    may = [any(one.pair for one in own) for own, of in zip(found, subjects, strict=True) if of.pairs(threshold)]
    return [
        name,
        len(every),
        f"{mean(len(root.patches) for run in runs for root in run.graph.roots):.1f}",
        percent(mean(area(run.graph, root) for run in runs for root in run.graph.roots)),
        percent(mean(one.shown for one in every)),
        " / ".join(f"{100 * mean(one.parts == parts for one in every):.0f}" for parts in range(len(PARTS) + 1)),
        f"{percent(main.mean)} [{percent(main.low)}, {percent(main.high)}]",
        percent(mean(one.pair for one in chance)),
        percent(mean(one.parts == 2 and one.first for one in every)),
        percent(mean(one.enough for one in every)),
        f"{sum(may)} of {len(may)}",
        f"{mean(run.graph.evaluations for run in runs):.0f}",
    ]


def drawn(seed: int, parts: Players) -> Creature:
    """Return a creature with some of its parts alone."""
    return draw(seed, keep=parts)


def on_creatures(count: int) -> None:
    """Print whether the roots show the parts of drawn creatures that are known to be enough for the model."""
    model = whence.load_model("creatures")
    subjects = [truth(model, partial(drawn, FRESH + number)) for number in range(count)]
    criteria: dict[str, Callable[[Truth], int]] = {
        "keeps more than 90 %": lambda one: len(one.pairs(0.9)),
        "keeps more than 50 %": lambda one: len(one.pairs(0.5)),
        "keeps the class first": lambda one: sum(len(parts) == 2 for parts in one.first),
    }
    rows = [
        (name, *(sum(pairs(one) == number for one in subjects) for number in range(7)))
        for name, pairs in criteria.items()
    ]
    print(table((f"{count} creatures: how many of the six pairs are enough", *range(7)), rows))
    head = (
        "setting", "roots shown", "patches", "of the picture's area", "of the parts' area",
        "parts covered: 0 / 1 / 2 / 3 / 4, %", "two that are enough", "so at random", "two that keep the class first",
        "parts that are enough, however many", "creatures with such a pair, of those that have one", "evaluations",
    )  # fmt: skip
    print(table(head, [of_creatures(model, subjects, options) for options in SETTINGS]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=50)
    on_creatures(parser.parse_args().count)


if __name__ == "__main__":
    main()
