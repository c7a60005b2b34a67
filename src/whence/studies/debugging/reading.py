"""From a study's rows and maps to pictures that can be searched."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor

from whence.asking import MethodRequest
from whence.errors import ModelError, OptionError
from whence.interpretable.labelled import Labelled
from whence.models.classifier import Classifier
from whence.pictures.preprocess import Preprocessing
from whence.registry import METHODS
from whence.results import reduced
from whence.studies.debugging.explained import Explained, places, pooled
from whence.studies.job import PictureEntry
from whence.studies.manifest import manifest

if TYPE_CHECKING:
    from whence.studies.study import Study


@dataclass(frozen=True, eq=False)
class FolderPictures(Labelled):
    """Pictures of a folder as a model takes them, read when they are asked for; -1 where the class is not known."""

    root: Path
    entries: tuple[PictureEntry, ...]
    labels: Int[Tensor, " n"]
    classes: tuple[str, ...]
    preprocess: Preprocessing
    bits: int | None = None

    def __getitem__(self, index: int) -> tuple[Float[Tensor, "c h w"], int]:
        """Return the input of one picture, and its class."""
        picture = self.entries[index].read(self.root, self.bits)
        return self.preprocess(picture).input, int(self.labels[index])


def folder_pictures(root: Path, classifier: Classifier, *, bits: int | None = None) -> FolderPictures:
    """Return the pictures of a folder with the classes that a table in it or its folders tell, as a model takes them.

    Raises
    ------
    PictureError
        There is no such folder, or no picture in it.
    OptionError
        A picture's class is not known, or the model has none of that name.
    ModelError
        The model states no preprocessing.
    """
    entries = manifest(root)
    labels = [_class_of(entry, root, classifier) for entry in entries]
    classes = classifier.labels or ()
    return FolderPictures(root, entries, torch.tensor(labels), classes, _preprocess(classifier), bits)


def _class_of(entry: PictureEntry, root: Path, classifier: Classifier) -> int:
    if entry.truth is None or classifier.labels is None:
        raise OptionError(
            f"the class of {entry.name!r} in {root} is not known: write a table with the columns file and label "
            "beside the pictures, and give a model with labels"
        )
    return classifier.scale.index(f"label:{entry.truth}", len(classifier.labels))


def _preprocess(classifier: Classifier) -> Preprocessing:
    if classifier.preprocess is None:
        raise ModelError(f"{classifier.name} states no preprocessing: write it into the model file's [preprocess]")
    return classifier.preprocess


def from_study(study: "Study", model: Classifier, method: str) -> Explained:
    """Return a study's pictures with one model's answers, and one method's maps of them.

    Parameters
    ----------
    study
        Of whose rows those are taken that hold a map of the class that the model gives.
    model
        By its name the study knows it; its preprocessing makes the inputs.
    method
        As it was asked for.

    Raises
    ------
    ModelError
        The model states no preprocessing.
    OptionError
        The study holds no such map of this model by this method, or maps of several shapes.
    """
    preprocess = _preprocess(model)
    how = METHODS.facts(MethodRequest.read(method).method).reduce
    rows, maps = [], []
    for table, values in study.maps(model.name, method):
        told = table.select(["number", "picture", "truth_index", "predicted", "target"]).to_pylist()
        # A map of another class does not say why this one was given.
        own = [index for index, row in enumerate(told) if row["target"] == row["predicted"]]
        if own:
            rows += [told[index] for index in own]
            maps.append(pooled(places(reduced(values[own], how), method)))
    if not rows:
        raise OptionError(
            f"the study holds no map by {method} of what {model.name} says: run it with both, and without a target"
        )
    if len(shapes := {tuple(one.shape[1:]) for one in maps}) > 1:
        found = " and ".join(f"{height} x {width}" for height, width in sorted(shapes))
        raise OptionError(f"the maps of {model.name} by {method} have {found} cells: state a crop in its preprocess")
    said = torch.tensor([row["predicted"] for row in rows])
    truth = torch.tensor([-1 if row["truth_index"] is None else row["truth_index"] for row in rows])
    classes = model.labels or tuple(f"class {n}" for n in range(int(torch.maximum(said, truth).max()) + 1))
    entries = tuple(study.job.pictures[row["number"]] for row in rows)
    data = FolderPictures(study.job.root, entries, truth, classes, preprocess, study.job.bits)
    return Explained(data, torch.cat(maps), said, [row["picture"] for row in rows])
