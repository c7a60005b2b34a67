"""A model trained again on pictures from which the wrong reason was taken."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor, nn

from whence.errors import ModelError, OptionError
from whence.interpretable.labelled import Labelled, Progress
from whence.interpretable.training import Plan, accuracy, fit
from whence.interpretable.training.objectives import Task
from whence.models.classifier import BlackBox, Classifier
from whence.reports.debugging_results import Trial
from whence.studies.debugging.regions import filled, masked


@dataclass(frozen=True, eq=False)
class Masked(Labelled):
    """Other pictures without their regions.

    Attributes
    ----------
    data
        The pictures.
    regions
        A box for each, in pixels of the input; zeros where nothing is to be masked.
    """

    data: Labelled
    regions: Int[Tensor, "n 4"]

    def __post_init__(self) -> None:
        """Refuse another number of regions than of pictures.

        Raises
        ------
        OptionError
            There is not one region a picture.
        """
        if len(self.regions) != len(self.data):
            raise OptionError(
                f"{len(self.regions)} regions for {len(self.data)} pictures: give one for each, zeros where nothing "
                "is to be masked"
            )

    @property
    def labels(self) -> Int[Tensor, " n"]:  # type: ignore[override]
        """The class of each picture."""
        return self.data.labels

    @property
    def classes(self) -> tuple[str, ...]:  # type: ignore[override]
        """The names of the classes."""
        return self.data.classes

    def __getitem__(self, index: int) -> tuple[Float[Tensor, "c h w"], int]:
        """Return the input of one picture without its region, and its class."""
        x, label = self.data[index]
        return masked(x, filled(self.regions[index], (x.shape[1], x.shape[2]))), label


def repair(
    classifier: Classifier,
    training: Labelled,
    regions: Int[Tensor, "n 4"],
    plan: Plan,
    *,
    net: nn.Module | None = None,
    progress: Progress | None = None,
) -> Classifier:
    """Train a copy of a model on its training pictures with the regions masked.

    Parameters
    ----------
    classifier
        Stays as it is.
    training
        Its training pictures, as it takes them.
    regions
        As :meth:`~whence.studies.debugging.search.Findings.regions` gives them.
    plan
        How it is trained; its smoothing is that of the labels.
    net
        A net with fresh weights to be trained in place of a copy of the model's own.

    Raises
    ------
    OptionError
        There is not one region a picture, no region masks anything, or a picture's class is not known.
    ModelError
        The model is a function, which cannot be trained.
    NotFiniteError
        The loss became NaN or infinite.
    """
    if isinstance(classifier.module, BlackBox):
        raise ModelError(f"{classifier.name} is a function and cannot be trained: give the torch.nn.Module itself")
    if not regions.any():
        raise OptionError(
            "no picture has a region to be masked: there is nothing to repair, no cluster is suspicious"
        )
    if bool((training.labels < 0).any()):
        raise OptionError(
            "the class of some training pictures is not known: give a folder of pictures for each class"
        )
    trained = copy.deepcopy(classifier.module) if net is None else net
    course = None if progress is None else ("training", progress)
    fit(trained, Masked(training, regions), plan, Task(plan.smoothing), progress=course)
    return Classifier(
        trained,
        classifier.preprocess,
        classifier.labels,
        f"{classifier.name}, repaired",
        classifier.scale.activation,
        precision=classifier.precision,
    )


def trials(before: Classifier, after: Classifier, tests: Mapping[str, Labelled], plan: Plan) -> tuple[Trial, ...]:
    """Return how many of some pictures, by name, two models recognise.

    Raises
    ------
    OptionError
        A set of pictures is empty.
    NotFiniteError
        A model says NaN or infinity.
    """
    if empty := [name for name, data in tests.items() if not len(data)]:
        raise OptionError(f"the test {empty[0]!r} holds no picture: leave it out, or put some into it")
    return tuple(
        Trial(name, len(data), *(accuracy(one.module, data, plan) for one in (before, after)))
        for name, data in tests.items()
    )
