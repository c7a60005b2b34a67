"""The pictures of a shard as models take them, in this process or in others."""

import os
import shutil

import pytest
import torch

from core_samples import net, pictures, plan, steady
from whence.errors import PictureError, WhenceError
from whence.pictures.preprocess import Preprocess
from whence.pictures.read import read
from whence.studies.loading import DIED, Fault, batches
from whence.studies.shard import Worker


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return pictures(tmp_path_factory.mktemp("loading") / "p", 5)


def loaded(job, models, holes=(), loaders=0, shard=0):
    return list(batches(job, shard, frozenset(holes), [model.preprocess for model in models], loaders))


@pytest.mark.parametrize("loaders", [0, 2])
def test_batches_hold_each_picture_as_each_model_takes_it(root, loaders):
    models = [net(), net(1, 20)]
    job = plan(root, *models, batch=2, shard=5)
    found = loaded(job, models, loaders=loaders)
    assert [batch.numbers for batch in found] == [[0, 1], [2, 3], [4]]
    for batch in found:
        assert batch.faults == [None] * len(batch.numbers)
        for place, model in enumerate(models):
            made = [model.preprocess(read(root / f"{number:03d}.png")) for number in batch.numbers]
            assert torch.equal(batch.inputs[place], torch.stack([one.input for one in made]))
            for own, one in zip(batch.geometries[place], made, strict=True):
                assert (own.picture, own.grid, own.box) == (one.geometry.picture, one.geometry.grid, one.geometry.box)


def test_the_last_shard_holds_the_rest(root):
    model = net()
    job = plan(root, model, batch=2, shard=3)
    assert [batch.numbers for batch in loaded(job, [model], shard=1)] == [[3, 4]]


@pytest.mark.parametrize("loaders", [0, 2])
def test_what_cannot_be_read_is_zeros_with_a_fault(root, tmp_path, loaders):
    own = shutil.copytree(root, tmp_path / "p")
    (own / "001.png").write_bytes(b"")
    models = [net(), net(1, 20)]
    job = plan(own, *models, batch=5, shard=5)
    (batch,) = loaded(job, models, holes={3}, loaders=loaders)
    assert [fault is None for fault in batch.faults] == [True, False, True, False, True]
    assert batch.faults[1].kind == "PictureError"
    assert batch.faults[3].kind == DIED
    for inputs in batch.inputs:
        assert [bool((one != 0).any()) for one in inputs] == [True, False, True, False, True]
    assert [each[1] for each in batch.geometries] == [None, None]


def test_pictures_decoded_elsewhere_make_the_same_rows(root, tmp_path):
    own = shutil.copytree(root, tmp_path / "p")
    (own / "001.png").write_bytes(b"")
    models = [net(), net(1, 20, name="two")]
    job = plan(own, *models, methods=["gradient", "grad-cam"], batch=2, shard=5, threads=2)
    first = Worker(job, models).explain(0)
    assert steady(Worker(job, models, loaders=2).explain(0)).equals(steady(first))


def test_a_preprocessing_that_makes_several_sizes_fails_for_those_of_another(root):
    def longer(image):
        crop = Preprocess(crop=(16, 16) if image.height != 33 else (16, 20))
        return crop(read(image)).input

    model = net(preprocess=longer)
    rows = Worker(plan(root, model, batch=5, shard=5), [model]).explain(0).to_pylist()
    assert [row["status"] for row in rows] == ["ok", "ok", "PictureError", "ok", "ok"]
    assert "makes [3, 16, 20] of it, and [3, 16, 16] of other pictures" in rows[2]["error"]


def test_a_preprocessing_that_raises_is_a_fault_of_its_picture(root):
    def odd(image):
        if image.height == 24:
            raise ValueError("too odd")
        return Preprocess(resize=(16, 16))(read(image)).input

    model = net(preprocess=odd)
    rows = Worker(plan(root, model, batch=5, shard=5), [model]).explain(0).to_pylist()
    assert [row["status"] for row in rows] == ["ok", "PictureError", "ok", "ok", "PictureError"]
    assert "too odd" in rows[1]["error"]


def test_the_generator_is_left_as_it_was(root):
    model = net()
    job = plan(root, model)
    state = torch.get_rng_state()
    for loaders in (0, 1):
        loaded(job, [model], loaders=loaders)
        assert torch.equal(torch.get_rng_state(), state)


def test_a_name_that_is_no_text_is_read(tmp_path):
    root = pictures(tmp_path / "p", 2)
    os.rename(root / "000.png", os.fsencode(root) + b"/caf\xe9.png")
    model = net()
    rows = Worker(plan(root, model), [model]).explain(0)
    assert rows["status"].to_pylist() == ["ok", "ok"]
    assert rows["picture"].to_pylist() == ["001.png", "caf?.png"]


def test_a_fault_is_one_line():
    assert Fault.of(PictureError("a\n  b")) == ("PictureError", "a b")
    assert Fault.of(WhenceError()) == ("WhenceError", "no more is known")
