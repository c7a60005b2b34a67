"""`whence study compare`: where the maps of two checkpoints of one model differ most."""

from typing import TYPE_CHECKING, Annotated

import typer

from whence.cli import console
from whence.cli.study_options import Asked, command, models_of, studied, tell_failed
from whence.errors import OptionError

if TYPE_CHECKING:
    from whence.reports.comparing_results import CompareReport, Distance
    from whence.reports.scores import Estimate

# So many classes are told; the page has them all.
_CLASSES = 3


@command
def compare(
    asked: Asked,
    method: Annotated[
        str, typer.Option(metavar="NAME[:key=value,...]", help="How to explain. `whence methods` lists the methods.")
    ] = "grad-cam",
) -> None:
    """Compare two checkpoints of one model: how far, where and in which pictures their maps differ most.

    Writes compare.html and compare.json into the study's folder.
    """
    if len(asked.model or ()) != 2:
        raise OptionError(f"two models are compared, and {len(asked.model or ())} given: give --model twice")
    if asked.maps == "none":
        raise OptionError("--maps none keeps no maps that could be compared: leave it out")
    from whence.reports.comparing_results import figures
    from whence.studies.comparing import comparable, from_study, write

    models = models_of(asked)
    comparable([classifier for _, classifier in models])
    study = studied(asked, models, [method])
    report = from_study(study, seed=asked.seed)
    page = write(report, study.folder)
    if asked.json:
        console.result({**figures(report), "report": str(page)})
    else:
        _tell(report)
        console.say(str(page))
    tell_failed(study)


def _tell(report: "CompareReport") -> None:
    """Print the means of all pictures, of some, of the classes whose maps moved most, and of different pictures."""
    lines = [*report.groups, *(one.distance for one in report.classes[:_CLASSES]), *report.anchors]
    console.table(("maps of", "pictures", "moved", "rank correlation", "change of probability"), map(_cells, lines))
    console.say()


def _cells(one: "Distance") -> tuple[str, ...]:
    means = (one.moved, one.rank, one.change)
    return one.title, f"{one.pictures:,}", *("" if mean is None else _mean(mean, one.pictures) for mean in means)


def _mean(of: "Estimate", pictures: int) -> str:
    """Return a mean, and of how many pictures it is where it is not of all."""
    fewer = f", of {of.count:,}" if 0 < of.count < pictures else ""
    return console.estimate(of) + fewer
