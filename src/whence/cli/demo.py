"""`whence demo`: the main job on drawn pictures with the bundled model."""

from contextlib import chdir
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer

from whence.cli.console import DEFAULT_MODEL, Debug, Json, Seed
from whence.cli.explain import expanded, finish


def demo(
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Where the report goes.")] = Path("whence-demo"),
    seed: Seed = 0,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Draw three creatures, explain them by every method there is, and name the report."""
    from whence.creatures.files import write
    from whence.explaining import Job, requests
    from whence.models.load import load_model
    from whence.registry import METHODS
    from whence.reports.folder import check

    check(out)
    job = Job(load_model(DEFAULT_MODEL), requests(METHODS.names(), {}, seed), seed=seed)
    report = out.resolve()
    # From inside, so that the pictures are known by their short paths.
    with TemporaryDirectory() as folder, chdir(folder):
        write(Path("creatures"), 3, seed)
        finish(job, expanded(["creatures"]), report, json)
