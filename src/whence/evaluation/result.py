"""Evaluation: what metrics say of methods on some pictures; shown and saved."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

from whence.errors import MissingExtraError, OptionError
from whence.evaluation.records import COLUMNS, csv_of, write
from whence.reports import evaluation as reports
from whence.reports.scores import Asked, Line, MeanCurve, Row, Skipped, mean_curves, table
from whence.rows import ModelFacts, Versions

SUFFIXES = (".csv", ".parquet", ".html")


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What metrics say of methods on some pictures.

    Attributes
    ----------
    rows
        One number each: picture by picture, of every method, by every metric.
    metrics
        The metrics as they were asked for.
    model, seed, target, versions
        Which model was explained, the seed, what was explained (None for each picture's top class), and what made it.
    skipped, failed
        What could not be measured; pictures that could not be read, with the reason.
    """

    rows: tuple[Row, ...]
    metrics: tuple[Asked, ...]
    model: ModelFacts
    seed: int
    target: str | None = None
    skipped: tuple[Skipped, ...] = ()
    failed: tuple[tuple[str, str], ...] = ()
    versions: Versions = field(default_factory=Versions.now)

    def __repr__(self) -> str:
        """Return one line for a terminal."""
        methods, pictures = ({getattr(row, name) for row in self.rows} for name in ("label", "picture"))
        counts = f"{len(pictures)} pictures, {len(methods)} methods, {len(self.metrics)} metrics"
        return f"Evaluation({self.model.name!r}, {counts})"

    def table(self) -> list[Line]:
        """Return a line for each method, the best by the first metric first: means with 95 % intervals.

        The intervals are percentile bootstrap intervals over the pictures, drawn from the seed.
        """
        return table(self.rows, self.metrics, self.seed)

    @property
    def curves(self) -> list[MeanCurve]:
        """The mean curve over the pictures, of each method by each metric that has curves."""
        return mean_curves(self.rows)

    def html(self) -> str:
        """Return a page that loads nothing from outside."""
        return reports.html(self._shown())

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the numbers (``.csv``, ``.parquet``) or a page (``.html``); return the path.

        Raises
        ------
        OptionError
            Another suffix.
        MissingExtraError
            Parquet is asked for, and pyarrow is not installed.
        OutputError
            The file cannot be written.
        """
        kind = checked_suffix(path)
        data = {".csv": lambda: csv_of(self.rows), ".parquet": lambda: parquet(self.rows)}
        write(Path(path), data[kind]() if kind in data else self.html().encode("utf-8"))
        return Path(path)

    def _repr_html_(self) -> str:
        return reports.fragment(self._shown())

    def _shown(self) -> reports.Shown:
        model, versions = self.model, {"whence": self.versions.whence, **self.versions.libraries}
        return reports.Shown(
            model=model.name,
            facts={
                "Model": model.spec,
                "Fingerprint": model.fingerprint[:12],
                "Input": " × ".join(map(str, model.input)),
                "Target": self.target or "each picture’s top class",
                "Seed": str(self.seed),
                "Versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
            },
            pictures=len({row.picture for row in self.rows}),
            metrics=self.metrics,
            lines=self.table(),
            curves=self.curves,
            skipped=self.skipped,
            failed=self.failed,
            notes=_noted(self.rows),
        )

    def result(self) -> Mapping[str, Any]:
        """Return everything as JSON can hold it; a number that is not defined is null."""
        return {
            "whence": self.versions.whence,
            "versions": dict(self.versions.libraries),
            "seed": self.seed,
            "model": {"name": self.model.name, "spec": self.model.spec, "fingerprint": self.model.fingerprint},
            "metrics": [{"metric": m.text, "title": m.title, "better": m.better} for m in self.metrics],
            "rows": [{name: _number(getattr(row, name)) for name in COLUMNS} for row in self.rows],
            "table": [
                {
                    "method": line.method,
                    "pictures": line.pictures,
                    "best": list(line.best),
                    "metrics": {m: {k: _number(v) for k, v in vars(e).items()} for m, e in line.estimates.items()},
                }
                for line in self.table()
            ],
            "skipped": [dict(vars(one)) for one in self.skipped],
            "failed": [{"picture": name, "reason": reason} for name, reason in self.failed],
        }


def _number(value: object) -> object:
    return None if value != value else value


def _noted(rows: Sequence[Row]) -> list[tuple[str, int]]:
    """Return the sentences that explain numbers, with how many each is said of."""
    counts: dict[str, int] = {}
    for row in rows:
        for note in row.notes:
            said = f"{row.metric}: {note}"
            counts[said] = counts.get(said, 0) + 1
    return list(counts.items())


def checked_suffix(path: str | os.PathLike[str]) -> str:
    """Return what a file's suffix asks for, whose library is there.

    Raises
    ------
    OptionError, MissingExtraError
        Another suffix, or Parquet without pyarrow.
    """
    kind = Path(path).suffix.lower()
    if kind not in SUFFIXES:
        raise OptionError(f"{os.fspath(path)!r}: the suffix decides what is written, give {' or '.join(SUFFIXES)}")
    if kind == ".parquet":
        _pyarrow()
    return kind


def parquet(rows: Sequence[Row]) -> bytes:
    """Return the table as Parquet."""
    arrow, files = _pyarrow()
    columns = {
        name: [v.encode("utf-8", "replace").decode() if isinstance(v := getattr(r, name), str) else v for r in rows]
        for name in COLUMNS
    }
    data = BytesIO()
    files.write_table(arrow.table(columns), data)
    return data.getvalue()


def _pyarrow() -> tuple[Any, Any]:
    from importlib import import_module

    try:
        return import_module("pyarrow"), import_module("pyarrow.parquet")
    except ImportError as error:
        raise MissingExtraError(
            "pyarrow is needed for Parquet: pip install 'whence[parquet]', or name a .csv"
        ) from error
