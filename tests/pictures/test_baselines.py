"""The table of baselines, each against its definition on pixels."""

import pytest
import torch
import torch.nn.functional as F

from whence.errors import OptionError, UnknownNameError
from whence.pictures.baselines import BASELINES, make_baseline
from whence.pictures.preprocess import Preprocess

RANGE = Preprocess(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)).pixels
UNIT = torch.rand(2, 3, 24, 32, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
X = RANGE.to_input(UNIT)


def pixels_of(name, **options):
    return RANGE.to_pixels(make_baseline(name, X, RANGE, **options))


def test_the_names_are_the_contract():
    assert list(BASELINES) == ["zeros", "black", "max-distance", "blurred", "uniform", "gaussian"]


def test_zeros_are_the_zero_of_the_input():
    assert (make_baseline("zeros", X, None) == 0).all()


def test_black_is_black():
    assert pixels_of("black").abs().max() < 1e-12


def test_max_distance_is_the_farthest_valid_value():
    far = pixels_of("max-distance")[0]
    assert (((far - 0).abs() < 1e-12) | ((far - 1).abs() < 1e-12)).all()
    assert ((far - UNIT).abs() >= 0.5 - 1e-12).all()


def test_blurred_equals_a_dense_convolution():
    sigma, radius = 2.0, 6
    at = torch.arange(-radius, radius + 1, dtype=torch.float64)
    line = torch.exp(-(at**2) / (2 * sigma**2))
    kernel = torch.outer(line, line) / line.sum() ** 2
    padded = F.pad(UNIT, (radius,) * 4, mode="reflect")
    dense = F.conv2d(padded, kernel.expand(3, 1, -1, -1), groups=3)
    assert torch.allclose(pixels_of("blurred", sigma=sigma)[0], dense, atol=1e-6)


def test_the_default_blur_is_51_wide_with_sigma_50_at_224():
    spot = torch.zeros(1, 1, 224, 224, dtype=torch.float64)
    spot[..., 112, 112] = 1
    blurred = make_baseline("blurred", spot, None)[0, 0, 0]
    row = blurred.sum(0)
    assert int((row > 0).sum()) == 51
    assert torch.isclose(row[112 + 25] / row[112], torch.exp(torch.tensor(-0.125)).double(), atol=1e-6)


@pytest.mark.parametrize("side", [1, 2, 5, 40])
def test_blur_fits_pictures_of_any_size(side):
    constant = torch.full((1, 3, side, side), 0.25)
    assert torch.allclose(make_baseline("blurred", constant, None)[0], constant)


def test_uniform_is_in_the_range_and_the_same_for_every_picture():
    noise = pixels_of("uniform", draws=40)
    assert noise.shape[0] == 40
    assert noise.min() > -1e-6
    assert noise.max() < 1 + 1e-6
    assert torch.equal(noise[:, 0], noise[:, 1])
    assert abs(noise.mean() - 0.5) < 0.01


def test_gaussian_is_centred_on_the_picture_and_clipped():
    noise = pixels_of("gaussian", sigma=0.05, draws=400)
    inner = (UNIT > 0.25) & (UNIT < 0.75)
    assert (noise.mean(0) - UNIT)[inner].abs().max() < 0.02
    assert pixels_of("gaussian", sigma=3.0).min() > -1e-6


@pytest.mark.parametrize("name", [name for name, row in BASELINES.items() if row.random])
def test_random_ones_follow_their_seed_and_nothing_else(name):
    state = torch.get_rng_state()
    first, again, other = (make_baseline(name, X, RANGE, seed=seed) for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("name", [name for name, row in BASELINES.items() if not row.random])
def test_the_others_are_one_draw(name):
    assert make_baseline(name, X, RANGE, draws=5).shape == (1, *X.shape)


@pytest.mark.parametrize("name", BASELINES)
def test_a_batch_gives_what_single_pictures_give(name):
    whole = make_baseline(name, X, RANGE)
    single = make_baseline(name, X[1:], RANGE)
    assert torch.equal(whole[:, 1:], single)


def test_unknown_and_unknowable_are_refused():
    with pytest.raises(UnknownNameError, match="blurred"):
        make_baseline("blured", X, RANGE)
    with pytest.raises(OptionError, match="preprocess"):
        make_baseline("black", X, None)
