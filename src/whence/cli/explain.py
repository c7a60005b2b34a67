"""`whence explain`: pictures, a model and methods to a folder with the report."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from whence.cli import console
from whence.cli.console import (
    DEFAULT_MODEL,
    Colours,
    Debug,
    Device,
    Json,
    Mode,
    ModelIfGiven,
    OutlierPerc,
    Precision,
    Seed,
    Sign,
    Trust,
    Weights,
)
from whence.errors import PictureError
from whence.pictures.files import pictures_in

if TYPE_CHECKING:
    from whence.asking import MethodRequest
    from whence.explaining import Job
    from whence.explanation import Outcome
    from whence.reports.contents import Result
    from whence.reports.look import Look


def explain(
    pictures: Annotated[list[str], typer.Argument(metavar="PICTURE...", help="Files, folders or http(s) addresses.")],
    model: ModelIfGiven = None,
    weights: Weights = None,
    method: Annotated[
        list[str] | None,
        typer.Option(
            "--method",
            metavar="NAME[:key=value,...]",
            help="How to explain; may be repeated. `whence methods` lists them. [default: grad-cam]",
        ),
    ] = None,
    target: Annotated[
        list[str] | None,
        typer.Option(
            "--target",
            metavar="T",
            help="What to explain: a label, a number, second, 'a - b', probability:a, log-probability:a, log-odds:a; "
            "may be repeated. "
            "[default: each picture's top class]",
        ),
    ] = None,
    layer: Annotated[
        list[str] | None,
        typer.Option(
            "--layer",
            metavar="L",
            help="Which layer, for the methods that have one; lrp then shows what has come to it in the place of the "
            "picture. May be repeated; `+` joins several into one answer. `whence layers` lists them.",
        ),
    ] = None,
    truth: Annotated[
        str | None, typer.Option(metavar="LABEL", help="The true class, shown beside the model's.")
    ] = None,
    share: Annotated[float, typer.Option(help="Which part of the area the evidence removes and keeps.")] = 0.064,
    evidence: Annotated[
        Literal["share", "curves"],
        typer.Option(
            help="What puts a map to the test: a share of the area, or beside it the curves of deletion and "
            "insertion (about a hundred more passes for each map)."
        ),
    ] = "share",
    bits: Annotated[int | None, typer.Option(help="How many bits the grey values of 16-bit pictures use.")] = None,
    device: Device = "cpu",
    precision: Precision = "float32",
    seed: Seed = 0,
    mode: Mode = None,
    sign: Sign = None,
    outlier_perc: OutlierPerc = None,
    colours: Colours = None,
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Where the report goes.")] = Path("whence-report"),
    json: Json = False,
    trust: Trust = False,
    debug: Debug = False,
) -> None:
    """Explain pictures: a report with maps and their evidence, as a page to read and as data.

    Exit code 3 means that some pictures could not be read, or some methods not explain the model; the report holds
    the others.
    """
    from whence.asking import requests
    from whence.explaining import Job
    from whence.models.load import load_model
    from whence.reports.folder import check

    check(out)
    look = console.look(mode, sign, outlier_perc, colours)
    sources = expanded(pictures)
    layers = [tuple(name.split("+")) if "+" in name else name for name in layer or []]
    asked = _per_layer(requests(method or ["grad-cam"], {"layer": layers[0]} if layers else {}, seed), layers)
    _warn_of_layers(asked, layers)
    classifier = load_model(model or DEFAULT_MODEL, weights=weights, device=device, trust=trust, seed=seed)
    classifier.precision = precision
    targets = tuple(target) if target else (None,)
    failures, left_out = finish(
        Job(classifier, asked, targets, share, truth, seed, bits, leave_out=True, evidence=evidence),
        sources,
        out,
        json,
        look,
    )
    if model is None:
        whose = "this picture" if len(sources) == 1 else "these pictures"
        console.warn(f"no --model given: the bundled creature classifier explains {whose}; give --model for your own")
    if failures or left_out:
        raise typer.Exit(3)


def _per_layer(asked: Sequence["MethodRequest"], layers: Sequence[str | tuple[str, ...]]) -> list["MethodRequest"]:
    """Return a request for each of the layers in the place of one that took the first of them."""
    return [
        replace(request, options={**request.options, "layer": layer}) if layer else request
        for request in asked
        for layer in (layers if layers and request.options.get("layer") == layers[0] else [None])
    ]


def _warn_of_layers(asked: Sequence["MethodRequest"], layers: Sequence[str | tuple[str, ...]]) -> None:
    """Say that a layer given for the methods that need one changes what another one shows."""
    from whence.registry import METHODS

    reached = {request.method for request in asked if request.options.get("layer") in layers}
    needing = {name for name in reached if METHODS.facts(name).needs == "layer"}
    for name in sorted(reached - needing) if needing else ():
        console.warn(
            f"--layer reaches {name} too, which needs none and shows that layer now: "
            f"write --method {name}:layer=none to see the picture"
        )


def expanded(pictures: Sequence[str]) -> list[str]:
    """Return the pictures named, a folder replaced by the pictures in it.

    Raises
    ------
    PictureError
        A path does not exist, or a folder holds no picture.
    """
    found: list[str] = []
    for name in pictures:
        path = Path(name)
        if name.lower().startswith(("http://", "https://")):
            found.append(name)
        elif path.is_dir():
            found += map(str, pictures_in(path))
        elif not path.exists():
            raise PictureError(f"there is no file {name}: check the path")
        else:
            found.append(name)
    return found


def finish(job: "Job", sources: Sequence[str], out: Path, json: bool, look: "Look | None" = None) -> tuple[int, int]:
    """Explain, write the folder, and tell; return how many pictures failed, and how many methods were left out.

    A picture whose search was interrupted counts as failed; what was found is written.

    Raises
    ------
    WhenceError
        No picture could be explained: the first picture's error.
    """
    from whence.explaining import interrupted
    from whence.explanation import Failure, contents
    from whence.reports import folder
    from whence.reports.look import DEFAULT, looked

    done = _explained(job, sources)
    failures = [outcome for outcome in done if isinstance(outcome, Failure)]
    good = [outcome for outcome in done if not isinstance(outcome, Failure)]
    if not good:
        raise failures[0].error
    result = folder.write(looked(contents(done, good[0][1][0].model, job.seed), look or DEFAULT), out)
    if json:
        console.result(result)
    else:
        _tell(good)
        _tell_balances(result)
        _tell_graphs(good)
        console.say()
        console.say(result["report"])
    for failure in failures:
        console.warn(f"not explained: {failure.error}")
    return len(failures) + sum(map(interrupted, good)), _tell_left_out(good)


def _explained(job: "Job", sources: Sequence[str]) -> "list[Outcome]":
    """Explain picture by picture. Where Ctrl-C ended a search that has something to show, the others fail."""
    from whence.explaining import interrupted, outcomes
    from whence.explanation import Failure

    done: list[Outcome] = []
    try:
        for outcome in console.progress(outcomes(job, sources), len(sources), "explaining"):
            done.append(outcome)
    except KeyboardInterrupt:
        if not any(map(interrupted, done)):
            raise
        left = sources[len(done) :]
        done += [Failure(name, PictureError(f"{name}: interrupted before its turn came")) for name in left]
    return done


def _tell_left_out(good: Sequence["Outcome"]) -> int:
    """Warn of each method that could not explain some pictures; return how many there are."""
    pictures: dict[tuple[str, str], list[str]] = defaultdict(list)
    for outcome in good:
        assert isinstance(outcome, tuple)
        for one in outcome[0].left_out:
            pictures[one.method, one.reason].append(outcome[0].name)
    for (method, reason), names in pictures.items():
        whose = "" if len(names) == len(good) else f" for {' and '.join(names)}"
        console.warn(f"left out: {method}{whose}: {reason}")
    return len(pictures)


def _tell(good: Sequence["Outcome"]) -> None:
    """Print one line for each explanation: what the model said, and what the evidence is."""
    rows: list[tuple[str, ...]] = []
    measured: list[str] = []
    for outcome in good:
        assert isinstance(outcome, tuple)
        for e in outcome[1]:
            unit = ".3g" if e.probability is None else ".1%"
            said = "" if e.probability is None else f"{e.probability:.1%}"
            removed, kept = (f"{v:{unit}}" for v in (e.evidence.removed, e.evidence.kept)) if e.evidence else ("", "")
            method = f"{e.method} at {e.attribution.layer}" if e.attribution.layer else e.method
            areas = [f"{curve.area:.3f}" for curve in e.evidence.curves.values()] if e.evidence else []
            rows.append(
                (e.subject.name, method, e.label or "(score)", said, removed, kept, *areas, "; ".join(e.notes))
            )
            measured = list(e.evidence.curves) if e.evidence else []
    console.table(("picture", "method", "class", "probability", "removed", "kept alone", *measured, "notes"), rows)


def _tell_graphs(good: Sequence["Outcome"]) -> None:
    """Print which sets of patches suffice, a line for each of those that are shown."""
    from whence.graphs.graph import name

    rows = [
        (
            e.subject.name,
            e.label or "(score)",
            e.graph.baseline,
            shorten(name(root.patches), 60, placeholder=" ..."),
            str(len(root.patches)),
            f"{e.graph.share(root.value):.0%}",
            root.proof,
            str(e.graph.evaluations),
        )
        for outcome in good
        if isinstance(outcome, tuple)
        for e in outcome[1]
        if e.graph is not None
        for root in e.graph.roots
    ]
    if rows:
        console.say()
        console.table(
            (
                "picture",
                "class",
                "over",
                "these patches suffice",
                "patches",
                "of the whole",
                "proof",
                "sets asked about",
            ),
            rows,
        )


def _tell_balances(result: "Result") -> None:
    """Print where the relevance went, a line for each explanation by a method that hands it back."""
    from whence.reports import words
    from whence.reports.balance import balance

    rows = [
        (picture["path"], row["method"], words.label(row["target"]), words.plain(told.text))
        for picture in result["pictures"]
        for row in picture["explanations"]
        if (told := balance(row)) is not None
    ]
    if rows:
        console.say()
        console.table(("picture", "method", "class", "balance: where the relevance went"), rows)
