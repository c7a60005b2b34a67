import numpy as np
import pytest

from report_samples import photograph
from whence.errors import OutputError
from whence.reports.overlay import cut_to_input, hatched, lay, on_grid, placed

# The picture is 40 x 60 and the grid 20 x 20; a box for each kind of preprocessing.
BOXES = {
    "crop": (10, 20, 30, 40),
    "resize": (0, 0, 40, 60),
    "resize and crop": (0, 10, 40, 50),
    "padding": (-10, 0, 50, 60),
    "flip": (0, 50, 40, 10),
    "upside down": (40, 10, 0, 50),
}


def _row(box, picture=(40, 60), grid=(20, 20)):
    return {"picture": list(picture), "grid": list(grid), "box": list(box)}


def _laid(box, cell, shown=(40, 60)):
    heat = np.zeros((20, 20), np.float32)
    heat[cell] = 1
    return lay(photograph(*shown), heat, "positive", placed(_row(box), shown))


def _brightest(laid):
    light = laid.layer[..., :3].astype(int).sum(2) * (laid.layer[..., 3] > 0)
    return np.argwhere(light == light.max()).mean(0) + 0.5


@pytest.mark.parametrize("factor", [1, 2, 0.5])
@pytest.mark.parametrize("cell", [(10, 10), (8, 13)])
@pytest.mark.parametrize("box", BOXES.values(), ids=BOXES)
def test_a_hot_cell_lies_on_its_pixels_at_any_shown_size(box, cell, factor):
    top, left, bottom, right = box
    y, x = (cell[0] + 0.5) / 20, (cell[1] + 0.5) / 20
    expected = np.array([top + y * (bottom - top), left + x * (right - left)]) * factor
    shown = (int(40 * factor), int(60 * factor))
    cell_size = np.abs([bottom - top, right - left]) / 20 * factor
    assert (np.abs(_brightest(_laid(box, cell, shown)) - expected) <= np.maximum(0.5 * cell_size, 0.75)).all()


def test_what_the_model_did_not_see_is_hatched_and_has_no_heat():
    laid = _laid(BOXES["crop"], (10, 10))
    unseen = np.ones((40, 60), bool)
    unseen[10:30, 20:40] = False
    picture = photograph(40, 60)
    assert not laid.whole
    assert ((laid.layer[..., 3] == 0) == unseen).all()
    assert (laid.base[~unseen] == picture[~unseen]).all()
    assert (laid.base[unseen] != picture[unseen]).any(-1).mean() > 0.9
    assert (laid.blended()[unseen] == laid.base[unseen]).all()


def test_the_whole_picture_seen_is_left_as_it_is():
    laid = _laid(BOXES["padding"], (10, 10))
    assert laid.whole
    assert (laid.base == photograph(40, 60)).all()


def test_opacity_goes_from_the_picture_to_the_heat_map():
    laid = _laid(BOXES["resize"], (3, 3))
    assert (laid.blended(0.0) == laid.base).all()
    assert (laid.blended(1.0) == laid.layer[..., :3]).all()


def test_without_a_geometry_the_picture_is_what_the_model_saw():
    place = placed(None, (20, 30))
    heat = np.random.default_rng(0).random((20, 30), np.float32)
    laid = lay(photograph(20, 30), heat, "positive", place)
    assert laid.whole
    assert (laid.heat == laid.layer[..., :3]).all()
    assert (cut_to_input(photograph(20, 30), place) == photograph(20, 30)).all()


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ((10, 20, 30, 40), lambda p: p[10:30, 20:40]),
        ((10, 40, 30, 20), lambda p: p[10:30, 20:40][:, ::-1]),
        ((30, 20, 10, 40), lambda p: p[10:30, 20:40][::-1]),
        ((-5, 0, 15, 20), lambda p: np.pad(p[:15, :20], ((5, 0), (0, 0), (0, 0)))),
    ],
)
def test_what_the_model_saw_is_cut_from_the_picture(box, expected):
    picture = photograph(40, 60)
    assert (cut_to_input(picture, placed(_row(box), (40, 60))) == expected(picture)).all()


def test_channels_are_reduced_before_they_are_spread():
    values = np.stack([np.full((2, 2), 3.0), np.full((2, 2), -5.0)]).astype(np.float32)
    assert on_grid(values, "sum", (4, 4)).tolist() == np.full((4, 4), -2).tolist()
    assert on_grid(values, "abs-sum", (4, 4)).tolist() == np.full((4, 4), 8).tolist()
    assert on_grid(values[0], "abs-max", (2, 2)).tolist() == np.full((2, 2), 3).tolist()


def test_a_box_without_area_is_refused():
    with pytest.raises(OutputError, match="no area"):
        placed(_row((5, 5, 5, 9)), (40, 60))


@pytest.mark.parametrize("shape", [(1, 1), (3, 500), (500, 3)])
def test_pictures_of_any_shape(shape):
    place = placed(_row((0, 0, *shape), picture=shape), shape)
    laid = lay(photograph(*shape), np.ones((20, 20), np.float32), "positive", place)
    assert laid.blended().shape == (*shape, 3)
    assert cut_to_input(photograph(*shape), place).shape == (20, 20, 3)


def test_hatching_keeps_the_picture_recognisable():
    picture = photograph(200, 200)
    dim = hatched(picture, np.ones((200, 200), bool))
    assert np.corrcoef(picture.mean(2).ravel(), dim.mean(2).ravel())[0, 1] > 0.3
