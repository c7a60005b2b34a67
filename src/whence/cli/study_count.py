"""`whence study count`: how compositional and how disjunctive are models?"""

from typing import TYPE_CHECKING, Annotated

import typer

from whence.cli import console
from whence.cli.study_options import Asked, command, models_of, studied, tell_failed

if TYPE_CHECKING:
    from whence.reports.counting_results import CountReport

_GROUPS = {
    "correct": "pictures that every model classifies correctly",
    "all": "all pictures",
    "whole": "pictures whose counts are whole for every model",
}


@command
def count(
    asked: Asked,
    search: Annotated[
        str,
        typer.Option(
            metavar="key=value,...",
            help="Options of the method `sag`, as `whence methods` lists them; expand=0 follows every set down.",
        ),
    ] = "grid=7,roots=10,overlap=2,expand=0",
) -> None:
    """Count the sets of patches that suffice for each decision, and the parts of them that still say something.

    Of each picture and model an attention graph is searched. A model whose decisions are made of many parts together
    keeps some confidence in many sub-explanations (compositional); one that has several ways to the same decision
    has many sets that suffice (disjunctive). Writes count.html and count.json into the study's folder.
    """
    study = studied(asked, models_of(asked), [f"sag:{search}" if search else "sag"])
    from whence.reports.counting_results import figures
    from whence.studies.counting.reading import from_study, write

    report = from_study(study, seed=asked.seed)
    page = write(report, study.folder)
    if asked.json:
        console.result({**figures(report), "report": str(page)})
    else:
        _tell(report)
        console.say(str(page))
    tell_failed(study)


_SHOWN = {"roots": "sets", "compatible:0": "apart", "size": "patches", "sub:0.5": "sub at 0.5", "area": "area"}


def _tell(report: "CountReport") -> None:
    """Print a line for each model and group of pictures."""
    for group in report.groups:
        console.say(f"{_GROUPS[group.key]}: {group.pictures}")
        rows = [
            [one.model, *(console.estimate(one.figures[key].estimate) for key in _SHOWN), one.capped, one.unopened]
            for one in group.summaries
        ]
        console.table(("model", *_SHOWN.values(), "capped", "not whole"), rows)
        console.say()
    console.say("mean [95 % interval, bootstrap over the pictures]")
    console.say("sets: those that suffice; apart: the most of them that share no patch; patches: of a set")
    console.say(
        "sub at 0.5: parts of sets that keep half of the probability; more, where searches are capped or not whole"
    )
