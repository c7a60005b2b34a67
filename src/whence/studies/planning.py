"""From a folder, models and methods to a job."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from importlib.metadata import version
from itertools import chain, count
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch

from whence.asking import MethodRequest, MetricRequest, once, requests
from whence.errors import ModelError, OptionError, nearest
from whence.interpretable.labelled import Progress
from whence.models.classifier import Classifier
from whence.models.session import opened
from whence.registry import METHODS, METRICS
from whence.studies.crossing.judging import same_labels
from whence.studies.job import Cell, Job, MapType, ModelEntry
from whence.studies.manifest import manifest

# A shard is lost where its worker dies, and finished before Ctrl-C ends the run: about so many passes of the model,
# and at most so many pictures.
_PASSES, _PICTURES = 16_384, 512
# So many pictures go through a model together; a GPU is idle with few.
_BATCH, _BATCH_GPU = 32, 128
TRUTH = "truth"
_SEVERAL = ("methods", "metrics")


@dataclass(frozen=True)
class Given:
    """A model as it was given: a spec, and weights as for ``load_model``."""

    spec: str
    weights: str | None = None

    @property
    def lasting(self) -> str:
        """The spec as it is understood in any working folder."""
        path, colon, function = self.spec.rpartition(":")
        if colon and path.endswith(".py") and os.path.exists(path):
            return f"{os.path.abspath(path)}:{function}"
        return os.path.abspath(self.spec) if os.path.exists(self.spec) else self.spec


@dataclass(frozen=True)
class Settings:
    """What is asked of every picture, and how the work is cut.

    If None, ``batch`` is 32, or 128 on a GPU, and ``shard`` is chosen by the methods' cost.
    """

    methods: Sequence[str] = ("grad-cam",)
    metrics: Sequence[str] = ()
    judges: bool = False
    target: str | None = None
    seed: int = 0
    bits: int | None = None
    batch: int | None = None
    shard: int | None = None
    threads: int = 1
    maps: MapType = "float32"

    def __post_init__(self) -> None:
        """Refuse what no study can be."""
        for name in ("batch", "shard", "threads"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise OptionError(f"{name}={value}: give 1 or more")
        if self.bits is not None and self.bits not in range(1, 17):
            raise OptionError(f"bits={self.bits}: 16-bit pictures use 1 to 16 bits")
        if self.maps not in get_args(MapType):
            raise OptionError(f"maps={self.maps!r}: give {', '.join(get_args(MapType))}")
        if not self.methods:
            raise OptionError("no method is asked for: name at least one")

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> "Settings":
        """Return settings by name; one method or metric may stand alone.

        Raises
        ------
        OptionError
            There is no setting of a name.
        """
        known = [field.name for field in fields(cls)]
        for name in given:
            if name not in known:
                raise OptionError(f"a study has no setting {name!r}: {nearest(name, known)}")
        several = {key: [value] for key, value in given.items() if key in _SEVERAL and isinstance(value, str)}
        return cls(**{**given, **several})


def planned(
    root: Path,
    models: Sequence[tuple[Given, Classifier]],
    settings: Settings,
    *,
    truth: Path | None = None,
    trust: bool = False,
    progress: Progress | None = None,
) -> Job:
    """Return the job: every method on every model, of every picture of a folder.

    ``truth`` is a table of the true classes, as for ``manifest``.

    Raises
    ------
    WhenceError
        A picture, model, method, metric or option is wrong.
    """
    if not models:
        raise OptionError("no model is given: name at least one")
    asked = requests(list(settings.methods), {}, settings.seed)
    pairs = enumerate(zip(settings.methods, asked, strict=True))
    texts = [(text, request) for i, (text, request) in pairs if request not in asked[:i]]
    metrics = once(MetricRequest.read(text) for text in settings.metrics)
    for metric in metrics:
        if METRICS.facts(metric.metric).needs == "region":
            raise OptionError(f"{metric.metric} needs the place of the true evidence: `whence evaluate` takes it")
    entries = _entries(models)
    if settings.judges:
        same_labels(entries)
    cells = [
        Cell(number, text, _with_layer(request, model).text)
        for number, (_, model) in enumerate(models)
        for text, request in texts
    ]
    device = models[0][1].like.device.type
    batch = settings.batch or (_BATCH_GPU if device == "cuda" else _BATCH)
    pictures = manifest(root, truth, progress=progress)
    if settings.target == TRUTH and not all(entry.truth for entry in pictures):
        raise OptionError("target=truth: not every picture's true class is known, give a table of them (--truth)")
    return Job(
        # Whoever goes on may stand in another folder.
        root=root.absolute(),
        pictures=pictures,
        models=entries,
        cells=tuple(cells),
        metrics=tuple(metric.text for metric in metrics),
        judges=settings.judges,
        target=settings.target,
        seed=settings.seed,
        bits=settings.bits,
        device=device,
        batch=batch,
        shard=settings.shard or _shard(asked, [model for _, model in models], batch),
        threads=settings.threads,
        maps=settings.maps,
        versions={"whence": version("whence"), "torch": torch.__version__, "numpy": np.__version__},
        trust=trust,
    )


def _entries(models: Sequence[tuple[Given, Classifier]]) -> tuple[ModelEntry, ...]:
    """Return the models, the second of a name as NAME~2."""
    found: list[ModelEntry] = []
    for given, model in models:
        if model.input is None or model.preprocess is None:
            raise ModelError(
                f"{model.name} does not state one size of its inputs: write resize = [height, width] or a crop into "
                "the model file's [preprocess], or give its Classifier preprocess="
            )
        taken = [entry.name for entry in found]
        names = chain((model.name,), (f"{model.name}~{again}" for again in count(2)))
        found.append(
            ModelEntry(
                name=next(name for name in names if name not in taken),
                spec=given.lasting,
                weights=given.weights,
                fingerprint=model.fingerprint,
                preprocessing=model.preprocessing,
                activation=model.scale.activation,
                precision=model.precision,
                input=model.input,
                labels=model.labels,
            )
        )
    return tuple(found)


def _with_layer(request: MethodRequest, model: Classifier) -> MethodRequest:
    """Return a request that names the layer it explains: chosen once, the same for all workers."""
    facts = METHODS.facts(request.method)
    if facts.needs != "layer" or "layer" not in facts.options or request.options.get("layer") is not None:
        return request
    assert model.input is not None
    with opened(model) as session:
        (layer,) = session.layers(None, torch.zeros(1, *model.input).to(model.like))
    return replace(request, options={**request.options, "layer": layer})


def passes(request: MethodRequest, model: Classifier) -> int:
    """Return how many passes a method says that one picture takes; a pass through a part counts as one."""
    facts = METHODS.facts(request.method)
    cost = facts.cost(facts.checked(request.options), model)
    return cost.forward + cost.backward + cost.partial


def _shard(asked: Sequence[MethodRequest], models: Sequence[Classifier], batch: int) -> int:
    """Return how many pictures stand in one file: whole batches, where it is more than one."""
    each = sum(passes(request, model) for request in asked for model in models)
    most = max(1, min(_PASSES // max(1, each), _PICTURES))
    return most if most < batch else most // batch * batch
