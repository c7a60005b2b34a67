"""The stated preprocessing equals Pillow's, and its geometry leads every map back to where it belongs."""

import numpy as np
import pytest
import torch
from PIL import Image

from whence.errors import ModelError, PictureError
from whence.pictures.preprocess import Geometry, PixelRange, Preprocess, as_seen
from whence.pictures.read import read


def photo(height, width, seed=0):
    """A colour picture with smooth parts and edges."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8))
    pixels = np.array(coarse.resize((width, height), Image.Resampling.BICUBIC))
    pixels[height // 3 : height // 2, width // 4 : width // 2] = (
        255 - pixels[height // 3 : height // 2, width // 4 : width // 2]
    )
    return pixels


@pytest.mark.parametrize("size", [(100, 150), (150, 100), (64, 64), (300, 77), (33, 40)])
@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
def test_resize_and_crop_equal_pillow_to_one_level(size, mode):
    pixels = photo(*size)
    ours = Preprocess(resize=48, crop=40, interpolation=mode)(read(pixels)).input * 255
    h, w = size
    shorter = min(h, w)
    resized = Image.fromarray(pixels).resize(
        (48 * w // shorter, 48 * h // shorter), getattr(Image.Resampling, mode.upper())
    )
    top, left = round((resized.height - 40) / 2), round((resized.width - 40) / 2)
    theirs = np.asarray(resized.crop((left, top, left + 40, top + 40))).astype(np.float32)
    assert np.abs(ours.permute(1, 2, 0).numpy() - theirs).max() <= 1.001


def test_normalises_by_mean_and_std():
    white = np.full((8, 8, 3), 255, np.uint8)
    out = Preprocess(mean=(0.5, 0.4, 0.3), std=(0.5, 0.2, 0.1))(read(white)).input
    assert torch.allclose(out[:, 0, 0], torch.tensor([1.0, 3.0, 7.0]), atol=1e-6)


def test_pixel_range_goes_there_and_back():
    pixels = Preprocess(mean=(0.5, 0.4, 0.3), std=(0.5, 0.2, 0.1)).pixels
    unit = torch.rand(2, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(pixels.to_pixels(pixels.to_input(unit)), unit, atol=1e-6)


@pytest.mark.parametrize(
    "preprocess",
    [
        Preprocess(resize=64, crop=48),
        Preprocess(resize=(48, 48)),
        Preprocess(crop=60),
        Preprocess(resize=40, crop=56),
        Preprocess(),
    ],
    ids=["resize and crop", "squashed", "crop alone", "padded", "as it is"],
)
@pytest.mark.parametrize("spot", [(30, 40), (50, 60), (45, 25)])
def test_a_bright_spot_comes_back_where_it_was(preprocess, spot):
    pixels = np.zeros((90, 110, 3), np.uint8)
    pixels[spot[0] - 2 : spot[0] + 3, spot[1] - 2 : spot[1] + 3] = 255
    prepared = preprocess(read(pixels))
    back = prepared.geometry.to_picture(prepared.input.mean(0))
    peak = np.unravel_index(int(back.argmax()), back.shape)
    scale = max(1.0, 90 / prepared.input.shape[1])
    assert abs(peak[0] - spot[0]) <= 2 + scale
    assert abs(peak[1] - spot[1]) <= 2 + scale


def test_what_was_cropped_away_is_not_seen():
    geometry = Preprocess(resize=50, crop=50)(read(photo(50, 100))).geometry
    assert geometry.seen.shape == (50, 100)
    assert geometry.seen[:, 25:75].all()
    assert not geometry.seen[:, :25].any()
    assert not geometry.seen[:, 75:].any()
    assert (geometry.to_picture(torch.ones(50, 50)) == geometry.seen).all()


def test_a_picture_smaller_than_the_crop_is_padded_with_black_and_wholly_seen():
    prepared = Preprocess(crop=30)(read(np.full((10, 20, 3), 255, np.uint8)))
    assert prepared.input.shape == (3, 30, 30)
    assert prepared.input.sum() == 3 * 10 * 20
    assert prepared.geometry.seen.all()


def test_a_flip_in_the_geometry_is_undone():
    flipped = Geometry((4, 4), (4, 4), (0.0, 4.0, 4.0, 0.0))
    heat = torch.arange(16.0).reshape(4, 4)
    assert torch.allclose(flipped.to_picture(heat), heat.flip(1))


def test_grey_becomes_three_channels_and_colour_becomes_one():
    grey = read(np.full((8, 8), 51, np.uint8))
    assert torch.allclose(Preprocess()(grey).input, torch.full((3, 8, 8), 0.2))
    red = np.zeros((8, 8, 3), np.uint8)
    red[..., 0] = 255
    assert torch.allclose(Preprocess(channels=1)(read(red)).input, torch.full((1, 8, 8), 0.299), atol=1e-6)


def test_a_model_of_four_channels_takes_tensors_only():
    with pytest.raises(PictureError, match="4 channels"):
        Preprocess(channels=4)(read(photo(8, 8)))


def test_sixteen_bits_survive_the_preprocessing():
    deep = np.arange(64, dtype=np.uint16).reshape(8, 8) + 40000
    levels = Preprocess(channels=1)(read(deep, bits=16)).input.unique()
    assert len(levels) == 64


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"resize": 0}, "no size"),
        ({"interpolation": "cubic"}, "bilinear"),
        ({"mean": (0.1, 0.2)}, "2 values for 3 channels"),
        ({"std": (0.0,)}, "positive"),
        ({"std": (float("nan"),)}, "positive"),
        ({"mean": (float("inf"),)}, "finite"),
        ({"channels": 0}, "channels"),
    ],
)
def test_refuses_what_no_model_can_state(wrong, said):
    with pytest.raises(ModelError, match=said):
        Preprocess(**wrong)


def test_as_seen_undoes_the_normalisation():
    pixels = photo(20, 20)
    preprocess = Preprocess(mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4))
    assert (as_seen(preprocess(read(pixels)).input, preprocess.pixels) == pixels).all()


def test_as_seen_without_a_range_stretches_and_survives_a_constant():
    assert as_seen(torch.linspace(-3, 5, 12).reshape(1, 3, 4), None).max() == 255
    assert as_seen(torch.full((3, 2, 2), 7.0), None).max() == 0


def test_pixel_range_of_one_channel():
    one = PixelRange(torch.tensor([-1.0]), torch.tensor([1.0]))
    assert one.to_pixels(torch.zeros(2, 1, 3, 3)).unique().item() == 0.5


@pytest.mark.parametrize("box", [(3.0, 8.0, 43.0, 58.0), (43.0, 58.0, 3.0, 8.0)], ids=["cropped", "turned"])
def test_a_map_comes_back_to_the_grid_that_it_was_laid_from(box):
    """A plane is what bilinear interpolation keeps exactly, away from the edges where it is constant."""
    geometry = Geometry((50, 70), (10, 15), box)
    y, x = torch.meshgrid(torch.arange(10.0).double(), torch.arange(15.0).double(), indexing="ij")
    plane = 3 * y - 2 * x + 1
    back = geometry.to_grid(geometry.to_picture(plane))
    torch.testing.assert_close(back[1:-1, 1:-1], plane[1:-1, 1:-1], rtol=0, atol=1e-4)


def test_each_cell_takes_the_pictures_value_at_its_middle():
    picture = torch.arange(6.0)[:, None] * 10 + torch.arange(8.0)
    # Cells of 2 x 2 pixels: the mean of the four around the middle.
    laid = Geometry((6, 8), (3, 4), (0.0, 0.0, 6.0, 8.0)).to_grid(picture)
    assert torch.allclose(laid, torch.arange(3.0)[:, None] * 20 + torch.arange(4.0) * 2 + 5.5, atol=1e-4)
    assert torch.allclose(Geometry((6, 8), (6, 8), (0.0, 0.0, 6.0, 8.0)).to_grid(picture), picture, atol=1e-4)


def test_a_grid_that_leaves_the_picture_holds_zero_there():
    laid = Geometry((4, 4), (8, 8), (-2.0, -2.0, 6.0, 6.0)).to_grid(torch.ones(4, 4))
    expected = torch.zeros(8, 8)
    expected[2:6, 2:6] = 1
    assert (laid == expected).all()


def test_a_grid_that_runs_backwards_mirrors_the_picture():
    picture = torch.arange(16.0).reshape(4, 4)
    laid = Geometry((4, 4), (4, 4), (0.0, 4.0, 4.0, 0.0)).to_grid(picture)
    assert torch.allclose(laid, picture.flip(1), atol=1e-4)
