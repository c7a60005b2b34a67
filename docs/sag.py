"""Print the tables of docs/sag.md, and draw its figures.

    WHENCE_PHOTOS=... WHENCE_MODELS=... python docs/sag.py --eight
    WHENCE_PHOTOS=... WHENCE_MODELS=... python docs/sag.py --without
    WHENCE_PHOTOS=... WHENCE_MODELS=... python docs/sag.py --areas
    WHENCE_PHOTOS=... WHENCE_MODELS=... python docs/sag.py --photos 40
    python docs/sag.py --figures

The last one draws a creature, and photos too where these variables are set.
"""

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import TypeVar, cast
from unittest.mock import patch

import torch
from PIL import Image

import whence
from photos import outside, photos, real_model
from whence.creatures import draw
from whence.graphs import AttentionGraph, SufficientSet, bits
from whence.graphs.families import family
from whence.methods.sag import search, solving
from whence.methods.sag.oracle import Memo
from whence.methods.sag.sufficient import Wanted, smallest
from whence.methods.sag.surrogate import Surrogate
from whence.models.classifier import Classifier
from whence.pictures.read import PictureSource, read
from whence.reports import graph_figure
from whence.reports.contents import GraphRow

FIGURES = Path(__file__).parent / "figures"
PHOTOS = ("bison", "arabian_camel", "school_bus")
CREATURE = 4
STAGES = ("single patches", "up", "down from all", "swaps", "further roots", "proof")
# What was measured once of the authors' code and of our first trial on the same pictures, model and settings: sets
# asked about, the smallest root, and the sizes of the roots shown; * is 1-minimal alone, + a search that was stopped.
BEFORE = {
    "peacock_n01806143_225": (("497", "3", "3, 4"), ("441", "3", "3, 6")),
    "peacock_n01806143_4756": (("294", "3", "3, 3"), ("143", "3", "3, 3")),
    "racecar_n04037443_1505": (("394", "2", "2, 3, 4"), ("199", "2", "2, 3, 3")),
    "racecar_n04037443_15839": (("3081+", "6", "6"), ("142", "3", "3, 3, 3")),
    "racecar_n04037443_5853": (("278", "2", "2, 3, 3"), ("143", "2", "2, 2, 3")),
    "schoolbus_13135277_620711e6c0": (("676", "5", "5"), ("531", "5", "5, 6")),
    "schoolbus_24219078_bc73b703fe": (("2966", "6", "8"), ("1045", "6", "6, 11*")),
    "schoolbus_8228523_8eb89886be": (("560", "4", "4, 4"), ("752", "4", "4, 4, 9*")),
}
T = TypeVar("T")


@dataclass(frozen=True)
class Run:
    """A graph, and the seconds of processor time that it took."""

    graph: AttentionGraph
    seconds: float


def asked(model: Classifier, picture: PictureSource, **options: object) -> Run:
    """Return a picture's graph."""
    assert model.preprocess is not None
    x = model.preprocess(read(picture)).input[None]
    before = time.process_time()
    graph = whence.attribute(model, x, "sag", **options).graphs[0]
    return Run(graph, time.process_time() - before)


def counted(what: str, things: Sequence[T]) -> Iterator[T]:
    """Yield things, and say on stderr how far it is."""
    for number, thing in enumerate(things, 1):
        print(f"{what}: {number} of {len(things)}", file=sys.stderr, flush=True)
        yield thing


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines) + "\n"


def sizes(sets: Sequence[SufficientSet]) -> str:
    """Return the sizes of sets; * where not all parts were asked about."""
    proven = ("minimum", "minimal")
    return ", ".join(f"{len(one.patches)}{'' if one.proof in proven else '*'}" for one in sets) or "none"


def percent(value: float, digits: int = 0) -> str:
    return f"{100 * value:.{digits}f} %"


def share(part: float, whole: float) -> str:
    return percent(part / whole) if whole else "-"


def area(graph: AttentionGraph, one: SufficientSet) -> float:
    """Return which share of the input a set shows: the mean of its mask."""
    return float(graph.places.masks([bits(one.patches)], torch.zeros((), dtype=torch.float64)).mean())


def the_eight() -> list[Path]:
    return sorted((outside("WHENCE_PHOTOS") / "sag").glob("*.jpg"))


def squashed() -> Classifier:
    return real_model("mobilenetv2/squash.toml")


def eight() -> None:
    """Print what the search finds on eight pictures and what it asks about, beside the searches before it."""
    model, costs, results = squashed(), [], []
    runs = {path.stem: asked(model, path) for path in counted("pictures", the_eight())}
    for name, run in runs.items():
        graph, (published, trial) = run.graph, BEFORE[name]
        stages = [graph.spent.get(stage, 0) for stage in STAGES]
        costs.append([name, *stages, graph.evaluations, len(graph.found), sizes(graph.roots), f"{run.seconds:.1f}"])
        own = (graph.evaluations, min(len(one.patches) for one in graph.found), sizes(graph.roots))
        results.append([name, *own, *published, *trial])
    sums = [sum(row[column] for row in costs) for column in range(1, len(STAGES) + 3)]
    costs.append(["sum", *sums, "", f"{sum(run.seconds for run in runs.values()):.1f}"])
    totals = [sum(int(row[column].strip("+")) for row in results) for column in (4, 7)]
    results.append(["sum", sums[-2], "", "", totals[0], "", "", totals[1], "", ""])
    print(table(("picture", *STAGES, "evaluations", "sets found", "shown", "CPU seconds"), costs))
    of = ("evaluations", "smallest", "shown")
    print(table(("picture", *of, *(f"{who}: {it}" for who in ("published", "trial") for it in of)), results))


def single_values(surrogate: Surrogate) -> None:
    """Guess by the patches' own values alone: what stands in for ``Surrogate.fit``."""
    known, places = surrogate.memo.known, surrogate.memo.places
    surrogate.alone = torch.tensor(
        [surrogate.scale(known[1 << patch].value) for patch in range(places.count)], dtype=torch.float64
    )
    surrogate.together = torch.zeros(places.count, places.count, dtype=torch.float64)


def apart(further: Callable[..., T]) -> Callable[..., T]:
    """Return the search for further roots as though no two could share a patch."""

    def wanting(memo: object, surrogate: object, wanted: Wanted, least: int) -> T:
        return further(memo, surrogate, Wanted(wanted.roots, 0, wanted.minimum), least)

    return wanting


def capped(memo: Memo, wanted: Wanted) -> list[int]:
    """Return the roots to be shown, of at most two patches more than the smallest."""
    found = smallest(memo)
    least = min((one.bit_count() for one in found), default=0)
    sets = {one: memo.known[one].value for one in found if one.bit_count() <= least + 2}
    return family(sets, wanted.overlap, wanted.roots)


REMEDIES: Mapping[str, Mapping[str, object]] = {
    "all of them": {},
    "no swaps": {"_PATIENCE": 0, "_PATIENCE_AGAIN": 0},
    "further roots looked for among unused patches alone": {"_further": apart(search._further)},
    "roots of at most two patches more than the smallest": {"shown": capped},
    "never down from all: up through all sizes": {"_UP": 48, "_UP_AGAIN": 48},
    "single patches' values in place of the surrogate": {"fit": single_values},
}


@contextmanager
def without(changes: Mapping[str, object]) -> Iterator[None]:
    """Change the search for a while."""
    with ExitStack() as stack:
        for name, value in changes.items():
            for place in {"fit": (Surrogate,), "shown": (search, solving)}.get(name, (search,)):
                stack.enter_context(patch.object(place, name, value))
        yield


def remedies() -> None:
    """Print what each part of the search costs and brings on the eight pictures."""
    model, lines = squashed(), []
    for name, changes in REMEDIES.items():
        with without(changes):
            runs = [asked(model, path) for path in counted(name, the_eight())]
        graphs = [run.graph for run in runs]
        least = [min(len(one.patches) for one in graph.found) for graph in graphs]
        shown = [one for graph in graphs for one in graph.roots]
        evaluations = sum(graph.evaluations for graph in graphs)
        lines.append([
            name, evaluations, sum(least), ", ".join(map(str, least)), len(shown),
            sum(len(one.patches) for one in shown), f"{sum(run.seconds for run in runs):.0f}",
        ])  # fmt: skip
    head = ("search", "evaluations", "smallest roots: patches in all", "each picture's", "roots shown",
            "patches in these", "CPU seconds")  # fmt: skip
    print(table(head, lines))


def areas() -> None:
    """Print how much of the picture the smallest root shows, by both criteria, for the comparison with ReX."""
    model, lines = squashed(), []
    for path in counted("pictures", the_eight()):
        line: list[object] = [path.stem]
        for criterion in ("top1", "ratio"):
            run = asked(model, path, criterion=criterion)
            graph, first = run.graph, run.graph.roots[0]
            kept = share(first.value, graph.whole)
            line += [
                percent(area(graph, first), 1),
                kept,
                sizes(graph.roots),
                graph.evaluations,
                f"{run.seconds:.1f}",
            ]
        lines.append(line)
    of = ("area of the first root", "p kept", "shown", "evaluations", "CPU seconds")
    print(table(("picture", *(f"{criterion}: {it}" for criterion in ("top1", "ratio") for it in of)), lines))


def summary(runs: Sequence[Run]) -> list[str]:
    """Return one baseline's column of the table on photos."""
    graphs, count = [run.graph for run in runs], len(runs)
    shown = [one for graph in graphs for one in graph.roots]
    certified = [one for one in shown if one.proof in ("minimum", "minimal")]
    least = [len(graph.roots[0].patches) for graph in graphs if graph.roots]
    evaluations = [graph.evaluations for graph in graphs]
    return [
        share(sum(size <= 8 for size in least), count),
        share(len(least), count),
        f"{len(shown) / count:.2f}",
        f"{mean(len(graph.family(0)) for graph in graphs):.2f}",
        f"{mean(len(one.patches) for one in shown):.1f}",
        f"{mean(least):.1f}",
        str(min(least)),
        share(len(certified), len(shown)),
        f"{mean(evaluations):.0f}",
        str(max(evaluations)),
        f"{mean(run.seconds for run in runs):.1f}",
    ]


def on_photos(count: int) -> None:
    """Print what is found on photos, over black and over the blurred picture."""
    model, paths = real_model("mobilenetv2"), photos(count)
    over = {
        baseline: [asked(model, path, baseline=baseline) for path in counted(baseline, paths)]
        for baseline in ("black", "blurred")
    }
    columns = [summary(runs) for runs in over.values()]
    head = (
        "pictures with a set of at most 8 patches", "pictures with a set of any size", "roots shown a picture",
        "sets a picture that share no patch", "patches of a root shown, mean", "patches of the first root, mean",
        "patches of the smallest root of all", "roots shown that are proven minimal", "evaluations, mean",
        "evaluations, most", "CPU seconds a picture",
    )  # fmt: skip
    print(table((f"{len(paths)} photos", *over), list(zip(head, *columns, strict=True))))
    pairs = [[run.graph for run in runs] for runs in zip(*over.values(), strict=True)]
    sets = [[{one.patches for one in graph.roots} for graph in pair] for pair in pairs]
    first = sum(a.roots[:1] and b.roots[:1] and a.roots[0].patches == b.roots[0].patches for a, b in pairs)
    common, all_sets = sum(len(a & b) for a, b in sets), sum(len(a | b) for a, b in sets)
    sized = sum(len(a.roots[0].patches) == len(b.roots[0].patches) for a, b in pairs if a.roots and b.roots)
    print(table(("black and blurred", "of"), [
        ("the same first root", f"{first} of {len(pairs)} pictures"),
        ("a root in common", f"{sum(bool(a & b) for a, b in sets)} of {len(pairs)} pictures"),
        ("roots of both", f"{common} of {all_sets} roots"),
        ("first roots of as many patches", f"{sized} of {len(pairs)} pictures"),
    ]))  # fmt: skip


def figure(model: Classifier, picture: PictureSource) -> Image.Image:
    """Return the drawing of a picture's graph, and print what it says."""
    e = whence.explain(model, picture, "sag")
    assert e.graph is not None
    assert e.graph.picture is not None
    assert e.graph.base is not None
    assert e.label is not None
    print(Path(e.subject.name).name, f"{e.label} {e.probability:.3f}", *e.graph.sentences, sep="\n")
    row = cast(GraphRow, e.graph.to_json())
    return Image.fromarray(read(graph_figure.png(row, e.graph.picture, e.graph.base, e.label)).rgb8())


def save(figure: Image.Image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.save(path, optimize=True)
    print(f"{path.name}\n")


def drawn() -> None:
    """Draw the figures, those of photos where they and the model are there."""
    creature = figure(whence.load_model("creatures"), draw(CREATURE).pixels)
    # Fewer colours keep the committed file small.
    save(creature.quantize(256, kmeans=2, dither=Image.Dither.NONE), FIGURES / "sag.png")
    if {"WHENCE_PHOTOS", "WHENCE_MODELS"} <= set(os.environ):
        model = real_model("mobilenetv2")
        for name in PHOTOS:
            photo = outside("WHENCE_PHOTOS") / f"{name}.jpg"
            save(figure(model, photo), FIGURES / "photos" / f"sag-{name}.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    one = parser.add_mutually_exclusive_group(required=True)
    one.add_argument("--eight", action="store_true", help="eight pictures, beside the searches before this one")
    one.add_argument("--without", action="store_true", help="the same without each part of the search")
    one.add_argument("--areas", action="store_true", help="the same by top1 and by ratio: what the first root shows")
    one.add_argument("--photos", type=int, nargs="?", const=40, help="so many photos, over black and blurred")
    one.add_argument("--figures", action="store_true", help="draw the figures")
    chosen = vars(parser.parse_args())
    if chosen["photos"] is not None:
        on_photos(chosen["photos"])
    for name, ask in {"eight": eight, "without": remedies, "areas": areas, "figures": drawn}.items():
        if chosen[name]:
            ask()


if __name__ == "__main__":
    main()
