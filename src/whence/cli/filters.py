"""`whence interpretable report`: a page about the filters of a trained model."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from whence.cli import console
from whence.cli.console import Debug, Device, Json, Trust, Weights
from whence.cli.datasets import CREATURES, HELD_OUT
from whence.errors import OptionError

if TYPE_CHECKING:
    from whence.interpretable.labelled import Progress
    from whence.interpretable.reporting.collect import Asked
    from whence.interpretable.reporting.looked import Subject
    from whence.interpretable.reporting.nets import Nets


def report(
    model: Annotated[str, typer.Argument(help="What `whence interpretable train` wrote, or a bundled model.")],
    data: Annotated[
        str, typer.Option(metavar="FOLDER", help="A folder that holds one folder of pictures a class, or: creatures")
    ] = CREATURES,
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="A new folder.")] = Path("filters"),
    parts: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Where the parts are: grey 8-bit PNGs at the pictures' relative paths, 0 for background, 1 for the "
            "first name in its parts.txt. The parts of creatures are known.",
        ),
    ] = None,
    count: Annotated[
        int, typer.Option("--count", "-n", min=2, help="On how many held-out pictures the filters are measured.")
    ] = HELD_OUT,
    held_out: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE",
            help="The share of a folder's pictures to measure on; 1: all. [default: the training's held-out ones]",
        ),
    ] = None,
    picture: Annotated[
        list[str] | None,
        typer.Option(
            "--picture",
            metavar="FILE",
            help="Show what the filters make of it, one by one; may be repeated. [default: one held-out picture of "
            "each of three classes]",
        ),
    ] = None,
    filters: Annotated[int, typer.Option(min=1, help="How many filters are shown, the best ones.")] = 64,
    weights: Weights = None,
    device: Device = "cpu",
    seed: Annotated[
        int | None, typer.Option(help="By which pictures are held out or drawn. [default: the training's, else 0]")
    ] = None,
    json: Json = False,
    trust: Trust = False,
    debug: Debug = False,
) -> None:
    """Write a page about a trained model's filters: which part each stands for, and how sharply.

    The ordinary net and the control that lie beside the model are measured on the same pictures, which are those that
    the training held out.
    """
    from whence.interpretable.reporting.collect import collect
    from whence.interpretable.reporting.nets import load
    from whence.reports.filters import figures
    from whence.reports.filters_page import check, write

    check(out)
    nets = load(model, weights=weights, device=device, trust=trust)
    asked = _asked(nets, picture or [])
    if seed is None:
        seed = (nets.training.seed if nets.training else None) or 0
    if held_out is None:
        held_out = (nets.training.share if nets.training else None) or 0.1
    with console.stages() as tell:
        if data == CREATURES:
            subject = _creatures(nets, count, seed, parts, tell)
        else:
            subject = _folder(data, nets, count, seed, held_out, parts, tell)
        found = collect(nets, subject, asked, filters=filters, progress=tell)
    page = write(found, out)
    if json:
        console.result({"report": str(page), **figures(found)})
        return
    head = ["measure", *(net.title for net in found.nets)]
    rows = [[m.title, *(_said(net.values.get(m.key)) for net in found.nets)] for m in found.measures]
    console.table(head, rows)
    console.say(str(page))


def _said(value: float | None) -> str:
    return "-" if value is None or value != value else f"{value:.3g}"


def _asked(nets: "Nets", files: list[str]) -> "list[Asked]":
    """Return the pictures asked for, as the model takes them."""
    from whence.errors import ModelError
    from whence.interpretable.reporting.collect import Asked
    from whence.pictures.read import read

    preprocess = nets.interpretable.preprocess
    if files and preprocess is None:
        raise ModelError(f"{nets.interpretable.name} states no preprocessing: write it into the model file")
    return [Asked(Path(file).name, None, preprocess(read(file)).input) for file in files] if preprocess else []


def _creatures(nets: "Nets", count: int, seed: int, parts: Path | None, tell: "Progress") -> "Subject":
    """Return creatures that the training held out, with their parts."""
    import numpy as np
    import torch

    from whence.creatures import LABELS, draw_many
    from whence.creatures.anatomy import creature_parts
    from whence.creatures.labelled import PREPROCESS
    from whence.interpretable.labelled import Pixels
    from whence.interpretable.reporting.folders import known
    from whence.interpretable.reporting.looked import Subject

    if parts is not None:
        raise OptionError("--parts is for folders: the parts of creatures are known, leave it out")
    classifier = nets.interpretable
    if classifier.input != PREPROCESS.shape:
        raise OptionError(
            f"{classifier.name} takes inputs of {classifier.input}, and creatures are {PREPROCESS.shape}: give the "
            "pictures that it was trained on as --data FOLDER"
        )
    drawn = []
    for creature in draw_many(count, seed + 1):
        drawn.append(creature)
        tell("drawing", len(drawn), count)
    pixels = torch.from_numpy(np.stack([creature.pixels for creature in drawn]))
    data = Pixels(pixels, torch.tensor([creature.label for creature in drawn]), LABELS)
    names = [f"creature {number} of seed {seed + 1}" for number in range(count)]
    return Subject(CREATURES, known(data, classifier.labels), names, creature_parts(drawn))


def _folder(
    text: str, nets: "Nets", count: int, seed: int, held_out: float, parts: Path | None, tell: "Progress"
) -> "Subject":
    """Return held-out pictures of a folder, and warn of those that cannot be read."""
    from whence.interpretable.reporting.folders import of_folder

    subject = of_folder(Path(text), nets, held_out=held_out, seed=seed, count=count, parts=parts, progress=tell)
    for sentence in subject.skipped:
        console.warn(f"left out: {sentence}")
    return subject
