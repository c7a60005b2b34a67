"""From the rows of a study to the counts of its graphs, the report and its files."""

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from whence.asking import MethodRequest
from whence.errors import OptionError
from whence.evaluation.records import write as write_file
from whence.graphs.graph import AttentionGraph
from whence.registry import METHODS
from whence.reports.counting_page import html
from whence.reports.counting_results import CountReport, Search, figures
from whence.studies.counting.counted import count
from whence.studies.counting.summary import Case, groups

if TYPE_CHECKING:
    from whence.studies.study import Study

PAGE, FIGURES = "count.html", "count.json"
_COLUMNS = ("number", "correct", "status", "graph")


def from_study(study: "Study", method: str | None = None, seed: int = 0) -> CountReport:
    """Return what is counted in a study's graphs, those of ``method`` where it has several such methods.

    Raises
    ------
    OptionError
        The study has no attention graphs, several kinds of them, or ones that were searched in different ways.
    """
    method = _method(study, method)
    request = MethodRequest.read(method)
    options: dict[str, Any] = METHODS.facts(request.method).checked(request.options)
    models = tuple(model.name for model in study.job.models)
    cases: list[Case] = []
    failed = dict.fromkeys(models, 0)
    searches: dict[Search, str] = {}
    for model in models:
        for row in _rows(study, model, method):
            if row["status"] != "ok" or row["graph"] is None:
                failed[model] += 1
                continue
            graph = AttentionGraph.from_json(json.loads(row["graph"]))
            searches.setdefault(_search(graph), model)
            cases.append(Case(model, row["number"], row["correct"], count(graph, options["roots"])))
    return CountReport(
        whence=version("whence"),
        method=method,
        search=_one(searches),
        limit=options["roots"],
        budget=options["budget"],
        models=models,
        missing=len(study.job.pictures) * len(models) - len(cases) - sum(failed.values()),
        failed=failed,
        seed=seed,
        groups=groups(cases, models, seed),
        rows=[_row(case) for case in cases],
    )


def _method(study: "Study", asked: str | None) -> str:
    """Return the method whose graphs are counted."""
    found = [text for text in study.job.methods if MethodRequest.read(text).method == "sag"]
    if not found:
        raise OptionError("this study holds no attention graphs: run it with --method sag:expand=0 into a new folder")
    if asked is None and len(found) > 1:
        raise OptionError(f"this study has {' and '.join(found)}, whose counts are not compared: name one of them")
    if asked is not None and asked not in found:
        raise OptionError(f"this study has no method {asked!r} with attention graphs: it has {' and '.join(found)}")
    return asked or found[0]


def _rows(study: "Study", model: str, method: str) -> Iterator[Mapping[str, Any]]:
    """Yield the rows of one model's graphs: of several models they would fill the memory."""
    table = study.table(columns=_COLUMNS, where={"model": model, "method": method})
    for batch in table.to_batches(max_chunksize=64):
        yield from batch.to_pylist()


def _search(graph: AttentionGraph) -> Search:
    places = graph.places
    kept = (graph.baseline, graph.threshold, graph.criterion, graph.overlap, graph.expand)
    return Search(places.side, places.style, *kept)


def _one(searches: Mapping[Search, str]) -> Search:
    """Return the one way in which all graphs were searched."""
    if not searches:
        raise OptionError("this study holds no attention graph that was finished: see the errors in its report")
    first, *others = searches
    if others:
        a, b = asdict(first), asdict(others[0])
        name = next(name for name in a if a[name] != b[name])
        raise OptionError(
            f"{searches[first]} was searched with {name} {a[name]}, {searches[others[0]]} with {b[name]}: "
            "counts of different searches are not compared, run one study with one search"
        )
    return first


def _row(case: Case) -> dict[str, Any]:
    counted = case.counted
    own = {"model": case.model, "number": case.number, "correct": case.correct}
    return {**own, **vars(counted), "capped": counted.capped}


def write(report: CountReport, folder: str | os.PathLike[str]) -> Path:
    """Write count.html and count.json into a folder, which may hold other files; return the page's path.

    Raises
    ------
    OutputError
        They cannot be written.
    """
    page = Path(folder) / PAGE
    write_file(page.with_name(FIGURES), (json.dumps(figures(report), indent=1, allow_nan=False) + "\n").encode())
    write_file(page, html(report).encode())
    return page
