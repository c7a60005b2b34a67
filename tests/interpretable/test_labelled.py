"""Pictures with classes: what a folder must hold, what is held out, and one category against the others."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch.utils.data import DataLoader

from whence.errors import ModelError, OptionError, PictureError
from whence.interpretable.labelled import Pixels, normalised, picture_folder, relabelled, split
from whence.pictures.preprocess import Preprocess
from whence.pictures.read import read

SMALL = Preprocess(resize=(4, 6), mean=(0.5,), std=(0.25,))


def folder(root, **classes):
    """Write so many pictures of each class, each of another grey and size."""
    for shade, (name, count) in enumerate(classes.items()):
        (root / name).mkdir()
        for index in range(count):
            grey = 40 * shade + index
            Image.new("RGB", (8 + index, 8), (grey, grey, grey)).save(root / name / f"{index}.png")
    return root


def drawn(*labels):
    pixels = torch.randint(256, (len(labels), 2, 3, 3), generator=torch.Generator().manual_seed(0))
    return Pixels(pixels.byte(), torch.tensor(labels), ("a", "b", "c"))


def test_pixels_are_minus_one_for_black_to_one_for_white():
    pixels = torch.tensor([0, 255, 51], dtype=torch.uint8).reshape(1, 1, 1, 3)
    assert torch.allclose(normalised(pixels), torch.tensor([-1, 1, -0.6]).reshape(1, 3, 1, 1))
    data = drawn(2, 0)
    assert torch.equal(data[1][0], normalised(data.pixels)[1])
    assert [data[-1][1], data[0][1], len(data)] == [0, 2, 2]


def test_a_loader_gives_batches():
    data = drawn(0, 1, 2, 1, 0)
    x, labels = next(iter(DataLoader(data, batch_size=4)))
    assert torch.equal(x, normalised(data.pixels[:4]))
    assert labels.tolist() == [0, 1, 2, 1]


def test_a_folder_s_classes_are_sorted_and_its_pictures_preprocessed(tmp_path):
    data = picture_folder(folder(tmp_path, dog=2, cat=3), SMALL)
    assert data.classes == ("cat", "dog")
    assert data.labels.tolist() == [0, 0, 0, 1, 1]
    assert [path.relative_to(tmp_path).as_posix() for path in data.files][2:4] == ["cat/2.png", "dog/0.png"]
    for index, path in enumerate(data.files):
        assert torch.equal(data[index][0], SMALL(read(path)).input)
        assert data[index][1] == data.labels[index]
    assert data.skipped == ()


def test_what_systems_leave_behind_is_ignored(tmp_path):
    folder(tmp_path, cat=1, dog=1)
    for name in ("cat/.DS_Store", "dog/Thumbs.db", "dog/desktop.ini", "README.txt"):
        (tmp_path / name).write_text("no picture")
    (tmp_path / ".cache").mkdir()
    assert len(picture_folder(tmp_path, SMALL)) == 2


def test_progress_is_told_for_every_file(tmp_path):
    told = []
    picture_folder(folder(tmp_path, cat=2, dog=1), SMALL, progress=lambda *what: told.append(what))
    assert told == [("reading", 1, 3), ("reading", 2, 3), ("reading", 3, 3)]


def test_a_broken_picture_is_named_or_left_out(tmp_path):
    folder(tmp_path, cat=2, dog=2)
    whole = (tmp_path / "dog" / "0.png").read_bytes()
    (tmp_path / "dog" / "0.png").write_bytes(whole[:40])
    (tmp_path / "cat" / "notes.txt").write_text("words")
    (tmp_path / "cat" / "more").mkdir()
    with pytest.raises(PictureError, match=f"{tmp_path}/cat/more: .* is a folder"):
        picture_folder(tmp_path, SMALL)
    data = picture_folder(tmp_path, SMALL, skip_broken=True)
    assert data.labels.tolist() == [0, 0, 1]
    assert [line.partition(":")[0] for line in data.skipped] == [
        f"{tmp_path}/{name}" for name in ("cat/more", "cat/notes.txt", "dog/0.png")
    ]


def test_a_picture_that_does_not_fit_the_model_counts_as_broken(tmp_path):
    folder(tmp_path, cat=1, dog=1)
    two = Preprocess(resize=(4, 4), channels=2)
    with pytest.raises(PictureError, match=r"cat/0.png: the model takes 2 channels"):
        picture_folder(tmp_path, two)


@pytest.mark.parametrize(
    ("classes", "words"),
    [
        ({}, "holds no folder of a class"),
        ({"cat": 2}, "holds only the class 'cat'"),
        ({"cat": 2, "dog": 0}, "the class folder .*dog holds no picture"),
    ],
)
def test_a_folder_without_two_classes_of_pictures_is_refused(tmp_path, classes, words):
    with pytest.raises(PictureError, match=words):
        picture_folder(folder(tmp_path, **classes), SMALL)


def test_a_class_whose_pictures_are_all_broken_is_refused(tmp_path):
    folder(tmp_path, cat=2, dog=0)
    (tmp_path / "dog" / "0.png").write_text("words")
    with pytest.raises(PictureError, match=r"the class folder .*dog holds no picture"):
        picture_folder(tmp_path, SMALL, skip_broken=True)


def test_what_is_no_folder_is_refused(tmp_path):
    with pytest.raises(PictureError, match=r"there is no folder .*nowhere"):
        picture_folder(tmp_path / "nowhere", SMALL)


def test_inputs_of_two_shapes_are_refused(tmp_path):
    folder(tmp_path, cat=2, dog=1)
    with pytest.raises(ModelError, match=r"cat/0.png an input of \[3, 8, 8\] and .*cat/1.png one of \[3, 8, 9\]"):
        picture_folder(tmp_path, Preprocess(), skip_broken=True)


@settings(max_examples=30, deadline=None)
@given(
    counts=st.lists(st.integers(2, 40), min_size=3, max_size=3),
    share=st.floats(0.01, 0.99),
    seed=st.integers(0, 5),
)
def test_held_out_pictures_are_evenly_spaced_in_each_class(counts, share, seed):
    data = drawn(*torch.arange(3).repeat_interleave(torch.tensor(counts)).tolist())
    train, held = split(data, share, seed)
    assert sorted([*train.rows.tolist(), *held.rows.tolist()]) == list(range(len(data)))
    for label, count in enumerate(counts):
        own = (data.labels == label).nonzero().flatten()
        places = [own.tolist().index(row) for row in held.rows[held.labels == label].tolist()]
        assert len(places) == min(max(round(share * count), 1), count - 1)
        gaps = [b - a for a, b in pairwise(places)]
        assert not gaps or max(gaps) - min(gaps) <= 1
        # No gap at either end is longer than one between two.
        assert places[0] < count / len(places)
        assert count - 1 - places[-1] < count / len(places)


def test_parts_hold_the_pictures_and_the_labels_of_the_whole():
    data = drawn(0, 1, 2, 1, 0, 2, 2)
    for part in split(data, 0.3):
        assert part.classes == data.classes
        for index, row in enumerate(part.rows.tolist()):
            assert torch.equal(part[index][0], data[row][0])
            assert part[index][1] == part.labels[index] == data.labels[row]


def test_a_split_depends_on_its_seed_alone():
    data = drawn(*[0, 1, 2] * 30)
    held = [split(data, 0.1, seed)[1].rows.tolist() for seed in (0, 0, 1)]
    assert held[0] == held[1] != held[2]


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, float("nan")])
def test_a_share_that_leaves_nothing_is_refused(share):
    with pytest.raises(OptionError, match="give one between 0 and 1"):
        split(drawn(0, 0, 1, 1, 2, 2), share)


def test_a_class_of_one_picture_cannot_be_split():
    with pytest.raises(PictureError, match="the class 'b' has one picture"):
        split(drawn(0, 0, 1, 2, 2), 0.5)


def test_one_category_stands_against_all_others():
    data = drawn(0, 1, 2, 1)
    one = relabelled(data, "b")
    assert one.classes == ("others", "b")
    assert one.labels.tolist() == [0, 1, 0, 1]
    assert [one[i][1] for i in range(4)] == [0, 1, 0, 1]
    assert torch.equal(one[2][0], data[2][0])


def test_an_unknown_category_is_refused_with_what_there_is():
    with pytest.raises(OptionError, match="there is no class 'd': there are: a, b, c"):
        relabelled(drawn(0, 1, 2), "d")
