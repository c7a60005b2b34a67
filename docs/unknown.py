"""Print the tables of docs/unknown.md, and draw their figure: `python docs/unknown.py --nets nets`.

The folder is one that `python docs/interpretable.py --folder nets` made; of nets that are not in it nothing is said.
--count says how many known creatures there are, and how many of each kind of unknown ones.
"""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor

import whence
from interpretable import LAYER, said, table
from lrp_maps import sheet
from whence.creatures import LABELS, PARTS, draw, draw_many
from whence.interpretable.labelled import normalised
from whence.models.classifier import Classifier
from whence.models.masked.categories import Categories
from whence.models.session import opened
from whence.models.taps import recorded
from whence.reports.scores import estimate

FIGURE = Path(__file__).parent / "figures" / "unknown.png"
# Creatures that no net was trained on; those of the second seed tell what each filter does on known ones.
FRESH, CALIBRATION, BATCH = 71_000, 72_000, 250
# Below it a filter counts as dead on known creatures, or as always the same.
_LEAST = 1e-6
# The kinds of creatures, with what draws them.
KINDS: Mapping[str, Mapping[str, object]] = {
    "known": {},
    **{f"{n} strange": {"strange": n} for n in (1, 2, 4)},
    **{f"{n} missing": {"missing": (n,)} for n in (1, 2, 4)},
}
# A kind that should score high, and one that should score low.
Pair = tuple[str, str]
STRANGE: Sequence[Pair] = [("known", f"{n} strange") for n in (1, 2, 4)]
MISSING: Sequence[Pair] = [("known", f"{n} missing") for n in (1, 2, 4)]
BOTH: Sequence[Pair] = [(f"{n} missing", f"{n} strange") for n in (1, 2, 4)]
# By name, the folder that holds a net of each seed.
NETS = {
    "plain": "all-positive-{}/plain",
    "control": "all-positive-{}/control",
    "all-positive": "all-positive-{}",
    "label-aware": "label-aware-{}",
    "paper": "paper-{}",
    "matlab": "matlab-{}",
    "mutual-information": "mutual-information-{}",
    "mask alone": "mask-alone-{}",
}
VARIANTS = ("silence", "largest peak", "each filter alike", "of the guessed class", "unlike the guessed class")


@dataclass(frozen=True)
class Told:
    """What a net says of pictures: its logits, and each filter's peak, which is the largest value of its map."""

    logits: Float[Tensor, "n c"]
    peaks: Float[Tensor, "n k"]


@dataclass(frozen=True)
class Habits:
    """What the filters of a net do on known creatures, by the class that the net gives them.

    ``mean`` and ``deviation`` are those of the peaks, ``categories`` the class that each filter stands for: the one
    with the highest mean.
    """

    mean: Float[Tensor, "c k"]
    deviation: Float[Tensor, "c k"]
    categories: Int[Tensor, " k"]

    @classmethod
    def of(cls, known: Told) -> "Habits":
        """Return the habits that pictures show."""
        guesses, (classes, filters) = known.logits.argmax(1), (known.logits.shape[1], known.peaks.shape[1])
        own = [known.peaks[guesses == label] for label in range(classes)]
        categories = Categories(classes, filters)
        categories.update(known.peaks[:, :, None, None], guesses)
        means, deviations = torch.stack([one.mean(0) for one in own]), torch.stack([one.std(0) for one in own])
        return cls(means, deviations.clamp(min=_LEAST), categories.assigned())


def scores(told: Told, habits: Habits) -> dict[str, Float[Tensor, " n"]]:
    """Return every score of pictures; each is higher the better a creature seems to be known.

    ``silence`` was chosen before any of them was measured: minus it, the sum of all peaks, is how loud the filters
    are together.
    """
    logits, peaks, guesses = told.logits, told.peaks, told.logits.argmax(1)
    unlike = (peaks - habits.mean[guesses]) / habits.deviation[guesses]
    return {
        "softmax": logits.log_softmax(1).amax(1),
        "energy": logits.logsumexp(1),
        "silence": peaks.sum(1),
        "largest peak": peaks.amax(1),
        "each filter alike": (peaks / habits.mean.mean(0).clamp(min=_LEAST)).sum(1),
        "of the guessed class": (peaks * (habits.categories == guesses[:, None])).sum(1),
        "unlike the guessed class": -unlike.square().sum(1),
    }


def ranks(values: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    """Return the rank of each value, 1 for the smallest; equal ones share the mean of their ranks."""
    _, place, count = values.unique(return_inverse=True, return_counts=True)
    return (count.cumsum(0) - (count - 1) / 2).double()[place]


def placements(known: Float[Tensor, " n"], unknown: Float[Tensor, " m"]) -> Float[Tensor, " n"]:
    """Return for each known creature the share of the unknown ones with a lower score; equal ones count half.

    Its rank among all less that among the known, over m. The mean is the area under the ROC curve (Hanley, McNeil
    1982): the probability that a known creature scores higher than an unknown one.
    """
    return (ranks(torch.cat([known, unknown]))[: len(known)] - ranks(known)) / len(unknown)


def by_scene(known: Float[Tensor, " n"], unknown: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    """Return numbers, one for each scene with its known and its unknown creature, whose mean is the AUROC.

    They spread as the AUROC does when scenes are drawn anew (DeLong et al. 1988), so that a bootstrap of their mean
    is one of it.
    """
    below, above = placements(known, unknown), placements(-unknown, -known)
    return below + above - below.mean()


@cache
def drawn(count: int, seed: int, **options: object) -> tuple[Float[Tensor, "n 3 64 64"], Int[Tensor, " n"]]:
    """Return creatures as the nets take them, and their species."""
    creatures = list(draw_many(count, seed, **options))  # type: ignore[arg-type]
    x = torch.cat([normalised(torch.from_numpy(creature.pixels)[None]) for creature in creatures])
    return x, torch.tensor([creature.label for creature in creatures])


def told(model: Classifier, x: Float[Tensor, "n 3 64 64"]) -> Told:
    """Return what a net says of creatures; the peaks are those behind ReLU and mask."""
    layer, logits, peaks = "interpretable" if hasattr(model.module, "interpretable") else LAYER, [], []
    with opened(model) as session:
        for batch in x.split(BATCH):
            with recorded(session.module, [layer], gradients=False) as kept:
                logits.append(session.logits(session.run(batch)))
            peaks.append(kept[layer].relu().amax((2, 3)))
    return Told(torch.cat(logits).double(), torch.cat(peaks).double())


@dataclass(frozen=True)
class Found:
    """One net on all kinds of creatures, in the same scenes: their scores.

    ``sure`` is the mean of the largest probability, and ``kept`` the share that is given its species, for each kind.
    """

    scores: Mapping[str, Mapping[str, Float[Tensor, " n"]]]
    sure: Mapping[str, float]
    kept: Mapping[str, float]

    def by_scene(self, pair: Pair, score: str) -> Float[Tensor, " n"]:
        """Return numbers, one a scene, whose mean is the AUROC of a score between two kinds of creatures."""
        return by_scene(*(self.scores[kind][score] for kind in pair))


def measured(model: Classifier, count: int) -> Found:
    """Ask one net about all creatures."""
    habits, (_, species) = Habits.of(told(model, drawn(count, CALIBRATION)[0])), drawn(count, FRESH)
    kinds = {name: told(model, drawn(count, FRESH, **options)[0]) for name, options in KINDS.items()}
    return Found(
        {name: scores(one, habits) for name, one in kinds.items()},
        {name: one.logits.softmax(1).amax(1).mean().item() for name, one in kinds.items()},
        {name: (one.logits.argmax(1) == species).double().mean().item() for name, one in kinds.items()},
    )


def nets(folder: Path | None, seeds: int) -> dict[str, list[Classifier]]:
    """Return the nets there are, by name; the bundled one is the plain net of seed 0."""
    if folder is None:
        return {"plain": [whence.load_model("creatures")]}
    found = {
        name: [path for seed in range(seeds) if (path := folder / where.format(seed)).joinpath("model.toml").exists()]
        for name, where in NETS.items()
    }
    return {name: [whence.load_model(path) for path in paths] for name, paths in found.items() if paths}


def of_seeds(found: Sequence[Found], pair: Pair, score: str) -> str:
    """Return an AUROC's mean and its spread over the seeds."""
    return said([one.by_scene(pair, score).mean().item() for one in found])


def lead(found: Sequence[Found], pair: Pair) -> str:
    """Return by how much silence tells better than softmax, the mean over the seeds, and its interval over scenes."""
    ahead = [one.by_scene(pair, "silence") - one.by_scene(pair, "softmax") for one in found]
    over = estimate(torch.stack(ahead).mean(0).tolist())
    return f"{over.mean:+.3f} [{over.low:+.3f}, {over.high:+.3f}]"


def compared(found: Mapping[str, Sequence[Found]], pairs: Sequence[Pair], columns: Sequence[str]) -> str:
    """Return a table of the AUROC of scores, between kinds of creatures."""
    titles = [other if one == "known" else f"{one} / {other}" for one, other in pairs]
    cells = {name: [of_seeds(of, pair, score) for pair in pairs for score in columns] for name, of in found.items()}
    rows = [[f"{name} ({len(found[name])})", *own] for name, own in cells.items()]
    return table(["net (seeds)", *(f"{title}: {score}" for title in titles for score in columns)], rows)


def tables(found: Mapping[str, Sequence[Found]]) -> str:
    """Return all tables."""
    leads = [[name, *(lead(of, pair) for pair in STRANGE)] for name, of in found.items()]
    about = {
        "largest probability": lambda one, kind: one.sure[kind],
        "given its species": lambda one, kind: one.kept[kind],
    }
    plain = [
        [name, *(said([of(one, kind) for one in found["plain"]]) for kind in KINDS)] for name, of in about.items()
    ]
    two = ("softmax", "silence")
    return "\n".join(
        (
            table(["plain nets", *KINDS], plain),
            compared(found, STRANGE, ("softmax", "energy", "silence")),
            table(["silence less softmax", *(strange for _, strange in STRANGE)], leads),
            compared(found, STRANGE[1:2], VARIANTS),
            compared(found, MISSING, two),
            compared(found, BOTH, (*two, VARIANTS[-1])),
        )
    )


def figure() -> Image.Image:
    """Return three species as they are, with each part strange, and with all four."""
    columns: dict[str, Sequence[str]] = {"known": ()}
    columns |= {f"strange {part}": (part,) for part in PARTS} | {"all four": PARTS}
    rows = [
        (LABELS[label], [draw(label, label, strange=odd, occluders=False).pixels for odd in columns.values()])
        for label in (1, 5, 6)
    ]
    return sheet(list(columns), rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nets", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--count", type=int, default=1000)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    figure().save(FIGURE, optimize=True)
    found = {
        name: [measured(model, asked.count) for model in models]
        for name, models in nets(asked.nets, asked.seeds).items()
    }
    print(tables(found))


if __name__ == "__main__":
    main()
