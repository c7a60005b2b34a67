"""`whence interpretable cam-head`: a head for CAM on any layer of any classifier."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from whence.cli import console
from whence.cli.console import Debug, Device, Json, Model, Seed, Trust, Weights
from whence.errors import ModelError, OptionError

if TYPE_CHECKING:
    from whence.interpretable.cam_head import Fitted
    from whence.interpretable.labelled import Labelled, Progress
    from whence.models.classifier import Classifier

CREATURES = "creatures"
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

    with new_folder(out) as folder, console.stages() as tell:
        classifier = load_model(model, weights=weights, device=device, trust=trust, seed=seed)
        origin = Origin.of(model, {})
        if layer:
            find(classifier.module, Call.parse(layer))
        train, held = _data(data, classifier, held_out, skip_broken, seed, tell)
        fitted = cam_head(classifier, train, held, layer, progress=tell)
        write(
            *(folder, fitted.module, origin),
            name=f"{classifier.name} with a CAM head at {fitted.module.form.layer}",
            labels=train.classes,
            preprocess=classifier.preprocess,
        )
        # A folder that cannot be read back is no result.
        load_model(folder, trust=trust)
    _tell(fitted, len(train), len(held), out, json)


def _data(
    data: str,
    classifier: "Classifier",
    held_out: float | None,
    skip_broken: bool,
    seed: int,
    tell: "Progress",
) -> "tuple[Labelled, Labelled]":
    """Return the pictures to train on, and those held out."""
    from whence.interpretable.labelled import picture_folder, split

    if data == CREATURES:
        if held_out is not None:
            raise OptionError(f"--held-out is for folders: of {CREATURES}, {_HELD_OUT} others are drawn")
        return _creatures(classifier, seed, tell)
    if classifier.preprocess is None:
        raise ModelError(
            f"{classifier.name} states no preprocessing, by which pictures become its inputs: give a folder with a "
            "model.toml that has [preprocess]"
        )
    pictures = picture_folder(Path(data), classifier.preprocess, skip_broken=skip_broken, progress=tell)
    for sentence in pictures.skipped:
        console.warn(f"left out: {sentence}")
    return split(pictures, _SHARE if held_out is None else held_out, seed)


def _creatures(classifier: "Classifier", seed: int, tell: "Progress") -> "tuple[Labelled, Labelled]":
    """Draw creatures of seeds that neither the bundled model nor its score has had, unless they are asked for."""
    from whence.creatures.labelled import PREPROCESS, drawn

    def part(name: str) -> "Callable[[str, int, int], None]":
        return lambda _, done, total: tell(name, done, total)

    if classifier.preprocess != PREPROCESS:
        raise OptionError(
            f"{CREATURES} are drawn in 64 x 64 pixels with a mean and a deviation of 0.5, which is not what "
            f"{classifier.name} states: give a folder of pictures"
        )
    return (
        drawn(_TRAIN, 2 * seed + 2, progress=part("drawing")),
        drawn(_HELD_OUT, 2 * seed + 3, progress=part("drawing those held out")),
    )


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
