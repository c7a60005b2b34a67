"""A study's rows and maps as pictures that can be searched."""

from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from types import SimpleNamespace

import pyarrow
import pytest
import torch
from PIL import Image

from debugging_toys import ReadsPlates
from whence.errors import ModelError, OptionError
from whence.models.classifier import Classifier
from whence.pictures.preprocess import Preprocess
from whence.pictures.read import read
from whence.studies.debugging import from_study, pooled
from whence.studies.manifest import manifest


@cache
def job():
    root = Path(mkdtemp())
    for number, pixels in enumerate(PIXELS):
        Image.fromarray(pixels.numpy()).save(root / f"p{number}.png")
    return SimpleNamespace(root=root, bits=None, pictures=manifest(root))


class Study:
    """What stands in for a study: maps part by part, and pictures."""

    def __init__(self, parts, pixels):
        self.parts, self.job, self.asked = parts, job(), []

    def maps(self, model, method):
        self.asked.append((model, method))
        return iter(self.parts)


def part(numbers, values, truth=None):
    rows = [
        {
            "number": n,
            "picture": f"p{n}.png",
            "truth_index": truth and truth[n],
            "predicted": n % 2,
            "target": n % 2,
            "seconds": 0.1,
        }
        for n in numbers
    ]
    return pyarrow.Table.from_pylist(rows), values


def model(labels=("dark", "bright"), preprocess=Preprocess(resize=(32, 32), channels=1)):  # noqa: B008
    return Classifier(ReadsPlates(), preprocess, labels, "plates")


def maps(count, cells=8, seed=0):
    return torch.randn(count, 3, cells, cells, generator=torch.Generator().manual_seed(seed))


PIXELS = torch.randint(0, 255, (9, 40, 40), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def test_rows_of_all_parts_become_pictures_with_maps():
    first, second = maps(2), maps(3, seed=1)
    study = Study([part([0, 3], first, {0: 1, 3: None}), part([4, 5, 8], second, {4: 0, 5: 1, 8: 0})], PIXELS)
    made = from_study(study, model(), "integrated-gradients:steps=8")
    assert study.asked == [("plates", "integrated-gradients:steps=8")]
    assert list(made.names) == ["p0.png", "p3.png", "p4.png", "p5.png", "p8.png"]
    assert made.said.tolist() == [0, 1, 0, 1, 0]
    assert made.data.labels.tolist() == [1, -1, 0, 1, 0]
    assert made.data.classes == ("dark", "bright")
    assert torch.equal(made.relevance, pooled(torch.cat([first, second]).sum(1)))
    assert torch.equal(made.data[1][0], model().preprocess(read(PIXELS[3].numpy())).input)
    assert made.size == (32, 32)


def test_maps_of_another_class_than_the_one_given_are_left_out():
    table, values = part([0, 1, 2], maps(3))
    others = table.set_column(table.column_names.index("target"), "target", pyarrow.array([0, 0, 0]))
    made = from_study(Study([(others, values)], PIXELS), model(), "grad-cam")
    assert list(made.names) == ["p0.png", "p2.png"]
    assert torch.equal(made.relevance, pooled(values[[0, 2]].sum(1)))


def test_channels_are_reduced_as_the_method_says():
    study = Study([part([0, 1], maps(2))], PIXELS)
    made = from_study(study, model(), "gradient")
    assert torch.equal(made.relevance, pooled(maps(2).abs().amax(1)))


def test_classes_without_labels_are_numbered():
    study = Study([part([0, 1], maps(2), {0: 2, 1: None})], PIXELS)
    assert from_study(study, model(labels=None), "grad-cam").data.classes == ("class 0", "class 1", "class 2")


def test_what_a_study_lacks_is_said():
    with pytest.raises(OptionError, match="the study holds no map by grad-cam of what plates says"):
        from_study(Study([], PIXELS), model(), "grad-cam")
    shapes = Study([part([0], maps(1)), part([1], maps(1, cells=7))], PIXELS)
    with pytest.raises(OptionError, match="have 7 x 7 and 8 x 8 cells"):
        from_study(shapes, model(), "grad-cam")
    with pytest.raises(ModelError, match="states no preprocessing"):
        from_study(Study([], PIXELS), model(preprocess=None), "grad-cam")
