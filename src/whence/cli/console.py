"""What the commands share: their common options, errors in one sentence, progress on stderr, results on stdout."""

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated, TypeVar

import typer

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
Precision = Annotated[str, typer.Option(help="float32, or bfloat16 or float16 (autocast).")]
Seed = Annotated[int, typer.Option(help="Seed of everything random.")]

DEFAULT_MODEL = "creatures"

T = TypeVar("T")


def result(value: object) -> None:
    """Print a result as JSON on stdout."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def say(text: str = "") -> None:
    """Print a line for people on stdout."""
    typer.echo(text)


def warn(text: str) -> None:
    """Print a line for people on stderr."""
    typer.echo(text, err=True)


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print rows under a heading in columns as wide as their longest entry."""
    texts = [[str(cell) for cell in row] for row in (head, *rows)]
    widths = [max(len(row[i]) for row in texts) for i in range(len(head))]
    for number, row in enumerate(texts):
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        say(line)
        if number == 0:
            say("  ".join("-" * width for width in widths))


def progress(items: Iterable[T], total: int, what: str) -> Iterator[T]:
    """Yield the items, with their count and the time left on stderr; quiet where that is no terminal."""
    if not sys.stderr.isatty():
        yield from items
        return
    from rich.console import Console
    from rich.progress import track

    yield from track(items, description=what, total=total, console=Console(stderr=True), transient=True)
