"""Which pictures a folder holds, in which order, and what their true classes are."""

import hashlib
import os

import pytest

from core_samples import picture, pictures, table
from whence.creatures.files import write
from whence.errors import PictureError
from whence.studies.manifest import manifest


def found(folder, truth=None):
    return {entry.name: entry.truth for entry in manifest(folder, truth)}


def test_pictures_stand_in_the_order_of_their_names_with_the_hash_of_their_bytes(tmp_path):
    for seed, name in enumerate(("b.png", "a10.JPG", "a2.png", "Z.webp")):
        picture(tmp_path / name, seed)
    told = []
    entries = manifest(tmp_path, progress=lambda *said: told.append(said))
    assert [entry.name for entry in entries] == ["Z.webp", "a10.JPG", "a2.png", "b.png"]
    for entry in entries:
        assert entry.sha256 == hashlib.sha256((tmp_path / entry.name).read_bytes()).hexdigest()
        assert entry.truth is None
    assert told == [("hashing", done, 4) for done in (1, 2, 3, 4)]


def test_folders_name_the_classes_of_the_pictures_in_them(tmp_path):
    for seed, name in enumerate(("cat/1.png", "bee/2.png", "more/cat/3.png", "cat-b/4.png")):
        picture(tmp_path / name, seed)
    assert list(found(tmp_path).items()) == [
        ("bee/2.png", "bee"), ("cat-b/4.png", "cat-b"), ("cat/1.png", "cat"), ("more/cat/3.png", "cat")
    ]  # fmt: skip


def test_folders_of_the_folder_are_left_alone_where_it_holds_pictures_itself(tmp_path):
    pictures(tmp_path, 2)
    picture(tmp_path / "cat/9.png", 9)
    assert found(tmp_path) == {"000.png": None, "001.png": None}


def test_the_maps_of_parts_of_creatures_are_no_pictures(tmp_path, unchecked):
    write(tmp_path / "c", 2, 0)
    assert len(list((tmp_path / "c").rglob("*.png"))) == 6
    labels = found(tmp_path / "c")
    assert list(labels) == ["00000.png", "00001.png"]
    assert all(labels.values())


def test_what_is_hidden_is_left_out(tmp_path):
    for seed, name in enumerate(("a.png", ".b.png", "notes.txt")):
        picture(tmp_path / "own" / "cat" / f"{name}.png" if name == "notes.txt" else tmp_path / "own" / name, seed)
        picture(tmp_path / "below" / "cat" / name.replace("txt", "png"), seed)
    picture(tmp_path / "below" / ".trash" / "z.png", 4)
    (tmp_path / "below" / "cat" / "notes.txt").write_text("no picture")
    (tmp_path / "own" / "folder.png").mkdir()
    assert found(tmp_path / "own") == {"a.png": None}
    assert found(tmp_path / "below") == {"cat/a.png": "cat", "cat/notes.png": "cat"}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_the_only_table_of_classes_in_a_folder_is_read(tmp_path, encoding):
    pictures(tmp_path, 3)
    (tmp_path / "sizes.csv").write_text("file,width\n000.png,3\n")
    table(tmp_path, {"000.png": "bee", "001.png": "fée", "elsewhere.png": "ant"}, encoding=encoding)
    assert found(tmp_path) == {"000.png": "bee", "001.png": "fée", "002.png": None}


def test_of_several_tables_of_classes_none_is_read_but_the_one_named(tmp_path):
    pictures(tmp_path, 2)
    table(tmp_path, {"000.png": "bee"}, "a.csv")
    second = table(tmp_path, {"000.png": "cat"}, "b.csv")
    assert found(tmp_path) == {"000.png": None, "001.png": None}
    assert found(tmp_path, second) == {"000.png": "cat", "001.png": None}


def test_a_table_goes_before_the_names_of_folders(tmp_path):
    for seed, name in enumerate(("cat/1.png", "bee/2.png")):
        picture(tmp_path / name, seed)
    table(tmp_path, {"cat/1.png": "dog"})
    assert found(tmp_path) == {"bee/2.png": None, "cat/1.png": "dog"}


def test_a_class_that_is_left_empty_is_not_known(tmp_path):
    pictures(tmp_path, 2)
    (tmp_path / "labels.csv").write_text("file,label\n000.png,\n001.png\n")
    assert found(tmp_path) == {"000.png": None, "001.png": None}


def test_what_else_ends_in_csv_is_no_table(tmp_path):
    pictures(tmp_path, 1)
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "long.csv").write_text("x" * 200_000)
    (tmp_path / "empty.csv").write_text("")
    (tmp_path / "bytes.csv").write_bytes(bytes(range(256)))
    table(tmp_path, {"000.png": "bee"})
    assert found(tmp_path) == {"000.png": "bee"}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "no table of classes"),
        (b"name,class\n000.png,cat\n", "has the columns name, class"),
        (b"", "has the columns"),
        (b"file,label\n000.png,f\xe9e\n", "no table of classes"),
        (b"file,label\n999.png,cat\n", "tells the class of no picture"),
    ],
)
def test_a_table_that_was_named_and_tells_nothing_is_refused(tmp_path, content, said):
    pictures(tmp_path / "p", 1)
    if content is not None:
        (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(PictureError, match=said):
        manifest(tmp_path / "p", tmp_path / "t.csv")


def test_a_table_of_the_folder_that_cannot_be_read_is_refused(tmp_path):
    pictures(tmp_path, 1)
    (tmp_path / "labels.csv").write_bytes(b"file,label\n000.png,f\xe9e\n")
    with pytest.raises(PictureError, match=r"labels\.csv' is no table of classes"):
        manifest(tmp_path)


def test_an_empty_folder_and_one_of_other_files_hold_no_picture(tmp_path):
    for name in ("empty", "other"):
        (tmp_path / name).mkdir()
    (tmp_path / "other" / "notes.txt").write_text("no picture")
    (tmp_path / "other" / "inner").mkdir()
    for name in ("empty", "other"):
        with pytest.raises(PictureError, match=f"{name}' holds no picture"):
            manifest(tmp_path / name)


def test_a_folder_that_is_missing_and_a_file_are_no_folder(tmp_path):
    picture(tmp_path / "a.png", 0)
    for name in ("missing", "a.png"):
        with pytest.raises(PictureError, match="there is no folder"):
            manifest(tmp_path / name)


@pytest.mark.skipif(os.geteuid() == 0, reason="everything can be read by root")
def test_a_picture_that_may_not_be_read_is_named(tmp_path):
    picture(tmp_path / "a.png", 0)
    (tmp_path / "a.png").chmod(0)
    with pytest.raises(PictureError, match=r"a\.png' cannot be read \(Permission denied\)"):
        manifest(tmp_path)


def test_a_name_that_is_no_text_is_kept(tmp_path):
    picture(tmp_path / "a.png", 0)
    os.rename(tmp_path / "a.png", os.fsencode(tmp_path) + b"/\xff.png")
    (entry,) = manifest(tmp_path)
    assert entry.name == "\udcff.png"
