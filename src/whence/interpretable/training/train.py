"""The phases of an interpretable training, each of which can be taken up again."""

import copy
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from whence.errors import ModelError, OptionError
from whence.interpretable.labelled import Labelled, Progress
from whence.interpretable.losses import LABELLED
from whence.interpretable.strength import Strength
from whence.interpretable.training.checkpoints import Checkpoint, fingerprint
from whence.interpretable.training.fitting import accuracy, fit, frozen_modules
from whence.interpretable.training.objectives import Filters, Task
from whence.interpretable.training.plan import Plan
from whence.interpretable.training.recipe import Recipe
from whence.models.classifier import Classifier
from whence.models.masked import ranks
from whence.models.masked.wrapper import Interpretable, interpretable
from whence.models.outputs import logits_of
from whence.models.session import move, opened

Course = list[dict[str, Any]]


@dataclass(frozen=True)
class Trained:
    """What came of it: the net with the mask, the plain one it began from, and the control if one was asked for.

    ``course`` holds an entry for each epoch of each phase; ``accuracy`` the share of held-out pictures that each net
    has right.
    """

    interpretable: Interpretable
    plain: nn.Module
    control: nn.Module | None
    course: Course
    accuracy: Mapping[str, float]

    @property
    def nets(self) -> dict[str, nn.Module]:
        """The nets by name."""
        found = {"interpretable": self.interpretable, "plain": self.plain, "control": self.control}
        return {name: net for name, net in found.items() if net is not None}


@dataclass(frozen=True)
class _Training:
    """The data, where checkpoints go, and whom to tell."""

    data: Labelled
    held_out: Labelled
    folder: Path | None
    settings: Mapping[str, Any]
    progress: Progress | None

    def phase(self, name: str, net: nn.Module, plan: Plan, objective: Task | Filters) -> Course:
        """Train a net in place, and return the course."""
        kept = None if self.folder is None else Checkpoint(self.folder / f"{name}.pt", self.settings)
        course = fit(
            net,
            self.data,
            plan,
            objective,
            checkpoint=kept,
            epoch=lambda _: {"accuracy": accuracy(net, self.held_out, plan)},
            progress=None if self.progress is None else (name, self.progress),
        )
        return [{"phase": name, **entry} for entry in course]


def train(
    model: nn.Module,
    data: Labelled,
    held_out: Labelled,
    recipe: Recipe,
    *,
    checkpoints: Path | None = None,
    progress: Progress | None = None,
) -> Trained:
    """Train a copy of a model so that each filter of a layer means one part; the model itself is not changed.

    Plain epochs come first, since no net learns from nothing behind a mask.

    Parameters
    ----------
    model
        Any CNN with as many logits as ``data`` has classes; with one logit, of whether a picture is of class 1, all
        filters are of that category and the pictures of class 0 are its negatives.
    data, held_out
        The pictures to train on, and those on which it is right or wrong.
    checkpoints
        A folder for a file for each phase: run again with it the training goes on where it ended, with the same
        weights in the end. None keeps none.
    progress
        Told ``(phase, steps done, steps)``.

    Raises
    ------
    OptionError, NotFiniteError
        As ``interpretable`` and ``fit``.
    LayerError
        The layer does not exist, or has no map.
    ModelError
        The model has another number of logits than there are classes, or a checkpoint is damaged.
    OutputError
        The checkpoints are of a training with another model, other pictures or another recipe.
    """
    for given in (data, held_out):
        if not isinstance(given, Labelled):
            raise OptionError(
                f"a {type(given).__name__} does not tell its classes: give picture_folder(...), or "
                "Inputs(inputs, labels, classes), of whence.interpretable.labelled"
            )
    if not len(data) or not len(held_out):
        raise OptionError(f"{len(data)} pictures to train on and {len(held_out)} held out: give at least one of each")
    settings = {} if checkpoints is None else _settings(model, data, held_out, recipe)
    run = _Training(data, held_out, checkpoints, settings, progress)
    plain = copy.deepcopy(model)
    for plan in (recipe.plain, recipe.plan):
        frozen_modules(plain, plan)
    course: Course = []
    # What cannot be wrapped is refused before any epoch.
    wrapped = _wrapped(plain, data, recipe)
    if recipe.plain.epochs:
        course += run.phase("plain", plain, recipe.plain, Task(recipe.plain.smoothing))
    control = copy.deepcopy(plain) if recipe.control else None
    if control is not None:
        course += run.phase("control", control, recipe.plan, Task(recipe.plan.smoothing))
    masked = copy.deepcopy(wrapped)
    course += run.phase("interpretable", masked, recipe.plan, _objective(masked, data, recipe))
    # Without epochs of its own it is where it always was.
    plain.to(next(masked.parameters()).device)
    found = Trained(masked, plain, control, course, {})
    return replace(found, accuracy={name: accuracy(net, held_out, recipe.plan) for name, net in found.nets.items()})


def _settings(model: nn.Module, data: Labelled, held_out: Labelled, recipe: Recipe) -> dict[str, Any]:
    """Return all that decides the weights and the course."""
    return {
        **recipe.settings(),
        "model": Classifier(model).fingerprint[:16],
        "pictures": fingerprint(data),
        "held-out pictures": fingerprint(held_out),
    }


def _wrapped(plain: nn.Module, data: Labelled, recipe: Recipe) -> Interpretable:
    """Return the net with the mask; its filters have categories, but where a loss without labels has too few."""
    x = torch.stack([data[index][0] for index in range(min(2, len(data)))])
    wrap = partial(interpretable, plain, x, added=recipe.added, beta=recipe.beta, centre=recipe.centre)
    made, classes = wrap(recipe.layer), len(data.classes)
    logits = _checked(plain, x, made.form.layer, recipe.beta, classes)
    if logits > 1 and (classes <= made.form.filters or recipe.loss in LABELLED):
        return wrap(made.form.layer, classes=classes)
    return made


def _checked(plain: nn.Module, x: Tensor, layer: str, beta: float, classes: int) -> int:
    """Return the number of logits; maps of which a mask leaves a single place are warned of."""
    classifier = Classifier(plain)
    with opened(classifier) as session:
        recording = session.record(move(classifier, x), [layer])
    h, w = recording.activations[layer].shape[2:]
    if max(h, w) <= beta and ranks.first():
        warnings.warn(
            f"the mask leaves a single one of the {h} x {w} places of layer {layer!r}: choose an earlier layer, or "
            "give larger pictures",
            stacklevel=4,
        )
    logits = logits_of(recording.output).shape[1]
    if logits not in (classes, 1) or (logits == 1 and classes != 2):
        raise ModelError(f"the model gives {logits} logits for pictures of {classes} classes: give one logit a class")
    return logits


def _objective(net: Interpretable, data: Labelled, recipe: Recipe) -> Filters:
    counts = torch.bincount(data.labels, minlength=len(data.classes))
    return Filters(
        net,
        recipe.loss,
        Strength(recipe.relative),
        smoothing=recipe.plan.smoothing,
        options=recipe.options,
        densities=counts / len(data),
        settled=max(1, int(recipe.settled * recipe.plan.epochs * recipe.plan.steps(len(data)))),
    )
