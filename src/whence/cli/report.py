"""`whence report`: draw a report again from its files."""

from pathlib import Path
from typing import Annotated

import typer

from whence.cli import console
from whence.cli.console import Colours, Debug, Json, Mode, OutlierPerc, Sign


def report(
    folder: Annotated[Path, typer.Argument(help="A folder that `whence explain` made.")],
    mode: Mode = None,
    sign: Sign = None,
    outlier_perc: OutlierPerc = None,
    colours: Colours = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Draw the page of a report again from result.json, maps.npz and pictures/, as it was or in another look."""
    from whence.reports.folder import redraw

    result = redraw(folder, console.look(mode, sign, outlier_perc, colours))
    if json:
        console.result(result)
    else:
        console.say(result["report"])
