"""From a study to its page."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import torch
from jaxtyping import Float, Int
from torch import Tensor

from whence.asking import MetricRequest
from whence.errors import WhenceError
from whence.registry import METRICS
from whence.reports import study_numbers, words
from whence.reports.evaluation import text
from whence.reports.images import photo
from whence.reports.study_numbers import Cell
from whence.reports.study_page import html
from whence.reports.study_results import (
    Accuracy,
    Classes,
    Failures,
    Gallery,
    Histograms,
    Line,
    Panel,
    Quantity,
    StudyReport,
    Tile,
)
from whence.studies import parts
from whence.studies.gallery import FIRST, write_gallery
from whence.studies.job import Job
from whence.studies.study import Study
from whence.studies.tables import METHOD_OK
from whence.studies.thumbnails import drawn, said

PAGE = "report.html"

_EACH = 12
# Both ends are shown of so many cells, and the mistakes of so many models: at most 96 images.
_BOTH_ENDS, _MISTAKEN = 3, 2
_PANELS = 48
_FAILED, _REASONS, _NOTES = 50, 20, 10
_QUALITY = 70
_PROBABILITY = Quantity("probability", "of the class explained")
_RESIDUAL = Quantity("residual", "its size: how far the method misses its own law")
_READ = ("number", "predicted", "truth_index", "predicted_probability", "probability", "residual", "seconds")
_PASSES = {"forward": "forward", "backward": "backward", "partial": "through a part"}


@dataclass(frozen=True)
class _Found:
    """What one model's maps by one method show; what is the same for all methods is told by the model's first."""

    line: Line
    panels: Mapping[str, Panel]
    galleries: Sequence[Gallery]
    of_truth: Mapping[str, Panel]
    accuracy: Accuracy | None
    classes: Classes | None


def write_page(study: Study, *, gallery: bool = False) -> Path:
    """Write a study's report.html anew, of what there is should it be unfinished, and return its path.

    Only the pictures that it shows are read. With ``gallery``, pages with all pictures and their maps are written
    into the folder ``gallery`` beside it.

    Raises
    ------
    OutputError
        A part is damaged, or the pages cannot be written.
    """
    if gallery:
        write_gallery(study, PAGE)
    page = study.folder / PAGE
    parts.write_text(page, html(reported(study)))
    return page


def reported(study: Study) -> StudyReport:
    """Return what a study's page shows."""
    job, summary = study.job, study.summary()
    metrics = [_quantity(metric) for metric in job.metrics]
    ends = {one.text: study_numbers.scale(_values(study.table(columns=[one.text])[one.text])) for one in metrics}
    # One after the other: the numbers of all cells of a large study would fill the memory.
    found = [_found(study, place, metrics, ends) for place in range(len(job.cells))]
    residual = [_RESIDUAL] if any(_RESIDUAL.text in one.line.estimates for one in found) else []
    return StudyReport(
        whence=version("whence"),
        name=job.root.name,
        pictures=len(job.pictures),
        explained=summary["rows"] // len(job.cells),
        rows=summary["rows"],
        models=summary["models"],
        methods=summary["methods"],
        facts=_facts(job, summary["seconds"]),
        quantities=[_PROBABILITY, *metrics, *residual],
        lines=[one.line for one in found],
        accuracies=[one.accuracy for one in found if one.accuracy],
        histograms=list(_histograms(found, metrics, ends)),
        galleries=[gallery for one in found for gallery in one.galleries],
        classes=[one.classes for one in found if one.classes],
        failures=_failures(study, summary["failed"]),
        notes=_notes(study),
        browse=FIRST if (study.folder / FIRST).is_file() else None,
    )


def _quantity(metric: str) -> Quantity:
    request = MetricRequest.read(metric)
    facts = METRICS.facts(request.metric)
    return Quantity(metric, facts.title, facts.better_for(request.options))


def _values(column: pa.ChunkedArray) -> Float[Tensor, " n"]:
    """Return numbers, NaN for null."""
    return torch.tensor(column.to_numpy(), dtype=torch.float64)


def _classes(column: pa.ChunkedArray) -> Int[Tensor, " n"]:
    """Return numbers of classes, -1 for null."""
    return torch.tensor(pc.fill_null(column, -1).to_numpy(), dtype=torch.int64)


def _found(study: Study, place: int, metrics: Sequence[Quantity], ends: Mapping[str, tuple[float, float]]) -> _Found:
    job, asked = study.job, study.job.cells[place]
    model = job.models[asked.model]
    columns = [*_READ, *_PASSES, *(one.text for one in metrics)]
    where = {"model": model.name, "method": asked.method}
    rows = study.table(columns=columns, where={**where, "status": METHOD_OK})
    failed = len(study.table(columns=["number"], where=where)) - len(rows)
    values = {name: _values(rows[name]) for name in dict.fromkeys((*_READ[3:], *(one.text for one in metrics)))}
    cell = Cell(
        model=model.name,
        method=asked.method,
        number=_classes(rows["number"]),
        predicted=_classes(rows["predicted"]),
        truth=_classes(rows["truth_index"]),
        values={**values, _RESIDUAL.text: values[_RESIDUAL.text].abs()},
    )
    panels = {one.text: study_numbers.panel(cell, one.text, ends[one.text]) for one in metrics}
    if _has_residual(cell):
        panels[_RESIDUAL.text] = _residual_panel(cell)
    first = next(own for own in job.cells if own.model == asked.model) == asked and bool((cell.predicted >= 0).any())
    return _Found(
        line=_line(cell, rows, failed, metrics),
        panels=panels,
        galleries=list(_galleries(study, place, cell, metrics, first)),
        of_truth={name: study_numbers.panel_of_truth(cell, name) for name in _sureties(cell)} if first else {},
        accuracy=study_numbers.accuracy(cell) if first else None,
        classes=study_numbers.classes(cell, model.labels, metrics[0] if metrics else None) if first else None,
    )


def _has_residual(cell: Cell) -> bool:
    return not bool(cell.values[_RESIDUAL.text].isnan().all())


def _residual_panel(cell: Cell) -> Panel:
    own = cell.values[_RESIDUAL.text]
    mean = text(study_numbers.estimated(own))[0]
    return Panel(f"{cell.model}, {cell.method}", f"mean {mean}", study_numbers.magnitudes(own))


def _sureties(cell: Cell) -> list[str]:
    """Return the probabilities that are drawn: one where the class explained is that given."""
    explained, given = (cell.values[name] for name in ("probability", "predicted_probability"))
    return ["predicted_probability"] if torch.equal(explained, given) else ["probability", "predicted_probability"]


def _line(cell: Cell, rows: pa.Table, failed: int, metrics: Sequence[Quantity]) -> Line:
    shown = [_PROBABILITY, *metrics, *([_RESIDUAL] if _has_residual(cell) else [])]
    means = {name: float(_values(rows[name]).mean()) for name in _PASSES}
    passes = ", ".join(f"{words.number(means[name])} {kind}" for name, kind in _PASSES.items() if means[name] > 0)
    return Line(
        model=cell.model,
        method=cell.method,
        pictures=len(rows),
        failed=failed,
        # The first pictures also pay for what a model does once.
        seconds=float(_values(rows["seconds"]).median()),
        passes=passes or "not known",
        estimates={one.text: study_numbers.estimated(cell.values[one.text]) for one in shown},
    )


def _histograms(
    found: Sequence[_Found], metrics: Sequence[Quantity], ends: Mapping[str, tuple[float, float]]
) -> Iterator[Histograms]:
    unit = ("0 %", "50 %", "100 %")
    for name, title, about in (
        ("probability", "Probability of the class explained", "How probable the model finds what is explained."),
        ("predicted_probability", "Confidence", "How probable the model finds the class that it gives."),
    ):
        own = [one.of_truth[name] for one in found if name in one.of_truth]
        groups = ("right", "wrong") if any(panel.outlined for panel in own) else None
        if own:
            yield Histograms(title, about, "probability", unit, own[:_PANELS], groups, len(own[_PANELS:]))
    for one in metrics:
        low, high = ends[one.text]
        ticks = (words.number(low), words.number((low + high) / 2), words.number(high))
        own = [part.panels[one.text] for part in found]
        about = f"{one.title}, {one.better} is better. Each drawing is of one model’s maps by one method."
        yield Histograms(one.text, about, "value", ticks, own[:_PANELS], None, len(own[_PANELS:]))
    if own := [one.panels[_RESIDUAL.text] for one in found if _RESIDUAL.text in one.panels]:
        about = "How far each method misses its own law: 0 is exact. The axis is in powers of ten."
        yield Histograms("Residuals", about, "size", study_numbers.POWERS, own[:_PANELS], None, len(own[_PANELS:]))


def _galleries(study: Study, place: int, cell: Cell, metrics: Sequence[Quantity], first: bool) -> Iterator[Gallery]:
    job, asked, of = study.job, study.job.cells[place], f"{cell.model}, {cell.method}"
    # Every model's first method before any model's second.
    order = sorted(job.cells, key=lambda one: (job.methods.index(one.method), one.model))
    if asked in order[:_BOTH_ENDS]:
        by = metrics[0] if metrics else _PROBABILITY
        best, worst = study_numbers.ranked(cell, by.text, by.better or "higher", _EACH)
        ends = ("Best", "Worst") if metrics else ("Most probable", "Least probable")
        for title, places in zip(ends, (best, worst), strict=True):
            if places:
                yield Gallery(f"{title}: {of}", f"By {by.text}.", _tiles(study, place, cell, places, by))
    if first and asked.model < _MISTAKEN and (places := study_numbers.mistakes(cell, _EACH)):
        about = "The wrong answers of which the model is surest, with what it saw in them."
        yield Gallery(f"Most confident mistakes: {of}", about, _tiles(study, place, cell, places, _PROBABILITY))


def _tiles(study: Study, place: int, cell: Cell, places: Sequence[int], by: Quantity) -> list[Tile]:
    return [
        _tile(study, place, int(cell.number[i]), by, float(cell.values[by.text][i]), wrong=bool(cell.wrong[i]))
        for i in places
    ]


def _tile(study: Study, place: int, number: int, by: Quantity, value: float, *, wrong: bool) -> Tile:
    """Return a picture with its map, or why it cannot be shown."""
    cell = study.job.cells[place]
    model = study.job.models[cell.model]
    row = study.row(number, model.name, cell.method)
    image, missing = None, None
    try:
        values = None if study.job.maps == "none" else study.map(number, model.name, cell.method)
        image = photo(drawn(study.picture(number), values, row, model.input[1:]), _QUALITY)
    except WhenceError as error:
        missing = str(error)
    shown = f"{by.text} {words.percent(value)}" if by is _PROBABILITY else f"{by.title} {words.number(value)}"
    return Tile(row["picture"], said(row), shown, wrong, image, missing)


def _failures(study: Study, rows: int) -> Failures:
    reasons = study.failures()
    each = [(name, reason) for reason, names in reasons.items() for name in names]
    return Failures(
        rows=rows,
        pictures=len({name for name, _ in each}),
        reasons=[(reason, len(names)) for reason, names in list(reasons.items())[:_REASONS]],
        left_out=len(reasons) - min(len(reasons), _REASONS),
        shown=each[:_FAILED],
    )


def _notes(study: Study) -> list[tuple[str, int]]:
    """Return the sentences that stand in most rows, each with in how many."""
    found: Counter[str] = Counter()
    for rows in study.batches(columns=["notes"]):
        for one in pc.value_counts(pc.list_flatten(rows["notes"])).to_pylist():
            found[one["values"]] += one["counts"]
    return found.most_common(_NOTES)


def _facts(job: Job, seconds: float) -> dict[str, str]:
    return {
        "Explained": {None: "each picture’s top class", "truth": "each picture’s true class"}.get(
            job.target, str(job.target)
        ),
        "Weights": ", ".join(f"{model.name} {model.fingerprint[:12]}" for model in job.models),
        "Device": ", ".join(dict.fromkeys(f"{job.device}, {model.precision}" for model in job.models)),
        "Seed": str(job.seed),
        "Work": f"{seconds:,.1f} s of explaining",
        "Job": job.fingerprint[:12],
        "Made with": ", ".join(f"{name} {number}" for name, number in job.versions.items()),
    }
