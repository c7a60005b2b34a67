"""`whence report`: draw a report again from its files, an explanation's or a study's."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from whence.cli import console
from whence.cli.console import Colours, Debug, Json, Mode, OutlierPerc, Sign
from whence.errors import OptionError

if TYPE_CHECKING:
    from whence.reports.look import Look


def report(
    folder: Annotated[Path, typer.Argument(help="A folder that `whence explain` or `whence study run` made.")],
    mode: Mode = None,
    sign: Sign = None,
    outlier_perc: OutlierPerc = None,
    colours: Colours = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Draw the page of a report again from result.json, maps.npz and pictures/, as it was or in another look.

    A study's page is drawn from job.json and parts/, and from those of its pictures that it shows.
    """
    look = console.look(mode, sign, outlier_perc, colours)
    result = _study(folder, look) if (folder / "job.json").is_file() else _explained(folder, look)
    if json:
        console.result(result)
    else:
        console.say(result["report"])


def _explained(folder: Path, look: "Look | None") -> Mapping[str, Any]:
    from whence.reports.folder import redraw

    return redraw(folder, look)


def _study(folder: Path, look: "Look | None") -> Mapping[str, Any]:
    from whence.studies.page import write_page
    from whence.studies.study import open as opened

    if look is not None:
        raise OptionError("the page of a study has one look: leave out --mode, --sign, --outlier-perc and --colours")
    study = opened(folder)
    return {**study.summary(), "report": str(write_page(study))}
