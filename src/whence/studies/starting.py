"""plan() and run(): a folder, models and methods to a study."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from whence.errors import ModelError, OptionError, UnknownNameError, nearest
from whence.interpretable.labelled import Progress
from whence.models.classifier import Classifier
from whence.models.load import load_model
from whence.studies.folder import held
from whence.studies.job import Job
from whence.studies.page import write_page
from whence.studies.planning import Given, Settings, planned
from whence.studies.running import ENGINES, carry_out
from whence.studies.study import Study
from whence.studies.study import open as opened

Path_ = str | os.PathLike[str]
ModelGiven = Path_ | Classifier


def plan(
    pictures: Path_,
    models: ModelGiven | Sequence[ModelGiven],
    out: Path_,
    *,
    truth: Path_ | None = None,
    device: str = "cpu",
    trust: bool = False,
    progress: Progress | None = None,
    **settings: Any,  # noqa: ANN401  (the fields of Settings)
) -> Job:
    """Write into a folder what a study is to explain, for an engine that is none of ours; asked as ``run`` is.

    Raises
    ------
    WhenceError
        What is asked is wrong, or ``out`` holds something else.
    """
    job, _ = _planned(pictures, models, truth, device, trust, progress, settings)
    with held(Path(out), job):
        return job


def run(
    pictures: Path_,
    models: ModelGiven | Sequence[ModelGiven],
    out: Path_,
    *,
    truth: Path_ | None = None,
    engine: str = "local",
    workers: int | None = None,
    loaders: int | None = None,
    ray_address: str | None = None,
    device: str = "cpu",
    trust: bool = False,
    progress: Progress | None = None,
    **settings: Any,  # noqa: ANN401
) -> Study:
    """Explain every picture of a folder, or go on where a run ended, and return the study.

    Parameters
    ----------
    pictures
        A folder of pictures, or of folders of pictures named after their classes.
    models
        Specs as for ``load_model``, or Classifiers, which the engine ``local`` takes.
    out
        A new folder, or that of the same study.
    truth
        A table of the true classes, with the columns ``file`` and ``label``; found in the folder if not given.
    engine
        ``local`` works in this process, ``processes`` in so many ``workers``, ``ray`` in as many actors of a Ray that
        is started, or of the cluster at ``ray_address``.
    loaders
        So many processes decode pictures beside each model.
    device, trust
        As for ``load_model``.
    settings
        ``methods`` and ``metrics``, names with options as for ``evaluate``; ``target``, None for each picture's top
        class, ``truth`` for its true one, or as for ``attribute``; ``seed`` and ``bits`` as for ``explain``.
        ``batch``, ``shard`` and ``threads``: so many pictures go through a model together, stand in one file, and so
        many threads a worker has; the last bits depend on them, and not on engine and workers. ``maps``: in which
        type they are kept, ``float32``, ``float16`` or ``none``.

    Raises
    ------
    WhenceError
        What is asked is wrong, or ``out`` holds something else.
    KeyboardInterrupt
        Ctrl-C was pressed: the shards that were begun are done, and the same call goes on.
    """
    if engine not in ENGINES:
        raise UnknownNameError(f"there is no engine {engine!r}: {nearest(engine, ENGINES)}")
    job, loaded = _planned(pictures, models, truth, device, trust, progress, settings)
    if engine != "local" and any(isinstance(one, Classifier) for one in _several(models)):
        raise OptionError(f"engine={engine!r} loads models in other processes: give specs, or engine='local'")
    summary = carry_out(
        job,
        out,
        engine=engine,
        workers=workers,
        loaders=loaders,
        ray_address=ray_address,
        models=loaded,
        devices=[device] if ":" in device else None,
        progress=progress,
    )
    if summary.interrupted:
        raise KeyboardInterrupt
    study = opened(out)
    write_page(study)
    return study


def _planned(
    pictures: Path_,
    models: ModelGiven | Sequence[ModelGiven],
    truth: Path_ | None,
    device: str,
    trust: bool,
    progress: Progress | None,
    settings: dict[str, Any],
) -> tuple[Job, list[Classifier]]:
    asked = Settings.of(settings)
    loaded = [
        (Given(one.spec), one)
        if isinstance(one, Classifier)
        else (Given(os.fspath(one)), load_model(one, device=device, trust=trust, seed=asked.seed))
        for one in _several(models)
    ]
    table = None if truth is None else Path(truth)
    job = planned(Path(pictures), loaded, asked, truth=table, trust=trust, progress=progress)
    return job, [model for _, model in loaded]


def _several(models: ModelGiven | Sequence[ModelGiven]) -> list[ModelGiven]:
    if isinstance(models, nn.Module):
        raise ModelError("a study takes a Classifier: give whence.Classifier(module, preprocess=..., labels=[...])")
    return [models] if isinstance(models, str | os.PathLike | Classifier) else list(models)
