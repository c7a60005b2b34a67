"""The region of a picture, and the picture without it."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from whence.pictures.preprocess import Geometry, Preprocess
from whence.pictures.read import read
from whence.studies.debugging.regions import area, boxes, filled, masked, masked_picture, moved, on_picture, place


def drawn(seed):
    return torch.Generator().manual_seed(seed)


def picture(*shape, seed=0):
    return torch.rand(*shape, generator=drawn(seed))


def test_a_place_is_where_the_mean_map_lies_and_the_cells_around():
    mean = torch.zeros(8, 8)
    mean[2, 3], mean[2, 4], mean[7, 7] = 1.0, 0.2, 0.05
    wanted = torch.zeros(8, 8, dtype=torch.bool)
    wanted[1:4, 2:6] = True
    assert torch.equal(place(mean), wanted)


def test_a_box_goes_around_the_picture_s_own_cells_in_the_place():
    relevance = torch.zeros(4, 8, 8)
    relevance[0, 2:4, 1] = 0.5
    relevance[1, 2, 3], relevance[1, 3, 4], relevance[1, 2, 5] = 1.0, 0.2, 0.05
    relevance[2, 2, 2], relevance[2, 7, 7] = 0.2, 0.8
    relevance[3, 6, 6] = 1
    within = torch.zeros(8, 8, dtype=torch.bool)
    within[1:6, 0:6] = True
    # Cells of 8 x 16 pixels; the margin is 2 pixels of 64, and 4 of 128.
    assert boxes(relevance, within, (64, 128)).tolist() == [
        [14, 12, 34, 36],
        [14, 44, 34, 84],
        [14, 28, 26, 52],
        [0, 0, 0, 0],
    ]


@given(st.integers(0, 1000), st.sampled_from([(16, 16), (7, 7), (5, 3)]), st.sampled_from([(64, 64), (50, 31)]))
def test_a_box_lies_in_the_input_and_holds_the_middle_of_the_highest_cell(seed, cells, size):
    relevance = picture(3, *cells, seed=seed)
    found = boxes(relevance, torch.ones(cells, dtype=torch.bool), size)
    assert (found[:, :2] >= 0).all()
    assert (found[:, 2:] <= torch.tensor(size)).all()
    for own, (top, left, bottom, right) in zip(relevance, found.tolist(), strict=True):
        row, column = divmod(int(own.argmax()), cells[1])
        assert top <= (row + 0.5) * size[0] / cells[0] <= bottom
        assert left <= (column + 0.5) * size[1] / cells[1] <= right


@given(st.integers(0, 1000))
def test_moved_boxes_are_equal_and_lie_in_the_input(seed):
    first = torch.randint(0, 20, (5, 2), generator=drawn(seed))
    found = torch.cat([first, first + torch.randint(0, 13, (5, 2), generator=drawn(seed + 1))], 1)
    other = moved(found, (32, 40), drawn(seed))
    assert torch.equal(other[:, 2:] - other[:, :2], found[:, 2:] - found[:, :2])
    assert (other[:, :2] >= 0).all()
    assert (other[:, 2:] <= torch.tensor([32, 40])).all()


def test_moved_boxes_come_to_every_place():
    found = torch.tensor([[0, 0, 2, 3]]).expand(300, 4)
    other = moved(found, (4, 4), drawn(0))
    assert {tuple(box[:2]) for box in other.tolist()} == {(i, j) for i in range(3) for j in range(2)}


def test_the_area_is_a_share_of_the_input():
    assert area(torch.tensor([[0, 0, 8, 4], [1, 1, 1, 1]]), (16, 16)).tolist() == [1 / 8, 0]


def test_a_masked_region_has_the_mean_colour_of_the_frame_around_it():
    pixels = picture(3, 32, 48)
    made = masked(pixels, filled(torch.tensor([10, 0, 14, 6]), (32, 48)))
    # The frame is a sixteenth of 32 wide: two pixels.
    for channel in range(3):
        frame = [float(pixels[channel, i, j]) for i in range(8, 16) for j in range(8) if not (10 <= i < 14 and j < 6)]
        inside = made[channel, 10:14, 0:6]
        assert torch.allclose(inside, torch.tensor(sum(frame) / len(frame)))
    there = filled(torch.tensor([10, 0, 14, 6]), (32, 48))
    assert torch.equal(made[:, ~there], pixels[:, ~there])


def test_levels_of_8_bits_stay_levels_and_are_rounded():
    pixels = torch.tensor([[[10, 11, 200], [11, 11, 11]]], dtype=torch.uint8)
    made = masked(pixels, torch.tensor([[False, False, True], [False, False, False]]))
    assert made.dtype == torch.uint8
    # Around it stand 11, 11 and 11; a frame of one pixel.
    assert made.tolist() == [[[10, 11, 11], [11, 11, 11]]]
    assert (
        masked(torch.tensor([[[0, 1, 1, 9]]], dtype=torch.uint8), torch.tensor([[False] * 3 + [True]]))[0, 0, 3] == 1
    )


def test_nothing_to_mask_leaves_all_and_is_a_copy():
    pixels = picture(1, 8, 8)
    made = masked(pixels, torch.zeros(8, 8, dtype=torch.bool))
    assert torch.equal(made, pixels)
    assert made.data_ptr() != pixels.data_ptr()


def test_a_picture_masked_as_a_whole_has_its_mean_colour():
    pixels = picture(1, 8, 8)
    made = masked(pixels, torch.ones(8, 8, dtype=torch.bool))
    assert torch.allclose(made, pixels.mean().expand(1, 8, 8))


def test_normalising_and_masking_may_change_places():
    pixels, region = picture(3, 24, 24), filled(torch.tensor([2, 3, 9, 20]), (24, 24))
    assert torch.allclose(masked(2 * pixels - 1, region), 2 * masked(pixels, region) - 1, atol=1e-6)


def test_a_region_of_the_input_is_laid_on_the_picture_s_own_pixels():
    # The input is the middle of the picture, half as large: its rows 4 to 8 are the picture's 18 to 26.
    geometry = Geometry((60, 40), (20, 20), (10.0, 0.0, 50.0, 40.0))
    wanted = torch.zeros(60, 40, dtype=torch.bool)
    wanted[18:26, 0:12] = True
    assert torch.equal(on_picture(torch.tensor([4, 0, 8, 6]), geometry), wanted)


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_a_picture_s_own_pixels_are_masked_in_their_own_depth(dtype):
    top = 255 if dtype == "uint8" else 65535
    source = (picture(40, 40, seed=3) * top).numpy().astype(dtype)
    seen = read(source, bits=16)
    ready = Preprocess(resize=(20, 20), channels=1)(seen)
    made = masked_picture(seen, torch.tensor([0, 0, 5, 5]), ready.geometry)
    assert made.dtype == seen.pixels.dtype
    assert made[0, :10, :10].unique().numel() == 1
    assert torch.equal(made[0, 10:], seen.pixels[0, 10:])
