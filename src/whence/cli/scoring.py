"""`whence creatures score`: how well a model knows the creatures, and how well methods explain what it says."""

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from io import StringIO
from math import comb, isfinite, isnan
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from whence.cli import console
from whence.cli.console import DEFAULT_MODEL, Debug, Device, Json, Model, Seed, Trust, Weights
from whence.errors import OptionError, OutputError

if TYPE_CHECKING:
    from whence.creatures.benchmark import Leaderboard, Line
    from whence.creatures.score import Score
    from whence.reports.scores import Estimate

Tags = Annotated[
    float | None,
    typer.Option(
        metavar="SHARE",
        help="Put a tag into a corner: so many wear their own class's, the others another's. "
        "1: all their own; 0: none its own. [default: no tags]",
    ),
]

_HEADS = {
    "rank": "order of the parts",
    "first": "highest on the main part",
    "parts": "highest on a part",
    "mass": "mass in parts",
    "tag": "highest on the tag",
    "tag_mass": "mass in the tag",
}


def score(
    model: Model = DEFAULT_MODEL,
    weights: Weights = None,
    count: Annotated[
        int, typer.Option("--count", "-n", min=1, help="How many creatures are to be recognised.")
    ] = 2000,
    tags: Tags = None,
    method: Annotated[
        list[str] | None,
        typer.Option(
            "--method",
            metavar="NAME[:key=value,...]",
            help="Whose maps are scored; may be repeated. `whence methods` lists them. [default: every one]",
        ),
    ] = None,
    maps: Annotated[
        int,
        typer.Option(
            min=0,
            help="How many creatures are explained; 0 for none. By every method one takes about 7 seconds of one "
            "core, of which rise takes 3, extremal-perturbation and igos++ 1 each, sag half a second.",
        ),
    ] = 20,
    seed: Seed = 1,
    device: Device = "cpu",
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write what each map scores as CSV, a line for each creature and method."),
    ] = None,
    json: Json = False,
    trust: Trust = False,
    debug: Debug = False,
) -> None:
    """Say how many fresh creatures a model knows, and how well methods find out which parts it goes by.

    What is right is the model's own word: it is asked about each creature with every set of its parts. With --tags 0
    each wears the tag of a wrong class: who reads tags is wrong, and the tag counts for it as a part does.

    Exit code 3 means that some maps could not be made, or that a method which was named does not fit the model.
    """
    from whence.creatures.benchmark import leaderboard
    from whence.creatures.score import predictor, score
    from whence.evaluation.evaluate import methods_asked
    from whence.models.load import load_model

    asked = methods_asked(method or ["all"])
    if not maps and (method or out):
        raise OptionError("--maps 0 explains no creature: leave it out, or leave out --method and --out")
    if out:
        _check(out)
    classifier = load_model(model, weights=weights, device=device, trust=trust)
    with console.stages() as tell:
        found = score(predictor(classifier), count, seed, tags=tags)
        board = leaderboard(classifier, asked, maps, seed, tags=tags, progress=tell) if maps else None
    if out and board:
        _write(out, board)
    if json:
        console.result({**_json(found), "leaderboard": board.to_json() if board else None})
    else:
        _tell(found)
        if board:
            _tell_truth(board)
            _tell_board(board)
    if board and board.failed:
        _tell_failed(board)
    if board and (board.failed or (method and board.left_out)):
        raise typer.Exit(3)


def _check(out: Path) -> None:
    """Refuse before any work a file that cannot be written after it."""
    if out.suffix.lower() != ".csv":
        raise OutputError(f"--out {str(out)!r}: the table is written as CSV, name a file that ends in .csv")
    if out.is_dir() or (out.parent.exists() and not out.parent.is_dir()):
        raise OutputError(f"{str(out)!r} cannot be written: a folder or a file is in its place, name another file")


def _write(out: Path, board: "Leaderboard") -> None:
    """Write a line for each map; what is not defined is left empty."""
    from whence.evaluation.records import write

    text = StringIO()
    table = csv.writer(text, lineterminator="\n")
    costs = ("forward", "backward", "partial", "seconds")
    table.writerow(["creature", "method", *board.measures, *costs, "error"])
    for row in board.rows:
        values = [row.values.get(name, float("nan")) for name in board.measures]
        cells = ["" if isnan(value) else value for value in values]
        table.writerow([row.creature, row.method, *cells, *row.passes, row.seconds, row.error or ""])
    write(out, text.getvalue().encode("utf-8"))


def _json(found: "Score") -> dict[str, object]:
    from whence.creatures import LABELS

    shares = {name: share for name, share in zip(LABELS, found.classes, strict=True) if isfinite(share)}
    return {**asdict(found), "classes": shares}


def _tell(found: "Score") -> None:
    """Print how many creatures were recognised."""
    from whence.creatures import LABELS

    rows = [("whole", found.whole), ("one part missing", found.one_missing), ("two parts missing", found.two_missing)]
    rows += [(f"whole {label}", share) for label, share in zip(LABELS, found.classes, strict=True)]
    console.table(("creatures", "right"), [(name, f"{share:.2%}") for name, share in rows])


def _tell_truth(board: "Leaderboard") -> None:
    """Print what each part counts for in truth."""
    from whence.creatures.benchmark import SUFFICES

    console.say()
    head = (f"truth of {board.count} creatures", "counts for, in log-odds", "seen in", "counts most in")
    console.table(
        head,
        [(one.name, _said(one.importance), f"{one.seen:.0%}", f"{one.first:.0%}") for one in board.players],
    )
    pairs = f"{board.pairs:.1f} of {comb(len(board.players), 2)}"
    console.say(f"{pairs} pairs of these keep more than {SUFFICES:.0%} of the probability, in the mean")


def _tell_board(board: "Leaderboard") -> None:
    """Print a line for each method, and which were left out."""
    console.say()
    head = ("method", *(_HEADS[name] for name in board.measures), "passes", "seconds")
    console.table(head, [list(_cells(line, board.measures)) for line in board.lines])
    console.say()
    console.say(
        "means [95 % interval, bootstrap over the creatures]; passes for one creature: forward/backward/partial"
    )
    if any(line.class_agnostic for line in board.lines):
        console.say("* the same map for every class")
    for reason, methods in _reasons(board.left_out).items():
        console.say(f"left out: {', '.join(methods)}: {reason}")


def _cells(line: "Line", measures: Sequence[str]) -> Iterator[str]:
    yield f"{line.method} *" if line.class_agnostic else line.method
    for name in measures:
        found = line.estimates.get(name)
        yield "-" if found is None else _said(found, share=name != "rank")
    ran = any(line.passes)
    yield "/".join(f"{number:.0f}" for number in line.passes) if ran else ""
    yield f"{line.seconds:.3f}" if ran else ""


def _said(found: "Estimate", *, share: bool = False) -> str:
    """Return a mean with its interval, a share in percent."""
    if isnan(found.mean):
        return "not defined"
    # z: no minus before what rounds to 0.
    mean, low, high = (f"{100 * v:z.0f}" if share else f"{v:z.2f}" for v in (found.mean, found.low, found.high))
    between = "" if isnan(found.low) else f" [{low}, {high}]"
    fewer = f" of {found.count}" if found.undefined else ""
    return f"{mean}{'%' if share else ''}{between}{fewer}"


def _reasons(left_out: Mapping[str, str]) -> dict[str, list[str]]:
    """Return which methods were left out for each reason."""
    found: dict[str, list[str]] = {}
    for method, reason in left_out.items():
        found.setdefault(reason, []).append(method)
    return found


def _tell_failed(board: "Leaderboard") -> None:
    """Warn of maps that could not be made, a line for each method and reason."""
    creatures: dict[tuple[str, str], list[int]] = {}
    for row in board.failed:
        creatures.setdefault((row.method, str(row.error)), []).append(row.creature)
    for (method, reason), numbers in creatures.items():
        console.warn(f"not scored: {method} on {len(numbers)} of {board.count} creatures: {reason}")
