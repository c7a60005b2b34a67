"""Pictures with their classes, to train on."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor
from torch.utils.data import Dataset

from whence.errors import ModelError, OptionError, PictureError, nearest
from whence.pictures.preprocess import Preprocessing
from whence.pictures.read import read

# What is being done, how much of it is done, and how much there is.
Progress = Callable[[str, int, int], None]

# What systems leave in folders beside the files whose names begin with a dot.
_LEFT_BEHIND = ("Thumbs.db", "desktop.ini")


class Labelled(Dataset[tuple[Tensor, int]], ABC):
    """Inputs of one shape [C, H, W], each with its class.

    Attributes
    ----------
    labels
        The class of each picture, an index of ``classes``.
    classes
        The names of the classes.
    """

    labels: Int[Tensor, " n"]
    classes: tuple[str, ...]

    def __len__(self) -> int:
        """Return how many pictures there are."""
        return len(self.labels)

    @abstractmethod
    def __getitem__(self, index: int) -> tuple[Float[Tensor, "c h w"], int]:
        """Return the input of one picture, and its class."""


@dataclass(frozen=True, eq=False)
class Pixels(Labelled):
    """Pictures in memory, given to a model as -1 for black to 1 for white."""

    pixels: UInt8[Tensor, "n h w 3"]
    labels: Int[Tensor, " n"]
    classes: tuple[str, ...]

    def __getitem__(self, index: int) -> tuple[Float[Tensor, "3 h w"], int]:
        """Return the input of one picture, and its class."""
        return normalised(self.pixels[index][None])[0], int(self.labels[index])


@dataclass(frozen=True, eq=False)
class Inputs(Labelled):
    """Inputs in memory, as a model takes them."""

    inputs: Float[Tensor, "n c h w"]
    labels: Int[Tensor, " n"]
    classes: tuple[str, ...]

    def __getitem__(self, index: int) -> tuple[Float[Tensor, "c h w"], int]:
        """Return one input, and its class."""
        return self.inputs[index], int(self.labels[index])


def normalised(pixels: UInt8[Tensor, "b h w 3"]) -> Float[Tensor, "b 3 h w"]:
    """Return pictures as inputs: -1 is black, 1 is white."""
    return pixels.permute(0, 3, 1, 2).float() / 127.5 - 1


@dataclass(frozen=True, eq=False)
class PictureFolder(Labelled):
    """The pictures of a folder with one folder in it for each class, read when they are asked for.

    Attributes
    ----------
    files
        The pictures, class by class.
    skipped
        One sentence for each file that was left out: its path, and why.
    """

    files: tuple[Path, ...]
    labels: Int[Tensor, " n"]
    classes: tuple[str, ...]
    preprocess: Preprocessing
    skipped: tuple[str, ...]

    def __getitem__(self, index: int) -> tuple[Float[Tensor, "c h w"], int]:
        """Return the input of one picture, and its class."""
        return _input(self.files[index], self.preprocess), int(self.labels[index])


def picture_folder(
    root: Path, preprocess: Preprocessing, *, skip_broken: bool = False, progress: Progress | None = None
) -> PictureFolder:
    """Return the pictures ROOT/CLASS/FILE, after each was read and preprocessed once.

    The classes are the folders in ``root``, in the order of their names; files beside them are not looked at. In a
    class every file is taken for a picture, whatever its name, and a folder for a broken one; hidden files and
    folders, whose names begin with a dot, ``Thumbs.db`` and ``desktop.ini`` are ignored.

    Raises
    ------
    PictureError
        A picture is broken and ``skip_broken`` is False, a class has no picture, or there are no two classes.
    ModelError
        The preprocessing gives inputs of several shapes.
    """
    folders = class_folders(root)
    inside = [(path, label) for label, folder in enumerate(folders) for path in _files(folder)]
    good: list[tuple[Path, int]] = []
    shapes: dict[tuple[int, ...], Path] = {}
    skipped: list[str] = []
    for done, (path, label) in enumerate(inside, 1):
        try:
            shapes.setdefault(tuple(_input(path, preprocess).shape), path)
            good.append((path, label))
        except PictureError as error:
            if not skip_broken:
                raise
            skipped.append(str(error))
        _check_shapes(shapes)
        if progress:
            progress("reading", done, len(inside))
    labels = torch.tensor([label for _, label in good], dtype=torch.long)
    for label, folder in enumerate(folders):
        if label not in labels:
            raise PictureError(f"the class folder {folder} holds no picture: put some into it, or remove it")
    return PictureFolder(
        tuple(path for path, _ in good), labels, tuple(folder.name for folder in folders), preprocess, tuple(skipped)
    )


def class_folders(root: Path) -> list[Path]:
    """Return the folders of the classes, in the order of their names.

    Raises
    ------
    PictureError
        There are no two.
    """
    if not root.is_dir():
        raise PictureError(f"there is no folder {root}: name one that holds a folder of pictures for each class")
    folders = sorted(path for path in root.iterdir() if path.is_dir() and not _is_hidden(path))
    if len(folders) < 2:
        found = f"only the class {folders[0].name!r}" if folders else "no folder of a class"
        raise PictureError(f"the folder {root} holds {found}: put a folder of pictures into it for each class")
    return folders


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not _is_hidden(path))


def _is_hidden(path: Path) -> bool:
    return path.name.startswith(".") or path.name in _LEFT_BEHIND


def _input(path: Path, preprocess: Preprocessing) -> Float[Tensor, "c h w"]:
    try:
        return preprocess(read(path)).input
    except PictureError as error:
        raise PictureError(f"{path}: {error}") from error


def _check_shapes(shapes: dict[tuple[int, ...], Path]) -> None:
    if len(shapes) > 1:
        (a, first), (b, second) = ((list(shape), path) for shape, path in shapes.items())
        raise ModelError(
            f"the preprocessing makes {first} an input of {a} and {second} one of {b}: state a crop, or a resize to "
            "[height, width], in the model's preprocess"
        )


@dataclass(frozen=True, eq=False)
class Chosen(Labelled):
    """Some of other pictures, under classes of their own: picture i is picture ``rows[i]`` of ``data``."""

    data: Labelled
    rows: Int[Tensor, " n"]
    labels: Int[Tensor, " n"]
    classes: tuple[str, ...]

    def __getitem__(self, index: int) -> tuple[Float[Tensor, "c h w"], int]:
        """Return the input of one picture, and its class."""
        return self.data[int(self.rows[index])][0], int(self.labels[index])


def split(data: Labelled, share: float, seed: int = 0) -> tuple[Chosen, Chosen]:
    """Return the pictures to train on, and those held out.

    Of each class the ``share``, rounded, and at least one picture, is held out, and one at least is left. They are
    evenly spaced among the pictures of the class; the seed says with which they begin.

    Raises
    ------
    OptionError
        The share does not lie between 0 and 1.
    PictureError
        A class has a single picture.
    """
    if not 0 < share < 1:
        raise OptionError(f"a share of {share} cannot be held out: give one between 0 and 1")
    generator = torch.Generator().manual_seed(seed)
    held = torch.zeros(len(data), dtype=torch.bool)
    for label, name in enumerate(data.classes):
        own = (data.labels == label).nonzero().flatten()
        if len(own) == 1:
            raise PictureError(
                f"the class {name!r} has one picture, and one to train on and one to hold out are needed"
            )
        held[own[_spaced(len(own), share, float(torch.rand((), generator=generator)))]] = True
    return _rows(data, ~held), _rows(data, held)


def _spaced(count: int, share: float, start: float) -> Int[Tensor, " k"]:
    """Return evenly spaced ones of ``count`` numbers, from a start in [0, 1) of one step."""
    k = min(max(round(share * count), 1), count - 1)
    return ((torch.arange(k, dtype=torch.float64) + start) * (count / k)).long() if count else torch.arange(0)


def _rows(data: Labelled, among: Tensor) -> Chosen:
    rows = among.nonzero().flatten()
    return Chosen(data, rows, data.labels[rows], data.classes)


def relabelled(data: Labelled, category: str) -> Chosen:
    """Return all pictures under two classes: ``category``, which is 1, and all others, which are 0.

    Raises
    ------
    OptionError
        There is no such class.
    """
    if category not in data.classes:
        raise OptionError(f"there is no class {category!r}: {nearest(category, data.classes)}")
    labels = (data.labels == data.classes.index(category)).long()
    return Chosen(data, torch.arange(len(data)), labels, ("others", category))
