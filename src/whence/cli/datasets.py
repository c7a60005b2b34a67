"""What is trained and tested on: a folder of pictures, or the creatures."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from whence.interpretable.labelled import Labelled, Progress
    from whence.interpretable.training.folder import Data
    from whence.models.classifier import Classifier

# The word that stands for drawn pictures, and how many of them are held out.
CREATURES, HELD_OUT = "creatures", 1350


@dataclass(frozen=True)
class Drawn:
    """How many creatures are drawn to train on and to be held out, and of which seeds.

    ``missing`` are the numbers of parts that those to train on lack, each equally often.
    """

    train: int
    held_out: int
    seeds: tuple[int, int]
    missing: tuple[int, ...] = (0,)


def check_data(text: str) -> None:
    """Refuse what is no folder of classes before anything that takes time.

    Raises
    ------
    PictureError
        It is neither that nor the word for creatures.
    """
    from whence.interpretable.labelled import class_folders

    if text != CREATURES:
        class_folders(Path(text))


def read_data(
    text: str,
    classifier: "Classifier",
    share: float,
    creatures: Drawn,
    *,
    seed: int,
    skip_broken: bool,
    progress: "Progress",
    category: str | None = None,
) -> "Data":
    """Return the pictures that a word or a folder stands for, as the model takes them.

    Of a folder's pictures the ``share`` is held out. Creatures bring their own size and normalisation.

    Raises
    ------
    WhenceError
        The folder holds no pictures of several classes, one of them is broken, or the model has no preprocessing.
    """
    from whence.errors import ModelError
    from whence.interpretable.labelled import picture_folder, relabelled, split
    from whence.interpretable.reporting.folders import known
    from whence.interpretable.training.folder import Data

    def named(data: "Labelled") -> "Labelled":
        return data if category is None else relabelled(data, category)

    if text == CREATURES:
        from whence.creatures.labelled import PREPROCESS, drawn

        def part(name: str) -> "Progress":
            return lambda _, done, total: progress(name, done, total)

        train = drawn(creatures.train, creatures.seeds[0], missing=creatures.missing, progress=part("drawing"))
        held_out = drawn(creatures.held_out, creatures.seeds[1], progress=part("drawing those held out"))
        return Data(text, named(train), named(held_out), PREPROCESS, (), category)
    if classifier.preprocess is None:
        raise ModelError(f"{classifier.name} states no preprocessing: write it into the model file's [preprocess]")
    pictures = picture_folder(Path(text), classifier.preprocess, skip_broken=skip_broken, progress=progress)
    # A model that knows these very classes has an order of its own.
    same = sorted(classifier.labels or ()) == sorted(pictures.classes)
    ordered = known(pictures, classifier.labels) if same else pictures
    kept, tested = split(named(ordered), share, seed)
    return Data(text, kept, tested, classifier.preprocess, pictures.skipped, category, share)
