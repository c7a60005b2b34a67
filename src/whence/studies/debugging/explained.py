"""Pictures, what a model says of each, and one map of it: what the search for a wrong reason works on."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from whence.asking import MethodRequest
from whence.attribution import attribute_all
from whence.errors import OptionError
from whence.interpretable.labelled import Labelled, Progress
from whence.models.classifier import Classifier
from whence.results import reduced

# Finer than this the same thing, a little aside, would be another.
_CELLS = 16
_BATCH = 64


@dataclass(frozen=True, eq=False)
class Explained:
    """Pictures with the model's answers and their maps.

    Attributes
    ----------
    data
        The inputs, with their classes; -1 for a class that is not known.
    relevance
        Where what speaks for the answer lies, as ``pooled`` gives it.
    said
        The class that the model gives each picture.
    names
        How people know the pictures.
    """

    data: Labelled
    relevance: Float[Tensor, "n g k"]
    said: Int[Tensor, " n"]
    names: Sequence[str]

    def __post_init__(self) -> None:
        """Refuse what does not belong together.

        Raises
        ------
        OptionError
            There are not as many pictures as maps, answers and names.
        """
        counts = {len(self.data), len(self.relevance), len(self.said), len(self.names)}
        if len(counts) > 1:
            raise OptionError(
                f"{len(self.data)} pictures with {len(self.relevance)} maps, {len(self.said)} answers and "
                f"{len(self.names)} names: give one of each for every picture"
            )

    @cached_property
    def size(self) -> tuple[int, int]:
        """(h, w) of the model's input."""
        height, width = self.data[0][0].shape[1:]
        return int(height), int(width)

    @property
    def right(self) -> Bool[Tensor, " n"]:
        """Which answers are right; none is whose class is not known."""
        return self.said == self.data.labels

    def inputs(self, rows: Int[Tensor, " m"]) -> Float[Tensor, "m c h w"]:
        """Return some of the pictures as the model takes them."""
        return torch.stack([self.data[row][0] for row in rows.tolist()])


def pooled(maps: Float[Tensor, "n h w"]) -> Float[Tensor, "n g k"]:
    """Return where the positive part of signed maps lies: on at most 16 x 16 cells, each map with the sum 1.

    A map that is nowhere positive stays zero.

    Raises
    ------
    OptionError
        There is no map, or maps have a single cell.
    """
    n, height, width = maps.shape
    if n == 0 or height * width < 2:
        raise OptionError(
            f"{n} maps of {height} x {width} cells show no places: give maps with some, of some pictures"
        )
    cells = F.adaptive_avg_pool2d(maps.clamp(min=0)[:, None], (min(height, _CELLS), min(width, _CELLS)))[:, 0]
    total = cells.sum((1, 2), keepdim=True)
    return torch.where(total > 0, cells / total, 0.0)


def explained(
    classifier: Classifier,
    data: Labelled,
    request: MethodRequest,
    *,
    names: Sequence[str] | None = None,
    seed: int = 0,
    progress: Progress = lambda stage, done, total: None,
) -> Explained:
    """Explain what a model says of every picture of a data set.

    Raises
    ------
    WhenceError
        The method cannot explain the model.
    OptionError
        There is no picture, or the method's map has no places.
    """
    maps, said = [], []
    for start in range(0, len(data), _BATCH):
        rows = range(start, min(start + _BATCH, len(data)))
        x = torch.stack([data[row][0] for row in rows])
        (answer,) = attribute_all(classifier, x, request.method, [None], request.options, seed=seed)
        maps.append(pooled(places(reduced(answer.values, answer.reduce), request.text)))
        said.append(answer.target)
        progress("explaining", rows.stop, len(data))
    if not maps:
        raise OptionError("there is no picture to explain: give a data set that holds some")
    return Explained(data, torch.cat(maps), torch.cat(said), names or [f"picture {i}" for i in range(len(data))])


def places(maps: Tensor, method: str) -> Float[Tensor, "n h w"]:
    """Return reduced maps on the CPU.

    Raises
    ------
    OptionError
        They have channels and no places.
    """
    if maps.ndim != 3:
        raise OptionError(f"{method} gives a map without places for this model: take another method or layer")
    return maps.detach().float().cpu()
