"""`whence study debug`: for which wrong reason is a model right?"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from whence.cli import console
from whence.cli.study_options import Asked, command, models_of, studied, tell_failed
from whence.errors import OptionError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from whence.interpretable.labelled import Labelled
    from whence.models.classifier import Classifier
    from whence.reports.debugging_results import DebuggingReport, Repair
    from whence.studies.debugging import Findings
    from whence.studies.study import Study


@command
def debug(
    asked: Asked,
    method: Annotated[
        str, typer.Option(metavar="NAME[:key=value,...]", help="Whose maps are clustered.")
    ] = "grad-cam",
    clusters: Annotated[
        int | None, typer.Option(min=1, help="How many clusters. [default: by the largest gap of eigenvalues]")
    ] = None,
    repaired: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Mask the regions of suspicious clusters in all pictures of the folder, train the model on with "
            "their true classes, and write it here.",
        ),
    ] = None,
    test: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=FOLDER",
            help="Pictures with known classes on which both models are tested; may be repeated.",
        ),
    ] = None,
    epochs: Annotated[int, typer.Option(min=1, help="How often the repair sees each picture.")] = 5,
    rate: Annotated[float, typer.Option(help="The highest learning rate of the repair.")] = 3e-3,
) -> None:
    """Cluster the maps of a whole folder, so that a wrong reason shows itself, and unlearn it.

    Each cluster is shown with its pictures and classes. One is suspicious where the model needs the region of its
    maps, and the pictures of a class look alike in it. Writes debug.html and debug.json into the study's folder.
    """
    if len(asked.model or ()) > 1:
        raise OptionError("one model is searched at a time: give --model once")
    if test and not repaired:
        raise OptionError("--test compares the model with the repaired one: give --repaired FOLDER too")
    from whence.creatures.folders import check_new
    from whence.studies.debugging import from_study, report, search, write

    if repaired:
        check_new(repaired)
    models = models_of(asked)
    classifier = models[0][1]
    sets = _tests(test or (), classifier, asked.bits)
    study = studied(asked, models, [method])

    with console.stages(quiet=asked.json) as tell:
        found = search(classifier, from_study(study, classifier, method), clusters=clusters, progress=tell)
    made = _repaired(asked, study, classifier, found, repaired, sets, epochs, rate) if repaired else None
    told = report(classifier, found, method, repair=made)
    page = write(told, study.folder)
    if asked.json:
        from whence.reports.debugging_results import figures

        console.result({**figures(told), "report": str(page)})
    else:
        _tell(told)
        console.say(str(page))
    tell_failed(study)


def _repaired(
    asked: Asked,
    study: "Study",
    classifier: "Classifier",
    found: "Findings",
    out: Path,
    sets: "Mapping[str, Labelled]",
    epochs: int,
    rate: float,
) -> "Repair":
    """Train the model without its wrong reason, write it, and test it beside the one that it was."""
    from whence.creatures.folders import new_folder
    from whence.interpretable.training import Plan
    from whence.models.threads import threads
    from whence.models.writing import Origin, write
    from whence.reports.debugging_results import Repair
    from whence.studies.debugging import repair, trials

    plan = Plan(epochs=epochs, rate=rate, seed=asked.seed, device=asked.device)
    training, regions = found.pictures.data, found.regions(found.pictures)
    origin = Origin.of(study.job.models[0].spec, {})
    with new_folder(out) as folder, threads(asked.threads), console.stages(quiet=asked.json) as tell:
        made = repair(classifier, training, regions, plan, progress=tell)
        write(
            folder, made.module, origin, name=out.resolve().name, labels=made.labels,
            preprocess=made.preprocess, activation=made.scale.activation,
        )  # fmt: skip
        tried = trials(classifier, made, sets, plan)
    facts = {"Epochs": str(epochs), "Highest rate": str(rate), "Weights": "the model's own", "Written to": out.name}
    return Repair(int(regions.any(1).sum()), len(regions), facts, tried)


def _tests(asked: "Sequence[str]", classifier: "Classifier", bits: int | None) -> "Mapping[str, Labelled]":
    from whence.studies.debugging import folder_pictures

    found: dict[str, Labelled] = {}
    for text in asked:
        name, equals, folder = text.partition("=")
        if not equals:
            raise OptionError(f"--test {text!r}: write NAME=FOLDER, as swapped=pictures/swapped")
        found[name] = folder_pictures(Path(folder), classifier, bits=bits)
    return found


def _tell(told: "DebuggingReport") -> None:
    """Print a line for each cluster, and what the repair did."""
    from whence.reports.debugging_results import SUSPICIOUS

    rows = [
        [
            number, one.pictures, len(one.said), _percent(one.accuracy), _percent(one.check.lost),
            _percent(one.check.elsewhere), _percent(one.check.alike), f"{one.check.score:.2f}",
            "suspicious" if one.check.suspicious else "",
        ]
        for number, one in enumerate(told.clusters, 1)
    ]  # fmt: skip
    console.table(("cluster", "pictures", "classes", "right", "lost", "elsewhere", "alike", "score", ""), rows)
    console.say()
    console.say(
        "lost: how many lose their class when the region of their map is masked; elsewhere: when an equal one is"
    )
    console.say("alike: how much what lies there repeats within a class; score: (lost - elsewhere) x alike")
    console.say()
    console.say(
        f"{told.suspicious} of {len(told.clusters)} clusters are suspicious (from a score of {SUSPICIOUS} on): "
        "look at them before you believe it"
    )
    if told.repair is not None:
        done = told.repair
        console.say(f"masked in {done.masked} of {done.pictures} pictures, and trained on")
        if done.trials:
            console.say()
            pairs = [[one.name, _percent(one.before), _percent(one.after)] for one in done.trials]
            console.table(("right", "before", "after"), pairs)
    console.say()


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}"
