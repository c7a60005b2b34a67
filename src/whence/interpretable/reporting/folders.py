"""Held-out pictures of a folder, and where the parts of what they show are."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from whence.errors import ModelError, OptionError, PictureError, nearest
from whence.interpretable.labelled import Chosen, Labelled, Progress, picture_folder, relabelled, split
from whence.interpretable.measures import Parts
from whence.interpretable.reporting.looked import Subject
from whence.interpretable.reporting.nets import Nets
from whence.pictures.preprocess import Geometry, Preprocessing
from whence.pictures.read import read

NAMES = "parts.txt"


def of_folder(
    root: Path,
    nets: Nets,
    *,
    held_out: float = 0.1,
    seed: int = 0,
    count: int = 1350,
    parts: Path | None = None,
    progress: Progress | None = None,
) -> Subject:
    """Return pictures ROOT/CLASS/FILE that were held out.

    Parameters
    ----------
    held_out, seed
        As the training had them; with 1 all pictures are held out.
    count
        At most so many pictures, evenly spaced.
    parts
        A folder with a map of parts for each picture, as ``part_maps`` reads them.

    Raises
    ------
    ModelError
        The model states no preprocessing.
    OptionError
        The model does not know a class, or the training held out other pictures.
    PictureError
        As ``picture_folder`` and ``part_maps``.
    """
    preprocess = nets.interpretable.preprocess
    if preprocess is None:
        raise ModelError(f"{nets.interpretable.name} states no preprocessing: write it into the model file")
    if not 0 < held_out <= 1:
        raise OptionError(f"a share of {held_out} cannot be held out: give one above 0, and 1 for all pictures")
    pictures = picture_folder(root, preprocess, skip_broken=True, progress=progress)
    named = known(pictures, nets.interpretable.labels)
    every = Chosen(named, torch.arange(len(named)), named.labels, named.classes)
    chosen = every if held_out == 1 else split(named, held_out, seed)[1]
    _check(nets, len(named), len(chosen))
    spaced = torch.linspace(0, len(chosen) - 1, min(count, len(chosen))).round().long()
    data = replace(chosen, rows=chosen.rows[spaced], labels=chosen.labels[spaced])
    files = [pictures.files[row] for row in data.rows.tolist()]
    names = [file.relative_to(root).as_posix() for file in files]
    truth = None if parts is None else part_maps(parts, root, names, preprocess)
    return Subject(root.name or str(root), data, names, truth, pictures.skipped)


def known(data: Labelled, labels: Sequence[str] | None) -> Labelled:
    """Return the data with the model's classes: its labels, or, with a single one, that one against all others.

    Raises
    ------
    OptionError
        The model does not know a class.
    """
    if labels is None or tuple(labels) == data.classes:
        return data
    if len(labels) == 1:
        return relabelled(data, labels[0])
    for name in data.classes:
        if name not in labels:
            raise OptionError(f"the model knows no class {name!r}: {nearest(name, labels)}")
    index = torch.tensor([labels.index(name) for name in data.classes])
    return Chosen(data, torch.arange(len(data)), index[data.labels], tuple(labels))


def _check(nets: Nets, pictures: int, held_out: int) -> None:
    """Refuse a folder of as many pictures as the training had, of which it held out others."""
    told = nets.training.data if nets.training else {}
    if not {"pictures", "held_out"} <= told.keys():
        return
    trained, tested = int(told["pictures"]), int(told["held_out"])
    if pictures == trained + tested and held_out not in (tested, pictures):
        raise OptionError(
            f"the training held out {tested} of {pictures} pictures, and here it would be {held_out}: give the same "
            "--held-out and --seed, or --held-out 1 for all of them"
        )


def part_maps(folder: Path, root: Path, names: Sequence[str], preprocess: Preprocessing) -> Parts:
    """Return the parts in the pictures ROOT/NAME; the landmarks are their centroids.

    For each picture ``folder`` holds a PNG of the same relative path, the picture's size and 8 bits of grey: 0 is
    background, 1 the first of the names in ``parts.txt``, one a line.

    Raises
    ------
    PictureError
        A map is missing, of another kind or size, or holds a number that has no name.
    OptionError
        There are no names.
    """
    parts = _names(folder)
    places = [_places(folder / name, root / name, preprocess, len(parts)) for name in names]
    landmarks = torch.stack([_centroids(one) for one in places])
    return Parts(parts, torch.stack(places), parts, landmarks)


def _names(folder: Path) -> tuple[str, ...]:
    try:
        lines = [line.strip() for line in (folder / NAMES).read_text("utf-8-sig").rstrip().split("\n")]
    except (OSError, UnicodeDecodeError) as error:
        raise OptionError(
            f"{folder / NAMES} cannot be read ({error}): write the name of each part on a line"
        ) from error
    if not all(lines):
        raise OptionError(f"{folder / NAMES} has an empty line: write the name of each part on a line")
    return tuple(lines)


def _places(file: Path, picture: Path, preprocess: Preprocessing, count: int) -> Bool[Tensor, "p h w"]:
    """Return which pixels of the model's input show each part of one picture."""
    path = file.with_suffix(".png")
    found, whole = read(path), read(picture)
    if found.pixels.dtype != torch.uint8 or len(found.pixels) != 1 or found.size != whole.size:
        size = f"{whole.size[1]} x {whole.size[0]}"
        raise PictureError(f"{path} is no map of parts of {picture}: give a grey PNG of 8 bits, {size} pixels")
    index = found.pixels[0]
    if int(index.max()) > count:
        raise PictureError(
            f"{path} holds the number {int(index.max())}, and {NAMES} names {count} parts: name it too"
        )
    geometry = preprocess(whole).geometry
    if geometry is None:
        raise PictureError(f"where {picture} lies in the model's input is not known: parts cannot be placed on it")
    return on_input(index, geometry) == torch.arange(1, count + 1)[:, None, None]


def on_input(index: UInt8[Tensor, "H W"], geometry: Geometry) -> UInt8[Tensor, "h w"]:
    """Return a map of a picture's pixels on the model's input grid, each place its nearest pixel, 0 outside."""
    top, left, bottom, right = geometry.box
    (height, width), (h, w) = geometry.picture, geometry.grid
    y = (top + (bottom - top) * (torch.arange(h) + 0.5) / h).floor().long()
    x = (left + (right - left) * (torch.arange(w) + 0.5) / w).floor().long()
    inside = ((y >= 0) & (y < height))[:, None] & ((x >= 0) & (x < width))
    found = index[y.clamp(0, height - 1)[:, None], x.clamp(0, width - 1)]
    return found.where(inside, torch.zeros_like(found))


def _centroids(places: Bool[Tensor, "p h w"]) -> Float[Tensor, "p 2"]:
    """Return the mean (row, column) of each part's pixels, NaN where there are none."""
    mass = places.double()
    rows = (mass.sum(2) * torch.arange(mass.shape[1])).sum(1)
    columns = (mass.sum(1) * torch.arange(mass.shape[2])).sum(1)
    return torch.stack((rows, columns), 1) / mass.sum((1, 2))[:, None]
