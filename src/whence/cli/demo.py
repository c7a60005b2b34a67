"""`whence demo`: the main job on drawn pictures with the bundled model."""

from contextlib import chdir
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

import typer

from whence.cli import console
from whence.cli.console import DEFAULT_MODEL, Debug, Json, Seed
from whence.cli.explain import expanded, finish
from whence.errors import UnsupportedError

if TYPE_CHECKING:
    from whence.asking import MethodRequest
    from whence.models.classifier import Classifier

# A method that would take more passes than this for one picture is asked for fewer samples.
_MOST = 200
# The options that say how often a method looks at a picture.
_COUNTS = ("samples", "iterations", "steps")


def demo(
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Where the report goes.")] = Path("whence-demo"),
    seed: Seed = 0,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Draw three creatures, explain them by every method there is, and name the report.

    Slow methods look at fewer samples than they do by themselves; the report states the options.
    """
    from whence.creatures.files import write
    from whence.explaining import Job
    from whence.models.load import load_model
    from whence.registry import METHODS
    from whence.reports.folder import check

    check(out)
    model = load_model(DEFAULT_MODEL)
    asked = [_quick(name, model, seed) for name in METHODS.names()]
    for request in asked:
        if cut := [f"{name}={request.options[name]}" for name in _COUNTS if name in request.options]:
            console.warn(f"quick, for the demo: {request.method}:{','.join(cut)}")
    job = Job(model, asked, seed=seed, leave_out=True)
    report = out.resolve()
    # From inside, so that the pictures are known by their short paths.
    with TemporaryDirectory() as folder, chdir(folder):
        write(Path("creatures"), 3, seed)
        failures, _ = finish(job, expanded(["creatures"]), report, json)
    if failures:
        raise typer.Exit(3)


def _quick(name: str, model: "Classifier", seed: int) -> "MethodRequest":
    """Return a method with its defaults, or with fewer samples where these would take too many passes."""
    from whence.asking import MethodRequest
    from whence.registry import METHODS

    facts = METHODS.facts(name)
    given: dict[str, object] = {"seed": seed} if "seed" in facts.options else {}
    options = facts.checked(given)
    try:
        planned = facts.cost(options, model)
    except UnsupportedError:  # it is left out, with its reason, where it is asked
        return MethodRequest(name, given)
    passes = planned.forward + planned.backward + planned.partial
    count = next((name for name in _COUNTS if isinstance(options.get(name), int)), None)
    if count is not None and passes > _MOST:
        given[count] = max(1, int(options[count]) * _MOST // passes)  # type: ignore[call-overload]
    return MethodRequest(name, given)
