"""What is trained and tested on: a folder of pictures, or the creatures."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from whence.interpretable.labelled import Labelled, Progress
    from whence.interpretable.training.folder import Data
    from whence.models.classifier import Classifier

# The word that stands for drawn pictures, and how many of them are held out.
CREATURES, HELD_OUT = "creatures", 1350


def read_data(
    text: str,
    classifier: "Classifier",
    held_out: float,
    *,
    category: str | None,
    count: int,
    seed: int,
    skip_broken: bool,
    progress: "Progress | None" = None,
) -> "Data":
    """Return the pictures that a word or a folder stands for, as the model takes them.

    Creatures bring their own size and normalisation. Half of those to train on lack one or two deciding parts.

    Raises
    ------
    WhenceError
        The folder holds no pictures of several classes, one of them is broken, or the model has no preprocessing.
    """
    from whence.errors import ModelError
    from whence.interpretable.labelled import picture_folder, relabelled, split
    from whence.interpretable.training.folder import Data

    def named(data: "Labelled") -> "Labelled":
        return data if category is None else relabelled(data, category)

    if text == CREATURES:
        from whence.creatures.labelled import MISSING, PREPROCESS, drawn

        train = named(drawn(count, seed, missing=MISSING, progress=progress))
        test = named(drawn(HELD_OUT, seed + 1, progress=progress))
        return Data(text, train, test, PREPROCESS, (), category)
    if classifier.preprocess is None:
        raise ModelError(f"{classifier.name} states no preprocessing: write it into the model file's [preprocess]")
    pictures = picture_folder(Path(text), classifier.preprocess, skip_broken=skip_broken, progress=progress)
    kept, tested = split(named(pictures), held_out, seed)
    return Data(text, kept, tested, classifier.preprocess, pictures.skipped, category)
