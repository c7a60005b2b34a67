"""From a study to its cross-testing: the columns of its rows as tensors, the matrices, the landscapes, the page."""

import json
import os
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from whence.asking import MetricRequest
from whence.errors import OptionError
from whence.evaluation.records import write as write_file
from whence.registry import METRICS
from whence.reports.crossing_page import html
from whence.reports.crossing_results import Crossing, CrossReport, figures
from whence.reports.scores import Asked
from whence.studies.crossing import naming
from whence.studies.crossing.landscape import RESAMPLES, landscape
from whence.studies.crossing.matrix import LEAST, Judgements, matrix

if TYPE_CHECKING:
    from pyarrow import Table

    from whence.studies.study import Study

PAGE, FIGURES = "cross.html", "cross.json"


def from_study(study: "Study") -> list[Judgements]:
    """Return what a study's models say of each other's maps: for each method and metric.

    Raises
    ------
    OptionError
        The study has no such columns.
    """
    table = study.table()
    models = list(dict.fromkeys(table.column("model").to_pylist()))
    metrics = [m for m in naming.metrics(table.column_names, models[0]) if _whole(table, m, models)] if models else []
    if not metrics:
        raise OptionError(
            "this study's maps were not judged on its other models: run `whence study cross` into a new folder"
        )
    methods = dict.fromkeys(table.column("method").to_pylist())
    return [found for method in methods for found in _of_method(table, method, metrics, models)]


def _whole(table: "Table", metric: str, models: Sequence[str]) -> bool:
    return {name for judge in models for name in naming.columns([metric], judge)} <= set(table.column_names)


def _of_method(table: "Table", method: str, metrics: Sequence[str], models: Sequence[str]) -> list[Judgements]:
    """Return what is said of one method's maps."""
    names = table.column("method").to_pylist()
    rows = torch.tensor([row for row, name in enumerate(names) if name == method])
    own = table.take(rows.tolist())
    numbers = own.column("number").to_pylist()
    places = {number: place for place, number in enumerate(sorted(set(numbers)))}
    picture = torch.tensor([places[number] for number in numbers])
    model = torch.tensor([models.index(name) for name in own.column("model").to_pylist()])
    shape = (len(places), len(models))

    def laid(name: str) -> Float[Tensor, "n m"]:
        """Return a column by picture and the model that the map was made on, NaN where there is no row."""
        values = torch.full(shape, torch.nan, dtype=torch.float64)
        values[picture, model] = torch.tensor(_numbers(own, name), dtype=torch.float64)
        return values

    full = torch.stack([laid(naming.full(judge)) for judge in models], dim=2)
    right = laid("correct")
    correct: Bool[Tensor, "n m"] | None = None if bool(right.isnan().all()) else right == 1
    return [
        Judgements(
            method=method,
            metric=_asked(metric),
            models=tuple(models),
            auc=torch.stack([laid(naming.auc(metric, judge)) for judge in models], dim=2),
            full=full,
            base=torch.stack([laid(naming.base(metric, judge)) for judge in models], dim=2),
            correct=correct,
        )
        for metric in metrics
    ]


def _numbers(table: "Table", name: str) -> list[float]:
    """Return a column's numbers, NaN where there is none."""
    return [torch.nan if value is None else float(value) for value in table.column(name).to_pylist()]


def _asked(text: str) -> Asked:
    request = MetricRequest.read(text)
    facts = METRICS.facts(request.metric)
    return Asked(text, facts.title, facts.better_for(request.options), facts.along)


def crossed(study: "Study", *, normalised: bool = False, resamples: int = RESAMPLES, seed: int = 0) -> CrossReport:
    """Return the matrices and landscapes of a study: of all pictures, and of those that every model has right.

    ``normalised`` divides the likeness of two models by that of each with itself; ``resamples`` of the pictures
    give the ellipses.

    Raises
    ------
    OptionError
        As ``from_study``.
    """
    found = from_study(study)
    correct = [own for one in found if (own := one.among_correct()) is not None]

    def crossings(of: Sequence[Judgements]) -> list[Crossing]:
        return [_crossing(one, normalised, resamples, seed) for one in of]

    return CrossReport(
        whence=version("whence"),
        models=found[0].models,
        facts={
            "Pictures": str(len(found[0].auc)),
            "Methods": ", ".join(dict.fromkeys(one.method for one in found)),
            "Metrics": ", ".join(dict.fromkeys(one.metric.text for one in found)),
            "Likeness": "divided by that of each model with itself" if normalised else "as it is",
            "Seed of the resamples": str(seed),
        },
        least=LEAST,
        every=crossings(found),
        correct=crossings(correct) if correct else None,
    )


def _crossing(of: Judgements, normalised: bool, resamples: int, seed: int) -> Crossing:
    try:
        made, reason = landscape(of, normalised=normalised, resamples=resamples, seed=seed), ""
    except OptionError as error:
        made, reason = None, str(error)
    return Crossing(of.method, of.metric, len(of.auc), matrix(of, seed), made, reason)


def write(report: CrossReport, folder: str | os.PathLike[str]) -> Path:
    """Write cross.html and cross.json into a folder, which may hold other files; return the page's path.

    Raises
    ------
    OutputError
        They cannot be written.
    """
    page = Path(folder) / PAGE
    told: dict[str, Any] = figures(report)
    write_file(page.with_name(FIGURES), (json.dumps(told, indent=1, allow_nan=False) + "\n").encode())
    write_file(page, html(report).encode())
    return page
