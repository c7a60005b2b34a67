"""`whence report`: draw a report again from its files."""

from pathlib import Path
from typing import Annotated

import typer

from whence.cli import console
from whence.cli.console import Debug, Json


def report(
    folder: Annotated[Path, typer.Argument(help="A folder that `whence explain` made.")],
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Draw the page of a report again from result.json, maps.npz and pictures/."""
    from whence.reports.folder import redraw

    result = redraw(folder)
    if json:
        console.result(result)
    else:
        console.say(result["report"])
