"""`whence creatures`: draw pictures with known answers, train a classifier on them, score and debug one."""

from dataclasses import asdict, replace
from math import isfinite
from pathlib import Path
from typing import Annotated

import typer

from whence.cli import confounded, console
from whence.cli.console import DEFAULT_MODEL, Debug, Device, Json, Model, Seed, Trust, Weights

app = typer.Typer(
    help="Drawn pictures whose true answers are known: nine species, told apart by any two of four parts.",
    no_args_is_help=True,
)

Folder = Annotated[Path, typer.Option("--out", metavar="FOLDER", help="A new folder.")]
Count = Annotated[int, typer.Option("--count", "-n", min=1, help="How many pictures.")]
Tags = Annotated[
    float | None,
    typer.Option(
        metavar="SHARE",
        help="Put a tag into a corner: so many wear their own class's, the others another's. "
        "1: all their own; 0: none its own. [default: no tags]",
    ),
]


@app.command()
def draw(
    out: Folder = Path("creatures"),
    count: Count = 100,
    seed: Seed = 0,
    missing: Annotated[int, typer.Option(min=0, max=4, help="How many of the four parts to leave out.")] = 0,
    tags: Tags = None,
    size: Annotated[int, typer.Option(min=16, help="The side of the pictures in pixels.")] = 64,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Draw creatures: PNG pictures, the maps of their parts, and a table of the truth."""
    from whence.creatures.files import write

    with console.stages() as tell:
        write(
            *(out, count, seed),
            missing=(missing,),
            tags=tags,
            size=size,
            progress=lambda done, total: tell("drawing", done, total),
        )
    if json:
        console.result({"folder": str(out), "pictures": count, "seed": seed})
    else:
        console.say(str(out))


@app.command()
def train(
    out: Folder = Path("creatures-model"),
    images: Annotated[int | None, typer.Option(min=1, help="How many pictures to train on. [default: 14000]")] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="How often each is seen. [default: 12]")] = None,
    drop: Annotated[int, typer.Option(min=0, max=2, help="Up to how many parts are missing in half of them.")] = 2,
    tags: Tags = None,
    threads: Annotated[int, typer.Option(min=1, help="Threads of the processor; the weights depend on them.")] = 1,
    seed: Seed = 0,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Train the classifier of the creatures, and write it as a model folder."""
    from whence.creatures.train import Recipe, train

    given = {name: value for name, value in (("images", images), ("epochs", epochs)) if value is not None}
    with console.stages() as tell:
        train(out, replace(Recipe(drop=drop, tags=tags, seed=seed), **given), threads=threads, progress=tell)
    if json:
        console.result({"folder": str(out)})
    else:
        console.say(str(out))


@app.command()
def score(
    model: Model = DEFAULT_MODEL,
    weights: Weights = None,
    count: Count = 2000,
    tags: Tags = None,
    seed: Seed = 1,
    device: Device = "cpu",
    json: Json = False,
    trust: Trust = False,
    debug: Debug = False,
) -> None:
    """Say how many fresh creatures a model knows, whole and with parts missing.

    With --tags 0 each wears the tag of a wrong class: who reads tags is wrong.
    """
    from whence.creatures import LABELS
    from whence.creatures.score import predictor, score
    from whence.models.load import load_model

    found = score(predictor(load_model(model, weights=weights, device=device, trust=trust)), count, seed, tags=tags)
    if json:
        shares = {name: share for name, share in zip(LABELS, found.classes, strict=True) if isfinite(share)}
        console.result({**asdict(found), "classes": shares})
        return
    rows = [("whole", found.whole), ("one part missing", found.one_missing), ("two parts missing", found.two_missing)]
    rows += [(f"whole {label}", share) for label, share in zip(LABELS, found.classes, strict=True)]
    console.table(("creatures", "right"), [(name, f"{share:.2%}") for name, share in rows])


app.command()(confounded.debug)
