"""A study by Grad-CAM: the floor is the bare loop of a DataLoader and a forward, over the same files.

Plain is that loop, written as in torchvision's tutorials: decode, resize, crop, normalise, forward, and nothing kept.
`shards` is the work of a study whose job stands: decode and check each picture, forward, backward of the tail, and
write the rows. `whole` adds what comes before: list and hash the files, and write the job. One thread, batches of 32,
no loading process beside the model.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
import torchvision.transforms as T
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

import whence
from paired import Run, outside, paired
from whence.creatures.files import write
from whence.models.threads import threads
from whence.pictures.files import pictures_in
from whence.pictures.preprocess import Preprocess
from whence.studies.job import Job
from whence.studies.planning import Given, Settings, planned
from whence.studies.running import carry_out

LIMIT = "1.11 of the bare loop"
CREATURES, BATCH = 2000, 32


class Files(Dataset[Tensor]):
    """Pictures as torchvision's transforms prepare them."""

    def __init__(self, folder: Path, way: Preprocess) -> None:
        self.files = pictures_in(folder)
        sides = (list(way.resize) if isinstance(way.resize, tuple) else way.resize, way.crop)
        mean, std = (values * 3 if len(values) == 1 else values for values in (way.mean, way.std))
        made = [T.Resize(sides[0]), *([T.CenterCrop(sides[1])] if sides[1] else [])]
        self.way = T.Compose([*made, T.ToTensor(), T.Normalize(mean, std)])

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Tensor:
        with Image.open(self.files[index]) as image:
            made: Tensor = self.way(image.convert("RGB"))
            return made


def bare(classifier: whence.Classifier, folder: Path) -> Callable[[], None]:
    """Return the bare loop over a folder."""
    assert isinstance(classifier.preprocess, Preprocess)
    files = Files(folder, classifier.preprocess)

    def loop() -> None:
        with torch.no_grad(), threads(1):
            for x in DataLoader(files, batch_size=BATCH):
                classifier.module(x)

    return loop


def contenders(spec: str, classifier: whence.Classifier, folder: Path, out: Path) -> dict[str, Callable[[], None]]:
    """Return the study of a folder, with and without what comes before the first shard."""

    def job() -> Job:
        return planned(folder, [(Given(spec), classifier)], Settings(batch=BATCH))

    def carried(made: Job) -> None:
        shutil.rmtree(out, ignore_errors=True)
        carry_out(made, out, models=[classifier])

    stands = job()
    return {"shards": lambda: carried(stands), "whole": lambda: carried(job())}


def runs(rounds: int, repeats: int) -> Iterator[tuple[str, int, Run]]:
    """Yield a paired run for drawn creatures and for photos."""
    with TemporaryDirectory() as place:
        write(Path(place) / "creatures", CREATURES, 7)
        for name, spec, folder in (
            (f"{CREATURES} creatures", "creatures", Path(place) / "creatures"),
            ("photos, mobilenetv2", os.fspath(outside("WHENCE_MODELS", "models") / "mobilenetv2"),
             outside("WHENCE_PHOTOS", "photos")),
        ):  # fmt: skip
            classifier = whence.load_model(spec)
            made = contenders(spec, classifier, folder, Path(place) / "study")
            yield name, BATCH, paired(bare(classifier, folder), made, min(rounds, 5), min(repeats, 2))
