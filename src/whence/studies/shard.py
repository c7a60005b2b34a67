"""The pure function of a study: a job and a shard's number to its rows."""

import json
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import Float
from torch import Tensor

from whence.asking import MethodRequest
from whence.attribution import attribute_all
from whence.errors import TargetError, WhenceError
from whence.models.classifier import Classifier
from whence.models.session import move, opened
from whence.models.targets import TargetSpec
from whence.models.threads import threads
from whence.results import Attribution
from whence.studies.job import Cell, Job
from whence.studies.loading import Fault, Loaded, batches
from whence.studies.metrics import Seen, judgements, numbers, of_all
from whence.studies.planning import TRUTH
from whence.studies.tables import MAP, METHOD_OK, Row, table

Tell = Callable[[int], None]

# Older versions of torch have no error for a GPU that fails.
_BROKEN = (MemoryError, torch.OutOfMemoryError, getattr(torch, "AcceleratorError", torch.OutOfMemoryError))


@dataclass(frozen=True)
class Worker:
    """A job and its models, loaded once.

    Parameters
    ----------
    job
        What is asked.
    given
        The job's models; loaded by their specs if None.
    device
        Where they run, as for ``load_model``; the job's kind of device if None.
    loaders
        So many processes decode pictures beside the model; with 0 they are decoded in between.
    """

    job: Job
    given: Sequence[Classifier] | None = None
    device: str | None = None
    loaders: int = 0

    @cached_property
    def models(self) -> Sequence[Classifier]:
        """The models."""
        return self.given or self.job.load_models(self.device)

    def explain(self, shard: int, holes: frozenset[int] = frozenset(), tell: Tell = lambda done: None) -> pa.Table:
        """Return the rows of a shard: for each picture one of every method on every model, in the job's order.

        The same job and shard give the same rows on every machine of one kind, but for where they were made and how
        long it took. ``holes`` are pictures that killed the process that touched them: they are not touched again.
        ``tell`` hears how many pictures are done, batch by batch.

        Raises
        ------
        WhenceError
            What was asked is wrong for every picture.
        """
        rows: list[Row] = []
        ways = [way for model in self.models if (way := model.preprocess)]
        with threads(self.job.threads):
            for loaded in batches(self.job, shard, holes, ways, self.loaders):
                rows += self._rows(loaded)
                tell(len(loaded.numbers))
        return table(self.job, rows)

    def _rows(self, loaded: Loaded) -> list[Row]:
        names = [self.job.pictures[number].name for number in loaded.numbers]
        seen = [
            Seen(loaded.numbers, names, _arranged(model, x), places)
            for model, x, places in zip(self.models, loaded.inputs, loaded.geometries, strict=True)
        ]
        by_cell = [self._of_cell(cell, seen, loaded.faults) for cell in self.job.cells]
        return [rows[i] for i in range(len(names)) for rows in by_cell]

    def _of_cell(self, cell: Cell, seen: Sequence[Seen], faults: Sequence[Fault | None]) -> list[Row]:
        """Return each picture's row of one method on one model."""
        every = range(len(faults))
        truths = [self._truth(cell.model, number) for number in seen[0].numbers]
        faults = [fault or self._untold(cell, truth) for fault, truth in zip(faults, truths, strict=True)]
        found = self._answered(cell, seen, truths, every)
        return [
            {**self._head(cell, number, truth), **(row if fault is None else said(fault))}
            for number, truth, fault, row in zip(seen[0].numbers, truths, faults, found, strict=True)
        ]

    def _answered(
        self, cell: Cell, seen: Sequence[Seen], truths: Sequence[int | None], rows: Sequence[int]
    ) -> list[Row]:
        """Return what a method makes of some pictures together, or, where that fails, of each alone."""
        try:
            return self._made(cell, [one.only(rows) for one in seen], [truths[i] for i in rows])
        except Exception as error:  # a method or a model of somebody's own may raise anything
            if of_the_machine(error):
                raise
            if isinstance(error, WhenceError) and of_all(error):
                raise
            if len(rows) == 1:
                return [said(Fault.of(error))]
        return [row for i in rows for row in self._answered(cell, seen, truths, [i])]

    def _made(self, cell: Cell, seen: Sequence[Seen], truths: Sequence[int | None]) -> list[Row]:
        """Explain pictures together, and measure their maps."""
        job, own, model = self.job, seen[cell.model], self.models[cell.model]
        request = MethodRequest.read(cell.request)
        # A picture whose true class the model does not know gets the top class, which no one reads.
        targets: list[TargetSpec] = list(truths) if job.target == TRUTH else [job.target] * len(truths)
        (answer,) = attribute_all(
            model, own.x, request.method, [targets], request.options, names=own.names, seed=job.seed
        )
        measured, undefined = numbers(job, model, own, answer, targets)
        told = _told(job, model, answer, truths)
        _fill(told, "box", [None if place is None else list(place.box) for place in own.geometries])
        if undefined:
            told[0]["notes"] += undefined
        judged = judgements(job, cell.model, answer, self.models, seen)
        return [{**row, **one, **other} for row, one, other in zip(told, measured, judged, strict=True)]

    def _truth(self, model: int, number: int) -> int | None:
        """Return the number of a picture's true class, None where it is not known or the model has no such class."""
        truth, labels = self.job.pictures[number].truth, self.job.models[model].labels
        if truth is None or labels is None:
            return None
        try:
            return self.models[model].scale.index(f"label:{truth}", len(labels))
        except TargetError:
            return None

    def _untold(self, cell: Cell, truth: int | None) -> Fault | None:
        if self.job.target != TRUTH or truth is not None:
            return None
        return Fault("TargetError", f"{self.job.models[cell.model].name} has no class of the name of the true one")

    def _head(self, cell: Cell, number: int, truth: int | None) -> Row:
        entry = self.job.pictures[number]
        return {
            "number": number,
            "picture": entry.name,
            "sha256": entry.sha256,
            "truth": entry.truth,
            "truth_index": truth,
            "model": self.job.models[cell.model].name,
            "method": cell.method,
            "host": platform.node(),
        }


def of_the_machine(error: BaseException | None) -> bool:
    """Return whether an error says nothing of the picture: no memory, or a GPU that fails from now on."""
    return error is not None and (isinstance(error, _BROKEN) or of_the_machine(error.__cause__))


def said(fault: Fault) -> Row:
    """Return what a row says of a picture that has no map."""
    return {"status": fault.kind, "error": fault.said}


def _arranged(model: Classifier, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
    """Return a batch where and as the model runs fastest, so that it is moved and laid out once."""
    moved = move(model, x)
    with opened(model) as session:
        return session.arranged(moved)


def _told(job: Job, model: Classifier, answer: Attribution, truths: Sequence[int | None]) -> list[Row]:
    """Return what stands in the rows of an answer."""
    each = answer.passes.share(len(answer))
    common = {
        "status": METHOD_OK,
        "layer": answer.layer,
        "forward": each.forward,
        "backward": each.backward,
        "partial": each.partial,
        "seconds": answer.seconds / len(answer),
    }
    rows: list[Row] = [{**common, "notes": list(notes)} for notes in answer.notes]
    _fill(rows, "score", answer.score.tolist())
    if answer.residual is not None:
        _fill(rows, "residual", answer.residual.tolist())
    _add_classes(rows, model, answer, truths)
    for row, graph in zip(rows, answer.graphs, strict=False):
        row["graph"] = json.dumps(graph.to_json())
    if job.maps != "none":
        values = answer.values.cpu().to(getattr(torch, job.maps)).numpy()
        _fill(rows, MAP, [_placed(one) for one in values])
    return rows


def _add_classes(rows: list[Row], model: Classifier, answer: Attribution, truths: Sequence[int | None]) -> None:
    """Add the class explained and the class that the model would give."""
    index = answer.target.tolist()
    _fill(rows, "target", index)
    _fill(rows, "target_label", [model.scale.label(i) for i in index])
    if answer.logits is None:
        return
    probabilities = model.scale.probabilities(answer.logits.double()).cpu()
    # As the top class is found: where sigmoids end at 1, probabilities no longer tell the largest.
    guesses = answer.logits.argmax(1).cpu()
    best = probabilities.gather(1, guesses[:, None])[:, 0]
    _fill(rows, "probability", probabilities.gather(1, answer.target[:, None].cpu())[:, 0].tolist())
    _fill(rows, "predicted", guesses.tolist())
    _fill(rows, "predicted_label", [model.scale.label(i) for i in guesses.tolist()])
    _fill(rows, "predicted_probability", best.tolist())
    pairs = zip(guesses.tolist(), truths, strict=True)
    _fill(rows, "correct", [None if truth is None else guess == truth for guess, truth in pairs])


def _fill(rows: list[Row], name: str, values: Sequence[object]) -> None:
    for row, value in zip(rows, values, strict=True):
        row[name] = value


def _placed(values: np.ndarray) -> np.ndarray:
    """Return a map as [C, h, w]; what lies in no places has one."""
    return values.reshape(*values.shape, *(1,) * (3 - values.ndim))
