"""How good each map is, by the model that was explained, and by the others where they judge it too."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from jaxtyping import Float
from torch import Tensor

from whence.asking import MetricRequest
from whence.batches import for_all
from whence.errors import SizeError, UnsupportedError, WhenceError
from whence.metrics.claim import Claim
from whence.metrics.measuring import claim, measured
from whence.models.classifier import Classifier
from whence.models.targets import TargetSpec
from whence.pictures.preprocess import Geometry
from whence.registry import METRICS
from whence.results import Attribution
from whence.studies.crossing import naming
from whence.studies.crossing.judging import asked, judged
from whence.studies.job import Job

Numbers = dict[str, float]


@dataclass(frozen=True, eq=False)
class Seen:
    """A batch as one model takes it: ``x`` [B, C, H, W], the pictures' numbers, names and geometries."""

    numbers: Sequence[int]
    names: Sequence[str]
    x: Float[Tensor, "b c h w"]
    geometries: Sequence[Geometry | None]

    def only(self, rows: Sequence[int]) -> "Seen":
        """Return some of the pictures; of all of them nothing is copied."""
        if len(rows) == len(self.numbers):
            return self
        return Seen(
            [self.numbers[i] for i in rows],
            [self.names[i] for i in rows],
            self.x[list(rows)],
            [self.geometries[i] for i in rows],
        )


def names(job: Job) -> list[str]:
    """Return the columns of a job's metrics."""
    if not job.judges:
        return list(job.metrics)
    judging = [request.text for request in asked(job.metrics)]
    return [*job.metrics, *(name for model in job.models for name in naming.columns(judging, model.name))]


def of_all(error: WhenceError) -> bool:
    """Return whether an error would be that of every picture: all inputs of a model have one size."""
    return for_all(error) or isinstance(error, UnsupportedError | SizeError)


def numbers(
    job: Job, model: Classifier, own: Seen, answer: Attribution, targets: Sequence[TargetSpec]
) -> tuple[list[Numbers], list[str]]:
    """Return each map's metrics by column, and sentences on those that are not defined for a single picture.

    Of several pictures, one that has no number is an error: it is asked for again alone.

    Raises
    ------
    WhenceError
        A metric cannot be asked of any picture, or of one of several.
    """
    rows: list[Numbers] = [{} for _ in own.names]
    notes: list[str] = []
    of = claim(model, own.x, answer, list(targets), list(own.names)) if job.metrics else None
    for text in job.metrics:
        assert of is not None
        try:
            _fill(rows, text, _measured(of, text, job.seed))
        except WhenceError as error:
            if of_all(error) or len(rows) > 1:
                raise
            notes.append(f"{text}: {error}")
    return rows, notes


def _measured(of: Claim, text: str, seed: int) -> Sequence[float]:
    request = MetricRequest.read(text)
    seeded = {"seed": seed} if "seed" in METRICS.facts(request.metric).options else {}
    found: list[float] = measured(of, request.metric, {**seeded, **request.options}).value.tolist()
    return found


def judgements(
    job: Job, cell: int, answer: Attribution, models: Sequence[Classifier], seen: Sequence[Seen]
) -> list[Numbers]:
    """Return what every model says of maps that model ``cell`` made, by column.

    Raises
    ------
    WhenceError
        A map cannot be carried to another model's input.
    """
    rows: list[Numbers] = [{} for _ in answer.notes]
    for entry, judge, theirs in zip(job.models, models, seen, strict=True) if job.judges else ():
        found = judged(
            answer, seen[cell].geometries, judge, theirs.x, theirs.geometries, answer.target.tolist(),
            asked(job.metrics), theirs.names, seed=job.seed,
        )  # fmt: skip
        for name, values in replace(found, judge=entry.name).columns.items():
            _fill(rows, name, values.tolist())
    return rows


def _fill(rows: Sequence[Numbers], name: str, values: Sequence[float]) -> None:
    for row, value in zip(rows, values, strict=True):
        row[name] = value
