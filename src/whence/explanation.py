"""Explanation: one picture, one method, one target, with the evidence; saved, shown and loaded."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from whence.errors import OptionError, WhenceError
from whence.metrics.evidence import Evidence
from whence.pictures.preprocess import Geometry
from whence.registry import METHODS
from whence.reports import folder as folders
from whence.reports import notebook
from whence.reports.contents import SCHEMA, Contents, Drawn, ExplanationRow, PictureRow, Result
from whence.results import Attribution, Passes


@dataclass(frozen=True)
class ClassProbability:
    """A class and the probability that the model gives it."""

    index: int
    label: str
    probability: float


@dataclass(frozen=True, eq=False)
class Subject:
    """One picture, and what the model makes of it.

    ``shown`` are the pixels to be shown, [H, W, 3]: the picture's own, shrunk where it is very large, or, where
    ``geometry`` is None, what the model saw of them. ``top`` are the most probable classes, none where the model
    returns no logits.
    """

    name: str
    sha256: str
    decoded: tuple[str, ...]
    size: tuple[int, int]
    geometry: Geometry | None
    shown: UInt8[np.ndarray, "H W 3"]
    top: tuple[ClassProbability, ...]
    truth: str | None = None


@dataclass(frozen=True)
class ModelFacts:
    """Which model was explained: ``input`` is [C, H, W]."""

    name: str
    spec: str
    fingerprint: str
    input: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Explanation:
    """From where in one picture one decision comes, by one method, and the evidence for it.

    Attributes
    ----------
    subject, model
        The picture with the model's most probable classes, and the model.
    attribution
        The method's answer, a batch of one.
    label, probability
        Of the class explained; None where the target is no class.
    evidence
        What happens to the class without the most important places and with them alone; None where not asked for.
    pictures
        What the model saw for these two numbers, [h, w, 3] each.
    """

    subject: Subject
    model: ModelFacts
    attribution: Attribution
    label: str | None
    probability: float | None
    evidence: Evidence | None = None
    pictures: tuple[UInt8[np.ndarray, "h w 3"], UInt8[np.ndarray, "h w 3"]] | None = None
    seed: int = 0

    def __repr__(self) -> str:
        """Return one line for a terminal."""
        told = f"{self.method}: {self.label or 'its score'}"
        if self.probability is not None:
            told += f" {self.probability:.1%}"
        if self.evidence is not None:
            e, unit = self.evidence, ".3g" if self.probability is None else ".1%"
            told += f", {e.removed:{unit}} without and {e.kept:{unit}} with the most important {e.share:.1%} alone"
        return f"Explanation({self.subject.name!r}, {told})"

    @property
    def method(self) -> str:
        """The method's name."""
        return self.attribution.method

    @property
    def options(self) -> Mapping[str, object]:
        """Every option that the method ran with."""
        return self.attribution.options

    @property
    def map(self) -> Float[Tensor, "*c h w"]:
        """The raw map in the method's own resolution, [h, w] or [C, h, w]."""
        values = self.attribution.values[0]
        return values[0] if values.shape[0] == 1 else values

    @property
    def top(self) -> tuple[ClassProbability, ...]:
        """The most probable classes."""
        return self.subject.top

    @property
    def residual(self) -> float | None:
        """How far the method misses its own law, relative; None for a method without one."""
        return None if self.attribution.residual is None else float(self.attribution.residual[0])

    @property
    def passes(self) -> Passes:
        """How many passes the map took, the evidence not counted."""
        return self.attribution.passes

    @property
    def seconds(self) -> float:
        """How long the map took: this picture's share of its batch."""
        return self.attribution.seconds

    @property
    def notes(self) -> tuple[str, ...]:
        """The sentences that a reader must know."""
        return self.attribution.notes[0]

    @property
    def graph(self) -> None:
        """The graph of sufficient sets; None for a method that makes none."""
        return None

    def heatmap(self) -> Float[Tensor, "H W"]:
        """Return the signed map on the picture's own pixels; 0 where the model saw nothing.

        Where the preprocessing's geometry is not known, the map lies on the model's input grid.
        """
        heat = self.attribution.heatmap()[0]
        return heat if self.subject.geometry is None else self.subject.geometry.to_picture(heat)

    @property
    def seen(self) -> Bool[Tensor, "H W"]:
        """Which pixels of the heat map the model saw."""
        if self.subject.geometry is None:
            return torch.ones(self.attribution.input_size, dtype=torch.bool)
        return self.subject.geometry.seen

    def save(self, folder: str | Path) -> Path:
        """Write report.html, result.json, maps.npz and pictures/ into a folder; return the report's path.

        Raises
        ------
        OutputError
            The folder is not empty and was not made by whence, or cannot be written.
        """
        return Path(folders.write(self._contents(), folder)["report"])

    @classmethod
    def load(cls, folder: str | Path, index: int = 0) -> "Explanation":
        """Return an explanation that was saved: the ``index``-th in the folder, counted over its pictures.

        Raises
        ------
        OutputError
            The folder holds no result.
        OptionError
            It holds fewer explanations.
        """
        found = loaded(folders.read(folder))
        if not 0 <= index < len(found):
            raise OptionError(f"load(index={index}): {folder} holds {len(found)} explanations, 0 to {len(found) - 1}")
        return found[index]

    def show(self) -> None:
        """Show the explanation as a picture: in a notebook there, elsewhere in the system's viewer."""
        notebook.show(self._contents())

    def _contents(self) -> Contents:
        return contents([(self.subject, [self])], self.model, self.seed)

    def _repr_html_(self) -> str:
        return notebook.html(self._contents())

    def _repr_png_(self) -> bytes:
        return notebook.png(self._contents())


@dataclass(frozen=True)
class Failure:
    """A picture that could not be explained, and why."""

    name: str
    error: WhenceError


Outcome = tuple[Subject, Sequence[Explanation]] | Failure


def contents(outcomes: Sequence[Outcome], model: ModelFacts, seed: int) -> Contents:
    """Return what is written and shown of the explanations of some pictures."""
    pictures: list[PictureRow] = []
    maps: dict[str, np.ndarray] = {}
    drawn: list[Drawn | None] = []
    for number, outcome in enumerate(outcomes):
        if isinstance(outcome, Failure):
            pictures.append(_failed(outcome))
            drawn.append(None)
            continue
        subject, explanations = outcome
        keys = _keys(number, explanations)
        maps |= {key: e.map.numpy().astype(np.float32) for key, e in zip(keys, explanations, strict=True)}
        rows = [_row(e, key) for key, e in zip(keys, explanations, strict=True)]
        pictures.append(_picture(subject, rows))
        drawn.append(Drawn(subject.shown, tuple(e.pictures for e in explanations)))
    result: Result = {
        "schema": SCHEMA,
        "whence": version("whence"),
        "versions": {"torch": torch.__version__, "numpy": np.__version__},
        "seed": seed,
        "report": "",
        "model": {
            "name": model.name,
            "spec": model.spec,
            "fingerprint": model.fingerprint,
            "input": list(model.input),
        },
        "pictures": pictures,
    }
    return Contents(result, maps, drawn)


def _keys(number: int, explanations: Sequence[Explanation]) -> list[str]:
    """Return the maps' names: INDEX/METHOD, and INDEX/METHOD~2 for the second of a method."""
    seen: Counter[str] = Counter()
    keys = []
    for explanation in explanations:
        seen[explanation.method] += 1
        again = seen[explanation.method]
        keys.append(f"{number}/{explanation.method}" + (f"~{again}" if again > 1 else ""))
    return keys


def _failed(failure: Failure) -> PictureRow:
    return {
        "path": failure.name, "sha256": None, "decoded": [], "status": str(failure.error), "size": None,
        "geometry": None, "truth": None, "top": [], "explanations": [],
    }  # fmt: skip


def _picture(subject: Subject, rows: list[ExplanationRow]) -> PictureRow:
    place = subject.geometry
    return {
        "path": subject.name,
        "sha256": subject.sha256,
        "decoded": list(subject.decoded),
        "status": "ok",
        "size": list(subject.size),
        "geometry": None
        if place is None
        else {"picture": list(place.picture), "grid": list(place.grid), "box": list(place.box)},
        "truth": subject.truth,
        "top": [{"index": c.index, "label": c.label, "probability": c.probability} for c in subject.top],
        "explanations": rows,
    }


def _plain(value: object) -> object:
    """Return an option as JSON can hold it."""
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value if value is None or isinstance(value, bool | int | float | str) else repr(value)


def _row(explanation: Explanation, key: str) -> ExplanationRow:
    a, e = explanation.attribution, explanation.evidence
    return {
        "method": a.method,
        "title": METHODS.facts(a.method).title,
        "options": {name: _plain(value) for name, value in a.options.items()},
        "layer": a.layer,
        "target": {
            "index": int(a.target[0]),
            "label": explanation.label,
            "probability": explanation.probability,
            "score": float(a.score[0]),
        },
        "map": f"maps.npz#{key}",
        "shape": list(explanation.map.shape),
        "reduce": a.reduce,
        "show": a.show,
        "residual": explanation.residual,
        "passes": {"forward": a.passes.forward, "backward": a.passes.backward, "partial": a.passes.partial},
        "seconds": a.seconds,
        "evidence": None
        if e is None
        else {"share": e.share, "baseline": e.baseline, "removed": e.removed, "kept": e.kept},
        "graph": None,
        "notes": list(explanation.notes),
    }


def loaded(saved: Contents) -> list[Explanation]:
    """Return the explanations of a saved folder, in their order."""
    result, found = saved.result, []
    facts = result["model"]
    model = ModelFacts(facts["name"], facts["spec"], facts["fingerprint"], tuple(facts["input"]))
    for picture, drawn in zip(result["pictures"], saved.drawn, strict=True):
        if drawn is None:
            continue
        subject = _subject(picture, drawn)
        for row, pictures in zip(picture["explanations"], drawn.evidence, strict=True):
            values = torch.from_numpy(saved.maps[row["map"].partition("#")[2]])
            attribution = _attribution(row, values, model, subject)
            e = row["evidence"]
            evidence = None if e is None else Evidence(e["share"], e["baseline"], e["removed"], e["kept"])
            target = row["target"]
            found.append(
                Explanation(
                    subject, model, attribution, target["label"], target["probability"], evidence, pictures,
                    result["seed"],
                )
            )  # fmt: skip
    return found


def _subject(row: PictureRow, drawn: Drawn) -> Subject:
    place = row["geometry"]
    geometry = None
    if place is not None:
        (height, width), (h, w), (top, left, bottom, right) = place["picture"], place["grid"], place["box"]
        geometry = Geometry((height, width), (h, w), (top, left, bottom, right))
    height, width = row["size"] or drawn.original.shape[:2]
    return Subject(
        name=row["path"],
        sha256=row["sha256"] or "",
        decoded=tuple(row["decoded"]),
        size=(height, width),
        geometry=geometry,
        shown=drawn.original,
        top=tuple(ClassProbability(c["index"], c["label"], c["probability"]) for c in row["top"]),
        truth=row["truth"],
    )


def _attribution(row: ExplanationRow, values: Tensor, model: ModelFacts, subject: Subject) -> Attribution:
    grid = subject.geometry.grid if subject.geometry else model.input[1:]
    return Attribution(
        method=row["method"],
        options=row["options"],
        values=values[None, None] if values.ndim == 2 else values[None],
        target=torch.tensor([row["target"]["index"]]),
        score=torch.tensor([row["target"]["score"]]),
        passes=Passes(**row["passes"]),
        input_size=tuple(grid),
        notes=(tuple(row["notes"]),),
        reduce=row["reduce"],
        show=row["show"],
        residual=None if row["residual"] is None else torch.tensor([row["residual"]]),
        layer=row["layer"],
        seconds=row["seconds"],
    )
