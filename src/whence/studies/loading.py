"""The pictures of a shard, decoded and ready for every model, batch by batch."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from whence.errors import PictureError, WhenceError
from whence.pictures.preprocess import Geometry, Preprocessing
from whence.studies.job import Job, ModelEntry

DIED = "worker died"


class Fault(NamedTuple):
    """Why there is no map: the kind of the error, and a sentence."""

    kind: str
    said: str

    @classmethod
    def of(cls, error: Exception) -> "Fault":
        """Return what an error says in one line."""
        return cls(type(error).__name__, " ".join(str(error).split()) or "no more is known")


class Loaded(NamedTuple):
    """A batch: for each model its inputs [B, C, H, W] and, for each picture, their geometry; and what failed.

    A picture that cannot be read is zeros, so that what the others get does not depend on it.
    """

    numbers: list[int]
    inputs: list[Tensor]
    geometries: list[list[Geometry | None]]
    faults: list[Fault | None]


class _Item(NamedTuple):
    number: int
    inputs: list[Float[Tensor, "c h w"]]
    geometries: list[Geometry | None]
    fault: Fault | None


class _Pictures(Dataset[_Item]):
    """The pictures of a shard; those in ``holes`` killed the worker that touched them."""

    def __init__(self, job: Job, shard: int, holes: frozenset[int], ways: Sequence[Preprocessing]) -> None:
        self.job, self.numbers, self.holes, self.ways = job, job.slice(shard), holes, ways

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, index: int) -> _Item:
        number = self.numbers[index]
        if number in self.holes:
            return self._absent(number, Fault(DIED, "the process that explained it died each time"))
        entry = self.job.pictures[number]
        try:
            picture = entry.read(self.job.root, self.job.bits)
            ready = [way(picture) for way in self.ways]
            for one, model in zip(ready, self.job.models, strict=True):
                _check_shape(one.input, model)
        except WhenceError as error:
            return self._absent(number, Fault.of(error))
        return _Item(number, [one.input for one in ready], [one.geometry for one in ready], None)

    def _absent(self, number: int, fault: Fault) -> _Item:
        return _Item(number, [torch.zeros(model.input) for model in self.job.models], [None] * len(self.ways), fault)


def _check_shape(x: Float[Tensor, "c h w"], model: ModelEntry) -> None:
    if tuple(x.shape) != model.input:
        raise PictureError(
            f"the preprocessing of {model.name} makes {list(x.shape)} of it, and {list(model.input)} of other "
            "pictures: give one that makes one size of all"
        )


def _together(items: Sequence[_Item]) -> Loaded:
    return Loaded(
        [item.number for item in items],
        [torch.stack(inputs) for inputs in zip(*(item.inputs for item in items), strict=True)],
        [list(each) for each in zip(*(item.geometries for item in items), strict=True)],
        [item.fault for item in items],
    )


def batches(
    job: Job, shard: int, holes: frozenset[int], ways: Sequence[Preprocessing], loaders: int
) -> Iterator[Loaded]:
    """Yield the batches of a shard, decoded by so many processes beside the model, or, with 0, in this one."""
    collate: Callable[[list[_Item]], Loaded] = _together
    yield from DataLoader(
        _Pictures(job, shard, holes, ways),
        batch_size=job.batch,
        num_workers=loaders,
        collate_fn=collate,
        pin_memory=job.device == "cuda",
        # Else it would draw a number from the global generator.
        generator=torch.Generator(),
    )
