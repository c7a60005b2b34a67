"""Which files of a folder are pictures."""

import os

import pytest

from whence.errors import PictureError
from whence.pictures.files import is_picture, names_below, names_in, pictures_in


def files(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")


def test_pictures_are_told_by_their_names(tmp_path):
    yes = ["a.png", "B.JPEG", "c.d.Tiff", "e.jxl", "f .pgm"]
    no = [".g.png", "png", "h.txt", "i.png.part", "j.csv", "k"]
    files(tmp_path, *yes, *no)
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "nowhere.png").symlink_to(tmp_path / "missing.png")
    assert {path.name for path in tmp_path.iterdir() if is_picture(path)} == set(yes)
    assert names_in(tmp_path) == sorted(yes)
    assert pictures_in(tmp_path) == [tmp_path / name for name in sorted(yes)]
    assert not is_picture(tmp_path / "missing.png")


def test_a_folder_without_pictures_is_refused(tmp_path):
    files(tmp_path, "a.txt", "below/b.png")
    assert names_in(tmp_path) == []
    with pytest.raises(PictureError, match="holds no picture"):
        pictures_in(tmp_path)


def test_names_below_are_in_order_and_leave_out_what_is_hidden(tmp_path):
    files(tmp_path, "b/1.png", "a/2.png", "a/c/3.png", "a-b/4.png", "0.png", ".x/5.png", "a/.y/6.png", "a/n.txt")
    assert names_below(tmp_path) == ["0.png", "a-b/4.png", "a/2.png", "a/c/3.png", "b/1.png"]


def test_linked_folders_are_followed_and_no_circle_is(tmp_path):
    files(tmp_path, "own/a/1.png", "elsewhere/2.png")
    (tmp_path / "own" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "own" / "a" / "back").symlink_to(tmp_path / "own")
    (tmp_path / "own" / "a" / "self").symlink_to(tmp_path / "own" / "a")
    (tmp_path / "elsewhere" / "up").symlink_to(tmp_path / "elsewhere")
    assert names_below(tmp_path / "own") == ["a/1.png", "linked/2.png"]


@pytest.mark.skipif(os.geteuid() == 0, reason="everything can be read by root")
def test_a_folder_that_may_not_be_read_is_never_left_out_in_silence(tmp_path):
    files(tmp_path, "a/1.png", "b/2.png")
    (tmp_path / "b").chmod(0)
    try:
        with pytest.raises(PictureError, match=r"b' cannot be read \(Permission denied\)"):
            names_below(tmp_path)
        with pytest.raises(PictureError, match=r"b' cannot be read \(Permission denied\)"):
            names_in(tmp_path / "b")
    finally:
        (tmp_path / "b").chmod(0o700)


def test_a_folder_that_is_not_there_is_refused(tmp_path):
    for names in (names_in, names_below):
        with pytest.raises(PictureError, match=r"gone' cannot be read \(No such file or directory\)"):
            names(tmp_path / "gone")
