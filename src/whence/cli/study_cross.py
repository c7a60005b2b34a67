"""`whence study cross`: do maps of one model speak for another's decision too?"""

from typing import TYPE_CHECKING, Annotated

import typer

from whence.cli import console
from whence.cli.study_options import Asked, command, models_of, studied, tell_failed
from whence.errors import OptionError

if TYPE_CHECKING:
    from whence.reports.crossing_results import Crossing


@command
def cross(
    asked: Asked,
    method: Annotated[
        str, typer.Option(metavar="NAME[:key=value,...]", help="Whose maps are carried from model to model.")
    ] = "grad-cam",
    grid: Annotated[int, typer.Option(min=2, help="How many cells a side are ranked, the same for all.")] = 14,
    normalised: Annotated[
        bool, typer.Option("--normalised", help="Divide the likeness of two models by that of each with itself.")
    ] = False,
) -> None:
    """Judge every model's maps on every other model, by insertion and deletion, and draw the models as a landscape.

    Writes cross.html and cross.json into the study's folder.
    """
    if len(asked.model or ()) < 2:
        raise OptionError("models are tested against each other: give --model twice or more")
    metrics = [f"{name}:grid={grid}" for name in ("insertion", "deletion")]
    study = studied(asked, models_of(asked), [method], metrics, judges=True)
    from whence.reports.crossing_results import figures
    from whence.studies.crossing.reading import crossed, write

    report = crossed(study, normalised=normalised, seed=asked.seed)
    page = write(report, study.folder)
    if asked.json:
        console.result({**figures(report), "report": str(page)})
    else:
        which = "that every model classifies correctly; cross.html has both" if report.correct else "all there are"
        console.say(f"pictures: {which}")
        for crossing in report.correct or report.every:
            _tell(crossing, report.models)
        console.say(str(page))
    tell_failed(study)


def _tell(crossing: "Crossing", models: tuple[str, ...]) -> None:
    """Print a matrix: a line for each model whose maps they are, a column for each that judges."""
    console.say(f"{crossing.metric.text}, {crossing.pictures} pictures; {crossing.metric.better} is better")
    rows = [
        [name, *(console.estimate(cell.estimate) for cell in line)]
        for name, line in zip(models, crossing.cells, strict=True)
    ]
    console.table(("maps of", *(f"on {name}" for name in models)), rows)
    console.say()
