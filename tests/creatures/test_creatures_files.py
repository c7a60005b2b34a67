"""Creatures as files hold what was drawn."""

import csv

import numpy as np
import pytest
from PIL import Image

from whence.creatures import LABELS, NAMES, draw_many, named
from whence.creatures.files import write
from whence.errors import OutputError


@pytest.fixture
def folder(tmp_path):
    write(tmp_path / "out", 6, 11, missing=(0, 1))
    return tmp_path / "out"


def test_pictures_and_parts_are_those_drawn(folder):
    assert sorted(path.name for path in folder.glob("*.png")) == [f"0000{index}.png" for index in range(6)]
    for index, creature in enumerate(draw_many(6, 11, missing=(0, 1))):
        assert np.array_equal(np.asarray(Image.open(folder / f"0000{index}.png")), creature.pixels)
        assert np.array_equal(np.asarray(Image.open(folder / "parts" / f"0000{index}.png")), creature.parts)
        deciding = np.asarray(Image.open(folder / "deciding" / f"0000{index}.png"))
        assert np.array_equal(deciding > 0, np.isin(creature.parts, [4, 5, 6, 7]))
        assert set(np.unique(deciding)) <= {0, 255}


def test_the_table_tells_the_truth(folder):
    with (folder / "creatures.csv").open(newline="") as table:
        rows = list(csv.DictReader(table))
    for row, creature in zip(rows, draw_many(6, 11, missing=(0, 1)), strict=True):
        assert row["label"] == LABELS[creature.label]
        assert {part: row[part] for part in named(creature.label)} == named(creature.label)
        assert tuple(filter(None, row["missing"].split("+"))) == creature.missing
        for name in NAMES[1:9]:
            written = (row[f"{name}_x"], row[f"{name}_y"])
            x, y = creature.centroids.get(name, ("", ""))
            assert written == ((f"{x:.2f}", f"{y:.2f}") if x else ("", ""))


def test_an_empty_folder_is_used_and_a_full_one_refused(tmp_path):
    write(tmp_path, 1, 0)
    with pytest.raises(OutputError, match="no empty folder"):
        write(tmp_path, 1, 0)
    with pytest.raises(OutputError, match="no empty folder"):
        write(tmp_path / "00000.png", 1, 0)


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write into"):
        write(tmp_path / "file" / "out", 1, 0)


def test_the_progress_is_told(tmp_path):
    told = []
    write(tmp_path / "out", 2, 0, progress=lambda done, total: told.append((done, total)))
    assert told == [(1, 2), (2, 2)]
