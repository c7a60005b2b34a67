"""What the commands share: their common options, errors in one sentence, progress on stderr, results on stdout."""

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Literal, TypeVar

import typer

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON, and nothing else, on stdout.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
Trust = Annotated[
    bool, typer.Option("--trust", help="Allow pickled weights and model files that run Python code of their own.")
]
Model = Annotated[
    str,
    typer.Option(
        "--model",
        "-m",
        metavar="SPEC",
        help="torchvision:NAME, timm:NAME, hf:NAME, FILE.py:FUNCTION, a folder with model.toml, or a bundled model.",
    ),
]
Weights = Annotated[
    str | None, typer.Option(metavar="FILE", help="Weights for the model: a safetensors file, or 'random'.")
]
Device = Annotated[str, typer.Option(help="Where the model runs: cpu, cuda, cuda:1, mps.")]
Precision = Annotated[
    Literal["float32", "bfloat16", "float16"], typer.Option(help="In what the model computes; halves by autocast.")
]
Seed = Annotated[int, typer.Option(help="Seed of everything random.")]

DEFAULT_MODEL = "creatures"

T = TypeVar("T")


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
def stages() -> Iterator[Callable[[str, int, int], None]]:
    """Give a function that is told ``(stage, done, total)``; quiet where stderr is no terminal."""
    if not sys.stderr.isatty():
        yield lambda stage, done, total: None
        return
    with _bar() as bar:
        tasks: dict[str, TaskID] = {}

        def show(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bar.add_task(stage, total=total)
            bar.update(tasks[stage], completed=done)

        yield show
