"""Explanation: one picture, one method, one target, with the evidence; saved, shown and loaded."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from whence.errors import OptionError, WhenceError
from whence.graphs.graph import AttentionGraph
from whence.metrics.evidence import Evidence
from whence.reports import folder as folders
from whence.reports import notebook
from whence.reports.contents import (
    SCHEMA,
    BalanceRow,
    ChannelRow,
    Contents,
    Drawn,
    ExplanationRow,
    GraphRow,
    PictureRow,
    Result,
)
from whence.reports.look import Look, looked
from whence.results import Attribution, Channels, Passes
from whence.rows import (
    ClassProbability,
    ModelFacts,
    Subject,
    Versions,
    attribution_of,
    balance_row,
    bare,
    channels_of,
    evidence_of,
    evidence_row,
    failed_row,
    layer_maps,
    maps_of,
    model_of,
    model_row,
    picture_row,
    plain,
    seen_of,
    subject_of,
)


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
    title
        The method's name in a heading.
    channels
        The channels that weigh most in the map; None for a method that weighs none.
    versions
        What made it.
    look
        How it was drawn where it was saved, as far as that is not the default.
    """

    subject: Subject
    model: ModelFacts
    attribution: Attribution
    label: str | None
    probability: float | None
    evidence: Evidence | None = None
    pictures: tuple[UInt8[np.ndarray, "h w 3"], UInt8[np.ndarray, "h w 3"]] | None = None
    seed: int = 0
    title: str = ""
    channels: Channels | None = None
    versions: Versions = field(default_factory=Versions.now)
    look: Mapping[str, Any] = field(default_factory=dict)

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
    def map(self) -> Float[Tensor, "..."]:
        """The raw map in the method's own resolution, [h, w] or [C, h, w]; [C] at a layer without places."""
        return bare(self.attribution.values[0])

    @property
    def top(self) -> tuple[ClassProbability, ...]:
        """The most probable classes."""
        return self.subject.top

    @property
    def residual(self) -> float | None:
        """How far the method misses its own law, relative; None for a method without one."""
        return None if self.attribution.residual is None else float(self.attribution.residual[0])

    @property
    def balance(self) -> BalanceRow | None:
        """Where the relevance went, in plain numbers; None for a method that hands none back."""
        return balance_row(self.attribution.balance)

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
    def graph(self) -> AttentionGraph | None:
        """The graph of sufficient sets, with what the model saw; None for a method that makes none."""
        return next(iter(self.attribution.graphs), None)

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

    def save(
        self,
        folder: str | Path,
        *,
        mode: str | None = None,
        sign: str | None = None,
        outlier_perc: float | int | None = None,
        colours: str | None = None,
        bar: bool | None = None,
    ) -> Path:
        """Write report.html, result.json, maps.npz and pictures/ into a folder; return the report's path.

        ``mode``, ``sign``, ``outlier_perc``, ``colours`` and ``bar`` say how the map is drawn, as in
        ``whence.reports.look.Look``; the folder keeps them. Those not given are as they were loaded.

        Raises
        ------
        OutputError
            The folder is not empty and was not made by whence, or cannot be written.
        OptionError, MissingExtraError
            The map cannot be drawn so.
        """
        look = {"mode": mode, "sign": sign, "outlier_perc": outlier_perc, "colours": colours, "bar": bar}
        return Path(folders.write(self._contents(look), folder)["report"])

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

    def show(
        self,
        *,
        mode: str | None = None,
        sign: str | None = None,
        outlier_perc: float | int | None = None,
        colours: str | None = None,
        bar: bool | None = None,
    ) -> None:
        """Show the explanation as a picture: in a notebook there, elsewhere in the system's viewer.

        ``mode``, ``sign``, ``outlier_perc``, ``colours`` and ``bar`` say how the map is drawn, as for ``save``.
        """
        look = {"mode": mode, "sign": sign, "outlier_perc": outlier_perc, "colours": colours, "bar": bar}
        notebook.show(self._contents(look))

    def _contents(self, look: Mapping[str, Any] | None = None) -> Contents:
        """Return what is written and shown, in the look that was loaded with the given words over it."""
        given = {key: value for key, value in (look or {}).items() if value is not None}
        made = contents([(self.subject, [self])], self.model, self.seed, self.versions)
        return looked(made, Look.read(**{**self.look, **given}))

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


def contents(outcomes: Sequence[Outcome], model: ModelFacts, seed: int, versions: Versions | None = None) -> Contents:
    """Return what is written and shown of the explanations of some pictures; made by what runs, if not told."""
    made = versions or Versions.now()
    pictures: list[PictureRow] = []
    maps: dict[str, np.ndarray] = {}
    drawn: list[Drawn | None] = []
    for number, outcome in enumerate(outcomes):
        if isinstance(outcome, Failure):
            pictures.append(failed_row(outcome.name, outcome.error))
            drawn.append(None)
            continue
        subject, explanations = outcome
        keys = _keys(number, explanations)
        for key, e in zip(keys, explanations, strict=True):
            maps |= maps_of(key, e.attribution, e.channels)
        rows = [_row(e, key) for key, e in zip(keys, explanations, strict=True)]
        pictures.append(picture_row(subject, rows))
        graphs = tuple(None if e.graph is None else seen_of(e.graph) for e in explanations)
        drawn.append(Drawn(subject.shown, tuple(e.pictures for e in explanations), graphs if any(graphs) else ()))
    result: Result = {
        "schema": SCHEMA,
        "whence": made.whence,
        "versions": dict(made.libraries),
        "seed": seed,
        "report": "",
        "model": model_row(model),
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


def _row(explanation: Explanation, key: str) -> ExplanationRow:
    a, top = explanation.attribution, explanation.channels
    return {
        "method": a.method,
        "title": explanation.title or a.method,
        "options": {name: plain(value) for name, value in a.options.items()},
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
        "style": a.style,
        "residual": explanation.residual,
        "balance": explanation.balance,
        "passes": {"forward": a.passes.forward, "backward": a.passes.backward, "partial": a.passes.partial},
        "seconds": a.seconds,
        "evidence": evidence_row(explanation.evidence),
        "graph": None if explanation.graph is None else cast(GraphRow, explanation.graph.to_json()),
        "layers": [{"name": name, "shape": list(values.shape)} for name, values in layer_maps(a).items()],
        "parts": list(a.parts),
        "channels": [] if top is None else _channels(top),
        "channels_total": 0 if top is None else top.total,
        "notes": list(explanation.notes),
    }


def _channels(top: Channels) -> list[ChannelRow]:
    pairs = zip(top.index[0].tolist(), top.weight[0].tolist(), strict=True)
    return [{"index": index, "weight": weight} for index, weight in pairs]


def loaded(saved: Contents) -> list[Explanation]:
    """Return the explanations of a saved folder, in their order."""
    result, found = saved.result, []
    model, versions = model_of(result["model"]), Versions(result["whence"], result.get("versions", {}))
    for picture, drawn in zip(result["pictures"], saved.drawn, strict=True):
        if drawn is None:
            continue
        subject = subject_of(picture, drawn)
        graphs = drawn.graphs or (None,) * len(drawn.evidence)
        for row, pictures, seen in zip(picture["explanations"], drawn.evidence, graphs, strict=True):
            attribution = attribution_of(row, saved.maps, model, subject, seen)
            target = row["target"]
            found.append(
                Explanation(
                    subject, model, attribution, target["label"], target["probability"],
                    evidence_of(row["evidence"]), pictures,
                    result["seed"], row["title"], channels_of(row, saved.maps), versions,
                    dict(result.get("look", {})),
                )
            )  # fmt: skip
    return found
