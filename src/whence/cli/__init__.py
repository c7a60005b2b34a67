"""The command line: `whence COMMAND`."""

import sys
import warnings
from importlib.metadata import version as installed
from typing import Annotated

import typer

from whence.cli import creatures, demo, doctor, evaluate, explain, interpretable, lists, report, study
from whence.cli.console import say, warn
from whence.errors import WhenceError

app = typer.Typer(
    name="whence",
    help="From where in the picture does the decision of an image classifier come? Start with `whence demo`.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
app.command("explain")(explain.explain)
app.command("evaluate")(evaluate.evaluate)
app.command("methods")(lists.methods)
app.command("metrics")(lists.metrics)
app.command("layers")(lists.layers)
app.command("report")(report.report)
app.command("demo")(demo.demo)
app.command("doctor")(doctor.doctor)
app.add_typer(creatures.app, name="creatures")
app.add_typer(interpretable.app, name="interpretable")
app.add_typer(study.app, name="study")


# What typer returns after Ctrl-C.
_INTERRUPTED = 130
_COMMANDS = (
    "explain",
    "evaluate",
    "methods",
    "metrics",
    "layers",
    "report",
    "demo",
    "doctor",
    "creatures",
    "interpretable",
    "study",
)


def _print_version(asked: bool) -> bool:
    if asked:
        say(installed("whence"))
        raise typer.Exit
    return asked


@app.callback()
def start(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and end.")
    ] = False,
) -> None:
    """From where in the picture does the decision of an image classifier come? Start with `whence demo`."""


def main() -> None:
    """Run a command and end with its exit code: 0 done, 2 bad input, 3 some pictures failed, 1 anything else."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run a command and return its exit code; an error is one sentence on stderr."""
    # What Pillow warns of in large pictures is refused with an error of ours.
    warnings.filterwarnings("ignore", module="PIL")
    try:
        code = app(arguments or ["--help"], prog_name="whence", standalone_mode=False)
    except WhenceError as error:
        return _failed(error, str(error), 2, arguments)
    except Exception as error:
        if hasattr(error, "exit_code") and hasattr(error, "format_message"):
            known = arguments[:1] if arguments and arguments[0] in _COMMANDS else []
            command = " ".join(["whence", *known, "--help"])
            # A word of the parser that says nothing to people.
            said = error.format_message().replace("Value error, ", "").rstrip(".")
            return _failed(error, f"{said}: see `{command}`", 2, arguments)
        told = f"{type(error).__name__}: {error}. This is a fault of whence or of the model; --debug shows where"
        return _failed(error, told, 1, arguments)
    if code == _INTERRUPTED:
        warn("stopped by Ctrl-C")
        return 1
    return code if isinstance(code, int) else 0


def _failed(error: Exception, sentence: str, code: int, arguments: list[str]) -> int:
    if "--debug" in arguments:
        raise error
    warn(f"error: {' '.join(sentence.split())}")
    return code
