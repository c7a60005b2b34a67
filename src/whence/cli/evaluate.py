"""`whence evaluate`: pictures, a model, methods and metrics to a table of how good the maps are."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from whence.cli import console
from whence.cli.console import DEFAULT_MODEL, Debug, Device, Json, ModelIfGiven, Seed, Trust, Weights
from whence.cli.explain import expanded
from whence.errors import OptionError, OutputError, PictureError
from whence.pictures.files import is_picture

if TYPE_CHECKING:
    from whence.asking import MethodRequest, MetricRequest
    from whence.batches import Ready
    from whence.evaluation.evaluate import Known, Task
    from whence.evaluation.records import Records
    from whence.evaluation.result import Evaluation
    from whence.reports.scores import Estimate, Row


def evaluate(
    pictures: Annotated[list[str], typer.Argument(metavar="PICTURE...", help="Files, folders or http(s) addresses.")],
    model: ModelIfGiven = None,
    weights: Weights = None,
    method: Annotated[
        list[str] | None,
        typer.Option(
            "--method",
            metavar="NAME[:key=value,...]",
            help="Whose maps are measured; may be repeated, `all` for every one. `whence methods` lists them.",
        ),
    ] = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(
            "--metric",
            metavar="NAME[:key=value,...]",
            help="By what; may be repeated. [default: deletion and insertion on 28 x 28 cells, fewer for small "
            "inputs: at one resolution only can methods be compared, and by itself deletion ranks each map's own "
            "cells]",
        ),
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(
            "--target", metavar="T", help="What is explained, as for `whence explain`. [default: the top class]"
        ),
    ] = None,
    region: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE_OR_FOLDER",
            help="Where the true evidence lies, for the metrics that ask for it: a mask of the picture's size, "
            "inside where it is at least half as bright as white, or a folder with masks of the pictures' names.",
        ),
    ] = None,
    out: Annotated[
        list[Path] | None,
        typer.Option(
            "--out",
            metavar="FILE",
            help="Where the numbers go: .csv or .parquet for a table, .html for a page; may be repeated. They are "
            "kept in a .csv of that name as they come, with a .jsonl beside it: run again, and what is there is not "
            "measured again.",
        ),
    ] = None,
    device: Device = "cpu",
    seed: Seed = 0,
    json: Json = False,
    trust: Trust = False,
    debug: Debug = False,
) -> None:
    """Measure how good the maps of some methods are, on many pictures: means with 95 % intervals.

    Exit code 3 means that some pictures could not be read, or some methods or metrics were left out of some; the
    table holds the others.
    """
    from whence.asking import MetricRequest
    from whence.evaluation.evaluate import Task, collected, methods_asked, metrics_asked, scored
    from whence.models.load import load_model

    outs = _writable(out or [])
    methods = methods_asked(method or [])
    for text in metric or []:
        MetricRequest.read(text)
    sources = list(dict.fromkeys(expanded(pictures)))
    regions = None if region is None else _masks(region, sources)
    classifier = load_model(model or DEFAULT_MODEL, weights=weights, device=device, trust=trust, seed=seed)
    metrics = metrics_asked(metric, classifier)
    _warn_of_grids(methods, metrics)
    task = Task(classifier, methods, metrics, target, regions, seed)
    records = _records(task, outs)
    if records:
        task = replace(task, known=_known(records), keep=records.keep)
    found = list(console.progress(scored(task, sources), len(sources), "evaluating"))
    made = collected(task, found)
    if records:
        _save(made, records, outs)
    if json:
        console.result({**made.result(), "out": [str(path) for path in outs]})
    else:
        _tell(made, outs)
    _tell_left_out(made)
    if model is None:
        console.warn("no --model given: the bundled creature classifier was explained; give --model for your own")
    if made.skipped or made.failed:
        raise typer.Exit(3)


def _writable(outs: Sequence[Path]) -> list[Path]:
    """Return the files asked for, each of a suffix that is known, in a place that can hold it."""
    from whence.evaluation.result import checked_suffix

    for path in outs:
        checked_suffix(path)
        if path.is_dir() or (path.parent.exists() and not path.parent.is_dir()):
            raise OutputError(
                f"{str(path)!r} cannot be written: a folder or a file is in its place, name another file"
            )
    return list(dict.fromkeys(outs))


def _masks(region: Path, sources: Sequence[str]) -> list[Path | None]:
    """Return each picture's mask, None where the folder has none of its name."""
    if not region.exists():
        raise PictureError(f"there is no file or folder {str(region)!r}: check the path of --region")
    if not region.is_dir():
        if len(sources) > 1:
            raise OptionError(f"--region {str(region)!r} is one mask for {len(sources)} pictures: give a folder")
        return [region]
    inside = {path.stem: path for path in sorted(region.iterdir()) if is_picture(path)}
    found = [inside.get(Path(source).stem) for source in sources]
    if not any(found):
        raise PictureError(f"the folder {str(region)!r} holds no mask of any picture's name: name them alike")
    return found


def _warn_of_grids(methods: Sequence["MethodRequest"], metrics: Sequence["MetricRequest"]) -> None:
    """Say that methods whose maps are ranked in cells of their own are not compared."""
    from whence.registry import METRICS

    for request in metrics if len(methods) > 1 else ():
        grid = METRICS.facts(request.metric).options.get("grid")
        if grid is not None and request.options.get("grid", grid.default) == "map":
            console.warn(
                f"{request.text} ranks the cells of each map, large or small: to compare methods write "
                f"--metric {request.metric}:grid=28"
            )


def _records(task: "Task", outs: Sequence[Path]) -> "Records | None":
    """Return the files in which the numbers are kept while they come, with what they hold already."""
    from importlib.metadata import version

    from whence.evaluation.records import Records

    if not outs:
        return None
    table = next((path for path in outs if path.suffix.lower() == ".csv"), outs[0].with_suffix(".csv"))
    made = Records(
        table,
        {
            "whence": version("whence"),
            "model": task.classifier.fingerprint,
            "preprocessing": task.classifier.preprocessing,
            "activation": task.classifier.scale.activation,
            "precision": task.classifier.precision,
            "target": task.target or "the top class",
            "seed": task.seed,
        },
    )
    for path in outs:
        if path.exists() and not made.beside.exists():
            raise OutputError(
                f"{str(path)!r} is there already, and holds no evaluation to go on with: name another file"
            )
    return made


def _known(records: "Records") -> "Known":
    """Return what finds a number of a picture and mask whose files have not changed."""
    from whence.asking import written

    def known(item: "Ready", request: "MethodRequest", metric: "MetricRequest", region: str) -> "Row | None":
        row = records.rows.get((item.name, request.method, written(request.options), metric.text))
        assert item.picture is not None
        return row if row and (row.sha256, row.region) == (item.picture.sha256, region) else None

    return known


def _save(made: "Evaluation", records: "Records", outs: Sequence[Path]) -> None:
    """Put the files in order, and write those that are made of them."""
    records.finish(made.rows)
    whole = replace(made, rows=tuple(records.rows.values()))
    for path in outs:
        if path != records.table:
            (made if path.suffix.lower() == ".html" else whole).save(path)


def _tell(made: "Evaluation", outs: Sequence[Path]) -> None:
    """Print a line for each method: its mean by each metric with the interval; a star marks the best."""
    head = ["method", *(metric.text for metric in made.metrics), "pictures"]
    rows: list[list[Any]] = []
    for line in made.table():
        numbers = [_said(line.estimates.get(m.text), m.text in line.best, line.pictures) for m in made.metrics]
        rows.append([line.method, *numbers, line.pictures])
    console.table(head, rows)
    console.say()
    console.say("mean [95 % interval, bootstrap over the pictures]; * is the best of its column")
    for better in ("lower", "higher"):
        if names := [metric.text for metric in made.metrics if metric.better == better]:
            console.say(f"{better} is better: {', '.join(names)}")
    for path in outs:
        console.say(str(path))


def _said(estimate: "Estimate | None", best: bool, pictures: int) -> str:
    from whence.reports.evaluation import text

    if estimate is None:
        return "-"
    # Not every terminal can print the minus of the page.
    mean, interval = (None if said is None else said.replace("\N{MINUS SIGN}", "-") for said in text(estimate))
    between = f" [{interval}]" if interval else ""
    fewer = "" if estimate.count == pictures else f" of {estimate.count}"
    return f"{mean}{between}{fewer}{' *' if best else ''}"


def _tell_left_out(made: "Evaluation") -> None:
    """Warn of what could not be measured, a line for each reason."""
    from whence.reports.scores import reasons

    measured = len({row.picture for row in made.rows})
    for what, names, reason in reasons(made.skipped):
        whose = "" if len(names) == measured else f" for {' and '.join(names)}"
        console.warn(f"left out: {what}{whose}: {reason}")
    for name, reason in made.failed:
        console.warn(f"not measured: {name}: {reason}")
