"""`whence interpretable train`: make each filter of a layer mean one part."""

import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from whence.cli import console
from whence.cli.console import DEFAULT_MODEL, Debug, Device, Json, Model, Precision, Seed, Trust, Weights
from whence.errors import OptionError

# For so many seconds a process leaves it to the first to say what went wrong.
_PATIENCE = 20
# A net that knows nothing yet is trained plainly first; a net that knows the pictures is not.
_PLAIN = 12


def train(
    data: Annotated[str, typer.Argument(help="A folder that holds one folder of pictures a class, or: creatures")],
    model: Model = DEFAULT_MODEL,
    weights: Weights = None,
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="A new folder, or one to go on in.")] = Path(
        "interpretable-model"
    ),
    layer: Annotated[
        str | None, typer.Option(help="The layer to mask. [default: the last that all paths go through]")
    ] = None,
    loss: Annotated[
        str,
        typer.Option(
            metavar="NAME[:key=value,...]",
            help="label-aware, all-positive, paper, matlab, mutual-information, or none for the mask alone.",
        ),
    ] = "label-aware",
    relative: Annotated[float, typer.Option(min=0, help="How strongly filters are pulled, against the task.")] = 1.0,
    added: Annotated[
        bool | None,
        typer.Option(
            "--added/--not-added",
            help="Put a convolution with a rectifier before the mask. [default: where maps have values below zero]",
        ),
    ] = None,
    category: Annotated[
        str | None,
        typer.Option(metavar="LABEL", help="Tell this one class from all others, which are its negatives."),
    ] = None,
    plain_epochs: Annotated[
        int | None,
        typer.Option(min=0, help=f"Epochs before the mask. [default: 0; {_PLAIN} with new or random weights]"),
    ] = None,
    epochs: Annotated[int, typer.Option(min=1, help="Epochs with the mask, and of the control.")] = 3,
    control: Annotated[
        bool, typer.Option("--control/--no-control", help="Train the plain net for as many epochs too.")
    ] = True,
    rate: Annotated[float, typer.Option(help="The highest learning rate with the mask.")] = 1.2e-3,
    plain_rate: Annotated[float, typer.Option(help="The highest learning rate before.")] = 3e-3,
    batch: Annotated[int, typer.Option(min=1, help="Pictures a step, in all processes together.")] = 32,
    count: Annotated[
        int, typer.Option(min=9, help="How many creatures are drawn, where these are the data.")
    ] = 14_000,
    held_out: Annotated[float, typer.Option(help="The share of a folder's pictures to test on.")] = 0.1,
    augment: Annotated[
        bool, typer.Option("--augment/--no-augment", help="Mirror, shift and recolour pictures at random.")
    ] = True,
    freeze_batch_norm: Annotated[
        bool, typer.Option("--freeze-batch-norm", help="Keep the statistics of batch norms.")
    ] = False,
    skip_broken: Annotated[
        bool, typer.Option("--skip-broken", help="Leave pictures out that cannot be read, and name them.")
    ] = False,
    workers: Annotated[int, typer.Option(min=0, help="Processes that read pictures ahead.")] = 0,
    half: Annotated[bool, typer.Option("--half", help="Write the weights in half precision.")] = False,
    precision: Precision = "float32",
    device: Device = "cpu",
    seed: Seed = 0,
    json: Json = False,
    trust: Trust = False,
    debug: Debug = False,
) -> None:
    """Train a model so that each filter of a layer means one part; run again after a kill, it goes on.

    First the plain net where it knows nothing yet; then, from the same weights, a control without and the net with
    the mask. `torchrun --nproc-per-node N $(which whence) interpretable train ...` shares the batches among N
    processes.
    """
    from whence.cli.datasets import HELD_OUT, Drawn, check_data, read_data
    from whence.creatures.labelled import MISSING
    from whence.interpretable.losses import read as read_loss
    from whence.interpretable.training.folder import check, train_into
    from whence.interpretable.training.plan import Plan
    from whence.interpretable.training.recipe import Recipe
    from whence.interpretable.training.starting import Start
    from whence.models.masked import ranks

    with _told(out):
        check(out)
        check_data(data)
        kind, _, number = device.partition(":")
        if number:
            raise OptionError(f"--device {device}: give {kind}, and choose the card by CUDA_VISIBLE_DEVICES={number}")
        name, options = (None, {}) if loss == "none" else read_loss(loss)
        shared: dict[str, Any] = {
            "batch": batch,
            "augment": augment,
            "frozen_statistics": freeze_batch_norm,
            "precision": precision,
            "device": kind,
            "workers": workers,
            "seed": seed,
        }
        recipe = Recipe(
            plan=Plan(epochs=epochs, rate=rate, **shared),
            layer=layer,
            added=added,
            loss=name,
            options=options,
            relative=relative,
            control=control,
        )
        with console.stages(quiet=not ranks.first()) as tell:
            start = Start.load(model, weights=weights, trust=trust, seed=seed)
            creatures = Drawn(count, HELD_OUT, (seed, seed + 1), MISSING)
            read = read_data(
                *(data, start.classifier, held_out, creatures),
                category=category,
                seed=seed,
                skip_broken=skip_broken,
                progress=tell,
            )
            start = start.with_labels(read.labels, trust=trust, seed=seed)
            fresh = weights == "random" or bool(start.new)
            before = plain_epochs if plain_epochs is not None else _PLAIN if fresh else 0
            recipe = replace(recipe, plain=Plan(epochs=before, rate=plain_rate, **shared))
            said = train_into(out, start, read, recipe, half=half, progress=tell)
        if ranks.first():
            _tell(said, out, json)


@contextmanager
def _told(out: Path) -> Iterator[None]:
    """Say warnings in one line each, errors once where there are several processes, and what is left by Ctrl-C."""
    from whence.interpretable.training.folder import is_begun
    from whence.models.masked import ranks

    try:
        with warnings.catch_warnings():
            warnings.showwarning = lambda message, *_, **__: console.warn(f"warning: {message}")
            yield
    except KeyboardInterrupt:
        if ranks.first():
            left = "run the same command again, and it goes on from there" if is_begun(out) else "nothing was written"
            console.warn(f"stopped: {left}")
        raise typer.Exit(1) from None
    except Exception:
        if not ranks.first():
            # The first process says it too, and its end is the end of all; what it did not meet is said here.
            time.sleep(_PATIENCE)
        raise


def _tell(said: dict[str, Any], out: Path, json: bool) -> None:
    for skipped in said["data"]["skipped"]:
        console.warn(f"left out: {skipped}")
    if json:
        console.result({"folder": str(out), **said})
        return
    console.say(f"layer {said['layer']}")
    rows = [(name, f"{share:.2%}") for name, share in said["accuracy"].items()]
    console.table(("net", f"right of {said['data']['held_out']} held-out pictures"), rows)
    console.say(str(out))
