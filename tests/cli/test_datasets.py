"""Pictures to train on, under the classes of the model that knows them."""

import pytest
from PIL import Image

from whence.cli.datasets import Drawn, read_data
from whence.creatures import LABELS, draw
from whence.models.load import load_model

NONE = Drawn(0, 0, (0, 0))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("species")
    for label, name in enumerate(LABELS):
        (root / name).mkdir()
        for seed in range(2):
            Image.fromarray(draw(seed, label).pixels).save(root / name / f"{seed}.png")
    return root


def read(folder, **options):
    return read_data(
        str(folder), load_model("creatures"), 0.5, NONE, seed=0, skip_broken=False, progress=tell, **options
    )


def tell(stage, done, total):
    assert done <= total


def test_classes_stand_in_the_model_s_order(folder):
    """The folders are sorted by name, and the model's logits are not."""
    data = read(folder)
    assert sorted(LABELS) != list(LABELS)
    assert data.labels == data.train.classes == data.held_out.classes == LABELS
    model = load_model("creatures").module
    right = [
        int(model(x[None]).argmax()) == label for part in (data.train, data.held_out) for x, label in part_of(part)
    ]
    assert sum(right) >= 17


def part_of(data):
    return [data[index] for index in range(len(data))]


def test_one_category_is_told_from_all_others(folder):
    data = read(folder, category="hookball")
    assert (data.labels, data.train.classes) == (("hookball",), ("others", "hookball"))
    assert sorted(data.train.labels.tolist()) == [0] * 8 + [1]


def test_other_classes_keep_the_order_of_their_names(folder, tmp_path):
    for name in ("zebra", "ant"):
        (tmp_path / name).mkdir()
        for file in sorted((folder / "hookball").iterdir()):
            (tmp_path / name / file.name).write_bytes(file.read_bytes())
    assert read(tmp_path).labels == ("ant", "zebra")
