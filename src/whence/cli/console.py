"""What the commands share: their common options, errors in one sentence, progress on stderr, results on stdout."""

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import typer

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from whence.reports.look import Look
    from whence.reports.scores import Estimate

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON, and nothing else, on stdout.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
Trust = Annotated[
    bool, typer.Option("--trust", help="Allow pickled weights and model files that run Python code of their own.")
]
_SPECS = "torchvision:NAME, timm:NAME, hf:NAME, FILE.py:FUNCTION, a folder with model.toml, or a bundled model."
Model = Annotated[str, typer.Option("--model", "-m", metavar="SPEC", help=_SPECS)]
# For commands that say so where the model is no choice of the user's.
ModelIfGiven = Annotated[
    str | None, typer.Option("--model", "-m", metavar="SPEC", help=f"{_SPECS} [default: creatures]")
]
Weights = Annotated[
    str | None, typer.Option(metavar="FILE", help="Weights for the model: a safetensors file, or 'random'.")
]
Device = Annotated[str, typer.Option(help="Where the model runs: cpu, cuda, cuda:1, mps.")]
Precision = Annotated[
    Literal["float32", "bfloat16", "float16"], typer.Option(help="In what the model computes; halves by autocast.")
]
Seed = Annotated[int, typer.Option(help="Seed of everything random.")]
Mode = Annotated[
    str | None,
    typer.Option(
        metavar="MODE",
        help="How maps are drawn: blended, heat-map, original, masked, alpha-scaling. [default: blended]",
    ),
]
Sign = Annotated[
    str | None,
    typer.Option(
        metavar="SIGN", help="What is drawn: positive, negative, absolute, all. [default: what each method states]"
    ),
]
OutlierPerc = Annotated[
    float | None,
    typer.Option(
        metavar="PERCENT",
        help="Draw the largest values, which make up this share of the sum, as the end of the scale. [default: 0]",
    ),
]
Colours = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="The colours: whence, or a colour map of matplotlib's. [default: whence]"),
]

DEFAULT_MODEL = "creatures"

T = TypeVar("T")


def look(mode: str | None, sign: str | None, outlier_perc: float | None, colours: str | None) -> "Look | None":
    """Return the look that the options ask for, None where none is given.

    Raises
    ------
    OptionError, MissingExtraError
        There is no such look.
    """
    from whence.reports.look import Look

    asked = {"mode": mode, "sign": sign, "outlier_perc": outlier_perc, "colours": colours}
    given: dict[str, Any] = {name: value for name, value in asked.items() if value is not None}
    return Look.read(**given) if given else None


def result(value: object) -> None:
    """Print a result as JSON on stdout."""
    sys.stdout.write(json.dumps(value, indent=2, allow_nan=False) + "\n")


def say(text: str = "") -> None:
    """Print a line for people on stdout; names of files may hold what no encoding can say."""
    typer.echo(text.encode("utf-8", "replace").decode())


def warn(text: str) -> None:
    """Print a line for people on stderr."""
    typer.echo(text.encode("utf-8", "replace").decode(), err=True)


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print rows under a heading in columns as wide as their longest entry."""
    texts = [[str(cell) for cell in row] for row in (head, *rows)]
    widths = [max(len(row[i]) for row in texts) for i in range(len(head))]
    for number, row in enumerate(texts):
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        say(line)
        if number == 0:
            say("  ".join("-" * width for width in widths))


def estimate(value: "Estimate") -> str:
    """Return a mean with its interval as people read it; a dash where there is none."""
    if value.mean != value.mean:
        return "-"
    return f"{value.mean:.3g}" + (f" [{value.low:.3g}, {value.high:.3g}]" if value.low == value.low else "")


def _bar() -> "Progress":
    """Return a progress bar on stderr, with the time left."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=Console(stderr=True), transient=True)


def progress(items: Iterable[T], total: int, what: str) -> Iterator[T]:
    """Yield the items, with their count and the time left on stderr; quiet where that is no terminal."""
    if not sys.stderr.isatty():
        yield from items
        return
    with _bar() as bar:
        yield from bar.track(items, total=total, description=what)


@contextmanager
def stages(*, quiet: bool = False) -> Iterator[Callable[[str, int, int], None]]:
    """Give a function that is told ``(stage, done, total)``; quiet if so asked, or where stderr is no terminal."""
    if quiet or not sys.stderr.isatty():
        yield lambda stage, done, total: None
        return
    with _bar() as bar:
        tasks: dict[str, TaskID] = {}

        def show(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bar.add_task(stage, total=total)
            bar.update(tasks[stage], completed=done)

        yield show
