"""`whence interpretable cam-head`: a head for CAM on any layer of any classifier."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from whence.cli import console
from whence.cli.console import Debug, Device, Json, Model, Seed, Trust, Weights
from whence.cli.datasets import CREATURES, Drawn, check_data, read_data
from whence.errors import OptionError

if TYPE_CHECKING:
    from whence.interpretable.cam_head import Fitted
    from whence.interpretable.labelled import Progress
    from whence.interpretable.training.folder import Data
    from whence.models.classifier import Classifier

_TRAIN, _HELD_OUT, _SHARE = 4000, 1000, 0.1


def cam_head(
    data: Annotated[
        str,
        typer.Argument(
            metavar="DATA",
            help=f"A folder with a folder of pictures for each class; or the word {CREATURES}: {_TRAIN} are drawn to "
            f"train on and {_HELD_OUT} others to be held out (./{CREATURES} is a folder of that name).",
        ),
    ],
    model: Model,
    out: Annotated[Path, typer.Option("--out", metavar="FOLDER", help="A new folder for the model with its head.")],
    weights: Weights = None,
    layer: Annotated[
        str | None,
        typer.Option(
            metavar="L", help="Behind which layer the head stands. `whence layers` lists them. [default: its *]"
        ),
    ] = None,
    held_out: Annotated[
        float | None,
        typer.Option(metavar="SHARE", help=f"How many of each class's pictures are held out. [default: {_SHARE}]"),
    ] = None,
    skip_broken: Annotated[bool, typer.Option("--skip-broken", help="Leave broken pictures out.")] = False,
    device: Device = "cpu",
    seed: Seed = 0,
    json: Json = False,
    trust: Trust = False,
    debug: Debug = False,
) -> None:
    """Give a classifier the head that CAM needs: the mean of each map of a layer, and one linear layer.

    Only that linear layer is fitted. What it costs is told: how many held-out pictures the model's own head knows,
    and how many the new one.
    """
    from whence.creatures.folders import new_folder
    from whence.interpretable.cam_head import cam_head
    from whence.models.load import load_model
    from whence.models.taps import Call, find
    from whence.models.writing import Origin, write

    check_data(data)
    with new_folder(out) as folder, console.stages() as tell:
        classifier = load_model(model, weights=weights, device=device, trust=trust, seed=seed)
        origin = Origin.of(model, {})
        if layer:
            find(classifier.module, Call.parse(layer))
        read = _data(data, classifier, held_out, skip_broken, seed, tell)
        fitted = cam_head(classifier, read.train, read.held_out, layer, progress=tell)
        write(
            *(folder, fitted.module, origin),
            name=f"{classifier.name} with a CAM head at {fitted.module.form.layer}",
            labels=read.labels,
            preprocess=classifier.preprocess,
        )
        # A folder that cannot be read back is no result.
        load_model(folder, trust=trust)
    _tell(fitted, len(read.train), len(read.held_out), out, json)


def _data(
    text: str, classifier: "Classifier", held_out: float | None, skip_broken: bool, seed: int, tell: "Progress"
) -> "Data":
    """Return the pictures; creatures are of seeds that neither the bundled model nor its score has had by default."""
    from whence.creatures.labelled import PREPROCESS

    if text == CREATURES and held_out is not None:
        raise OptionError(f"--held-out is for folders: of {CREATURES}, {_HELD_OUT} others are drawn")
    if text == CREATURES and classifier.preprocess != PREPROCESS:
        raise OptionError(
            f"{CREATURES} are drawn in 64 x 64 pixels with a mean and a deviation of 0.5, which is not what "
            f"{classifier.name} states: give a folder of pictures"
        )
    creatures = Drawn(_TRAIN, _HELD_OUT, (2 * seed + 2, 2 * seed + 3))
    share = _SHARE if held_out is None else held_out
    data = read_data(text, classifier, share, creatures, seed=seed, skip_broken=skip_broken, progress=tell)
    for sentence in data.skipped:
        console.warn(f"left out: {sentence}")
    return data


def _tell(fitted: "Fitted", train: int, held_out: int, out: Path, json: bool) -> None:
    if json:
        told = {"before": fitted.before, "after": fitted.after, "change": fitted.change}
        counts = {"train": train, "held_out": held_out}
        console.result({"folder": str(out), "layer": fitted.module.form.layer, **counts, **told})
        return
    rows = [("CAM head", f"{fitted.after:.2%}")]
    if fitted.before is not None:
        rows = [("own head", f"{fitted.before:.2%}"), *rows, ("change", f"{fitted.change:+.2%}")]
    console.table((f"of {held_out} held-out pictures", "right"), rows)
    console.say()
    console.say(str(out))
