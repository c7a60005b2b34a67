"""`whence creatures debug`: does a model read the creature, or the tag in the corner?"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from whence.cli import console
from whence.cli.console import DEFAULT_MODEL, Debug, Device, Json, Model, Seed, Trust, Weights

if TYPE_CHECKING:
    from whence.creatures import Creature
    from whence.creatures.debugging import Findings
    from whence.models.classifier import Classifier

_METHODS = ("grad-cam", "integrated-gradients", "lrp", "occlusion")
# So many creatures are shown in a report.
_SHOWN = 4


def debug(
    model: Model = "creatures-confounded",
    weights: Weights = None,
    method: Annotated[
        list[str] | None,
        typer.Option(
            "--method",
            metavar="NAME[:key=value,...]",
            help=f"Whose maps are asked; may be repeated. [default: {', '.join(_METHODS)}]",
        ),
    ] = None,
    count: Annotated[
        int, typer.Option("--count", "-n", min=1, help="How many creatures are to be recognised.")
    ] = 300,
    maps: Annotated[int, typer.Option(min=1, help="How many creatures are explained.")] = 50,
    seed: Seed = 1,
    device: Device = "cpu",
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Write a report with the maps of a few of the creatures.")
    ] = None,
    json: Json = False,
    trust: Trust = False,
    debug: Debug = False,
) -> None:
    """Find out whether a model reads the creatures, or the tags in their corners.

    How often is it right with the right tag, with a wrong one and with none? Do its maps lie on the tag, or on the
    parts that ought to decide? The same is asked of the bundled model `creatures`, which never saw a tag.
    """
    from whence.asking import requests
    from whence.creatures import draw_many
    from whence.creatures.debugging import deciding_places, findings, tag_places
    from whence.models.load import load_model
    from whence.reports.folder import check

    if out:
        check(out)
    methods = method or _METHODS
    asked = dict(zip(methods, requests(methods, {}, seed), strict=True))
    models = [load_model(model, weights=weights, device=device, trust=trust, seed=seed)]
    if model != DEFAULT_MODEL:
        models.append(load_model(DEFAULT_MODEL, device=device))
    worn = list(draw_many(maps, seed, tags=1.0))
    with console.stages() as tell:
        found = [findings(classifier, worn, asked, count, seed, progress=tell) for classifier in models]
    area = {"tag": tag_places(worn).double().mean().item(), "parts": deciding_places(worn).double().mean().item()}
    report = _report(models[0], worn[:_SHOWN], methods, seed, out) if out else None
    if json:
        told = [{**asdict(one), "verdict": one.verdict} for one in found]
        console.result({"count": count, "maps": maps, "seed": seed, "models": told, "area": area, "report": report})
        return
    _tell(found, area)
    if report:
        console.say(report)


def _tell(found: Sequence["Findings"], area: Mapping[str, float]) -> None:
    """Print a table of answers, a table of maps, and what they say of the first model."""
    answers = [(one.model, *map(_percent, asdict(one.accuracy).values())) for one in found]
    console.table(("right", "own tag", "another's", "no tag", "taken for the other"), answers)
    console.say()
    maps = [
        (one.model, method, *map(_percent, (*asdict(read.tag).values(), *asdict(read.parts).values())))
        for one in found
        for method, read in one.readings.items()
    ]
    maps.append(("the same everywhere", "", *(_percent(area[name]) for name in ("tag", "tag", "parts", "parts"))))
    console.table(("maps", "method", "highest on tag", "mass in tag", "highest on parts", "mass in parts"), maps)
    console.say()
    console.say(found[0].verdict)


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:.1%}"


def _report(
    classifier: "Classifier", creatures: Sequence["Creature"], methods: Sequence[str], seed: int, out: Path
) -> str:
    """Write a report with the maps of creatures, and return its path."""
    from whence.creatures import LABELS
    from whence.explaining import explain
    from whence.explanation import contents
    from whence.reports import folder

    explained = [explain(classifier, one.pixels, list(methods), truth=str(one.label), seed=seed) for one in creatures]
    names = [f"creature {number}: {LABELS[one.label]}, with its own tag" for number, one in enumerate(creatures)]
    named = [(replace(made[0].subject, name=name), made) for name, made in zip(names, explained, strict=True)]
    return folder.write(contents(named, explained[0][0].model, seed), out)["report"]
