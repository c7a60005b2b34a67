"""`whence creatures`: draw pictures with known answers, train a classifier on them, score and debug one."""

from pathlib import Path
from typing import Annotated

import typer

from whence.cli import confounded, console, scoring
from whence.cli.console import Debug, Json, Seed
from whence.cli.scoring import Tags

app = typer.Typer(
    help="Drawn pictures whose true answers are known: nine species, told apart by any two of four parts.",
    no_args_is_help=True,
)

Folder = Annotated[Path, typer.Option("--out", metavar="FOLDER", help="A new folder.")]
Count = Annotated[int, typer.Option("--count", "-n", min=1, help="How many pictures.")]


@app.command()
def draw(
    out: Folder = Path("creatures"),
    count: Count = 100,
    seed: Seed = 0,
    missing: Annotated[int, typer.Option(min=0, max=4, help="How many of the four parts to leave out.")] = 0,
    strange: Annotated[int, typer.Option(min=0, max=4, help="How many get a shape that no species has.")] = 0,
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
            strange=strange,
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
    net: Annotated[str, typer.Option(metavar="NAME", help="cnn, or vit: a transformer.")] = "cnn",
    variant: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Of the CNN its norms: batch, group, layer. Of the transformer its stem: cnn, taken from the "
            "bundled model, or own.  [default: batch; cnn]",
        ),
    ] = None,
    teacher: Annotated[
        str | None, typer.Option(metavar="SPEC", help="A model whose answers are learnt beside the labels.")
    ] = None,
    images: Annotated[int, typer.Option(min=1, help="How many pictures to train on.")] = 14_000,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="How often each is seen. [default: 12; 8 for the transformer]")
    ] = None,
    drop: Annotated[int, typer.Option(min=0, max=2, help="Up to how many parts are missing in half of them.")] = 2,
    tags: Tags = None,
    threads: Annotated[int, typer.Option(min=1, help="Threads of the processor; the weights depend on them.")] = 1,
    seed: Seed = 0,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Train a classifier of the creatures, and write it as a model folder."""
    from whence.creatures.train import Recipe, train

    changed = {} if epochs is None else {"epochs": epochs}
    recipe = Recipe(images, drop, tags, net, variant, teacher, seed, changed)
    with console.stages() as tell:
        train(out, recipe, threads=threads, progress=tell)
    if json:
        console.result({"folder": str(out)})
    else:
        console.say(str(out))


app.command()(scoring.score)
app.command()(confounded.debug)
