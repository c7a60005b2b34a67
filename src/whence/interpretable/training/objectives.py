"""What is minimised: the task's loss alone, or with the losses of filters."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from whence.interpretable.information import terms
from whence.interpretable.losses import WEIGHED, filter_loss
from whence.interpretable.strength import Strength
from whence.models.masked import ranks
from whence.models.masked.categories import Categories
from whence.models.masked.wrapper import Interpretable
from whence.models.outputs import logits_of


class Means:
    """Running means of numbers by name, until they are taken."""

    def __init__(self) -> None:
        self.sums: dict[str, float] = defaultdict(float)
        self.counts: dict[str, int] = defaultdict(int)

    def add(self, **values: float) -> None:
        """Take numbers into the means."""
        for name, value in values.items():
            self.sums[name] += value
            self.counts[name] += 1

    def taken(self) -> dict[str, float]:
        """Return the means, and begin anew."""
        means = {name: total / self.counts[name] for name, total in self.sums.items()}
        self.sums.clear()
        self.counts.clear()
        return means


@runtime_checkable
class Objective(Protocol):
    """The loss of a step; what it remembers is part of a checkpoint."""

    def __call__(
        self, module: nn.Module, x: Float[Tensor, "b c h w"], labels: Int[Tensor, " b"]
    ) -> Float[Tensor, ""]:
        """Run the module and return the loss."""

    def course(self) -> dict[str, Any]:
        """Return what is to be said of the steps since the last time, as plain numbers."""

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint must hold."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint."""


def task_loss(logits: Float[Tensor, "b k"], labels: Int[Tensor, " b"], smoothing: float) -> Float[Tensor, ""]:
    """Return the cross-entropy; with a single logit the logistic loss of being of the category or not."""
    if logits.shape[1] == 1:
        wanted = labels.to(logits) * (1 - smoothing) + smoothing / 2
        return F.binary_cross_entropy_with_logits(logits[:, 0], wanted)
    return F.cross_entropy(logits, labels, label_smoothing=smoothing)


def meant(loss: Float[Tensor, ""]) -> float:
    """Return the mean of a loss over the processes."""
    return (ranks.summed(loss.detach()) / ranks.count()).item()


@dataclass
class Task:
    """The task alone."""

    smoothing: float = 0.0
    means: Means = field(default_factory=Means)

    def __call__(
        self, module: nn.Module, x: Float[Tensor, "b c h w"], labels: Int[Tensor, " b"]
    ) -> Float[Tensor, ""]:
        """Run the module and return the task's loss."""
        return self._counted(task_loss(logits_of(module(x)), labels, self.smoothing))

    def _counted(self, loss: Float[Tensor, ""]) -> Float[Tensor, ""]:
        """Take a loss into the mean."""
        self.means.add(task=meant(loss))
        return loss

    def course(self) -> dict[str, Any]:
        """Return the mean loss."""
        return dict(self.means.taken())

    def state_dict(self) -> dict[str, Any]:
        """Return the means so far."""
        return {"sums": dict(self.means.sums), "counts": dict(self.means.counts)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on with these means."""
        self.means.sums.update(state["sums"])
        self.means.counts.update(state["counts"])


class Distilled(Task):
    """What a teacher says of the same pictures, and a little of the task.

    Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network" (arXiv:1503.02531): the cross-entropy
    between both nets' probabilities at a temperature, times its square.
    """

    def __init__(self, teacher: nn.Module, smoothing: float, *, temperature: float = 2.0, share: float = 0.9) -> None:
        super().__init__(smoothing)
        self.teacher, self.temperature, self.share = teacher, temperature, share

    def __call__(
        self, module: nn.Module, x: Float[Tensor, "b c h w"], labels: Int[Tensor, " b"]
    ) -> Float[Tensor, ""]:
        """Run both and return the loss."""
        with torch.no_grad():
            taught = (logits_of(self.teacher(x)) / self.temperature).softmax(1)
        logits = logits_of(module(x))
        distance = F.cross_entropy(logits / self.temperature, taught) * self.temperature**2
        return self._counted(self.share * distance + (1 - self.share) * task_loss(logits, labels, self.smoothing))


class Filters:
    """The task and lambda_t times the losses of filters on the maps before the mask.

    Parameters
    ----------
    net
        The model whose filters are trained, as it stands in the module that is run.
    loss, options
        A name of ``LOSSES`` and the loss's own options; None for the mask alone.
    densities
        The share of the training pictures of each class, by which some losses weigh; None for a single category.
    settled
        After so many steps categories are kept as they are.
    """

    def __init__(
        self,
        net: Interpretable,
        loss: str | None,
        strength: Strength,
        *,
        smoothing: float,
        options: Mapping[str, Any],
        densities: Float[Tensor, " c"] | None,
        settled: int,
    ) -> None:
        self.net, self.loss, self.strength, self.smoothing = net, loss, strength, smoothing
        self.options, self.densities, self.settled = options, densities, settled
        self.task, self.step = Task(smoothing), 0
        self.before: list[int] | None = None

    def __call__(
        self, module: nn.Module, x: Float[Tensor, "b c h w"], labels: Int[Tensor, " b"]
    ) -> Float[Tensor, ""]:
        """Run the module and return both losses together."""
        with self.net.recording() as raw:
            task = self.task(module, x, labels)
        (maps,) = raw
        positive = self._positive(maps, labels)
        # Now and then, and in each epoch.
        if self.step % self.strength.every == 0 or "prior" not in self.task.means.sums:
            self.task.means.add(**{name: value.mean().item() for name, value in vars(terms(maps)).items()})
        self.step += 1
        if self.loss is None:
            return task
        filters = filter_loss(self.loss, maps, positive, **self._options()).sum()
        self.strength = self.strength.after(task, filters, maps)
        self.task.means.add(filters=meant(filters), weight=self.strength.weight)
        return task + self.strength.weight * filters

    @property
    def categories(self) -> Categories | None:
        """The filters' categories; None where there is a single one."""
        return self.net.interpretable.categories

    def _positive(self, maps: Float[Tensor, "b k h w"], labels: Int[Tensor, " b"]) -> Bool[Tensor, "b k"]:
        if self.categories is None:
            return (labels == 1)[:, None].expand(maps.shape[:2])
        self.categories.update(maps.detach(), labels)
        if self.step + 1 == self.settled:
            self.categories.freeze()
        return self.categories.positive(labels)

    def _options(self) -> dict[str, Any]:
        """Return the loss's options, with the share of pictures of each filter's category."""
        if self.loss not in WEIGHED or self.densities is None or self.categories is None:
            return dict(self.options)
        density = self.densities.to(self.categories.activation.device)[self.categories.assigned()]
        return {"density": density, **self.options}

    def course(self) -> dict[str, Any]:
        """Return the mean losses and terms, the categories, and how many filters changed theirs since the last time.

        The terms are prior, inter-category and spatial, means over the filters, in nats; what there is none of is
        None.
        """
        found = {"filters": None, "weight": None, **self.task.course()}
        if self.categories is None:
            return {**found, "categories": None, "changed": None}
        now = self.categories.assigned().tolist()
        changed = None if self.before is None else sum(a != b for a, b in zip(now, self.before, strict=True))
        self.before = now
        return {**found, "categories": now, "changed": changed}

    def state_dict(self) -> dict[str, Any]:
        """Return the strength, the step, the means and the last categories."""
        strength = asdict(self.strength)
        return {"strength": strength, "step": self.step, "before": self.before, "task": self.task.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from there."""
        self.strength, self.step, self.before = Strength(**state["strength"]), state["step"], state["before"]
        self.task.load_state_dict(state["task"])
