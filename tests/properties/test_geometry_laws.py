"""The way of a map back onto the picture's own pixels."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from whence.pictures.preprocess import Geometry, PixelRange, Preprocess
from whence.pictures.read import Picture

SIDES = st.integers(4, 40)
SIZES = st.tuples(SIDES, SIDES)


def columns(size: tuple[int, int]) -> Tensor:
    """Return each pixel centre's column, in pixels."""
    return (torch.arange(size[1]) + 0.5).expand(size).double()


def rows(size: tuple[int, int]) -> Tensor:
    return (torch.arange(size[0]) + 0.5)[:, None].expand(size).double()


def inner(size: tuple[int, int], cell: tuple[float, float], box: tuple[float, float, float, float]) -> Tensor:
    """Return which pixel centres lie half a cell or more inside the box: nearer to its edge the map is constant."""
    y, x = rows(size), columns(size)
    top, left, bottom, right = box
    inside_y = (y > min(top, bottom) + cell[0] / 2) & (y < max(top, bottom) - cell[0] / 2)
    return inside_y & (x > min(left, right) + cell[1] / 2) & (x < max(left, right) - cell[1] / 2)


@settings(max_examples=100, deadline=None)
@given(size=SIZES, grid=SIZES, box=st.tuples(*[st.floats(-10, 50)] * 4))
def test_a_map_of_positions_comes_back_as_positions(
    size: tuple[int, int], grid: tuple[int, int], box: tuple[float, float, float, float]
) -> None:
    """Each cell holds its centre's row (or column) on the picture: laid onto the picture it is each pixel's own."""
    top, left, bottom, right = box
    if abs(bottom - top) < 2 or abs(right - left) < 2:
        return
    geometry = Geometry(size, grid, box)
    cell = ((bottom - top) / grid[0], (right - left) / grid[1])
    where = inner(size, (abs(cell[0]), abs(cell[1])), box)
    laid_y = geometry.to_picture(top + rows(grid) * cell[0])
    laid_x = geometry.to_picture(left + columns(grid) * cell[1])
    torch.testing.assert_close(laid_y[where], rows(size)[where], rtol=0, atol=1e-4)
    torch.testing.assert_close(laid_x[where], columns(size)[where], rtol=0, atol=1e-4)


@settings(max_examples=100, deadline=None)
@given(size=SIZES, grid=SIZES, value=st.floats(-3, 3))
def test_a_constant_map_is_constant_where_the_model_saw_and_zero_elsewhere(
    size: tuple[int, int], grid: tuple[int, int], value: float
) -> None:
    geometry = Geometry(size, grid, (size[0] / 4, 0.0, float(size[0]), size[1] / 2))
    laid = geometry.to_picture(torch.full(grid, value, dtype=torch.float64))
    expected = torch.where(geometry.seen, torch.tensor(value, dtype=torch.float64), 0.0)
    torch.testing.assert_close(laid, expected, rtol=1e-12, atol=1e-12)
    y, x = rows(size), columns(size)
    assert torch.equal(geometry.seen, (y >= size[0] / 4) & (x <= size[1] / 2))


@settings(max_examples=50, deadline=None)
@given(size=SIZES)
def test_a_grid_that_is_the_picture_changes_nothing(size: tuple[int, int]) -> None:
    values = torch.randn(size, generator=torch.Generator().manual_seed(0)).double()
    geometry = Geometry(size, size, (0.0, 0.0, *map(float, size)))
    assert bool(geometry.seen.all())
    torch.testing.assert_close(geometry.to_picture(values), values, rtol=0, atol=1e-4)


@settings(max_examples=50, deadline=None)
@given(size=SIZES)
def test_a_box_that_runs_backwards_mirrors(size: tuple[int, int]) -> None:
    values = torch.randn(size, generator=torch.Generator().manual_seed(0)).double()
    geometry = Geometry(size, size, (0.0, float(size[1]), float(size[0]), 0.0))
    assert bool(geometry.seen.all())
    torch.testing.assert_close(geometry.to_picture(values), values.flip(1), rtol=0, atol=1e-4)


@settings(max_examples=60, deadline=None)
@given(size=SIZES, resize=st.integers(4, 40), crop=st.integers(4, 48))
def test_the_geometry_of_resize_and_crop_says_where_each_cell_comes_from(
    size: tuple[int, int], resize: int, crop: int
) -> None:
    """A picture whose brightness is the column goes in: what a cell holds is its column on the picture."""
    ramp = (columns(size) / size[1]).float()[None].expand(3, -1, -1).contiguous()
    prepared = Preprocess(resize=resize, crop=crop, antialias=False)(Picture("ramp", ramp, "", ()))
    geometry = prepared.geometry
    assert geometry is not None
    assert geometry.grid == (crop, crop)
    top, left, bottom, right = geometry.box
    expected = left + columns(geometry.grid) * (right - left) / crop
    half = size[1] / (resize * size[1] // min(size)) / 2 + 1
    # Away from the picture's edges, where a resize has nothing to interpolate with.
    where = (
        (expected > half) & (expected < size[1] - half) & (rows(geometry.grid) * (bottom - top) / crop + top > half)
    )
    where &= rows(geometry.grid) * (bottom - top) / crop + top < size[0] - half
    found = prepared.input[0].double() * size[1]
    torch.testing.assert_close(found[where], expected[where], rtol=0, atol=1e-3)


@settings(max_examples=50, deadline=None)
@given(
    mean=st.tuples(*[st.floats(0, 1)] * 3),
    std=st.tuples(*[st.floats(0.05, 2)] * 3),
    size=SIZES,
)
def test_pixels_are_normalised_and_come_back(
    mean: tuple[float, ...], std: tuple[float, ...], size: tuple[int, int]
) -> None:
    pixels = torch.rand(3, *size, generator=torch.Generator().manual_seed(0)).double()
    known: PixelRange = Preprocess(mean=mean, std=std).pixels
    normalised = known.to_input(pixels)
    expected = (pixels - torch.tensor(mean).reshape(3, 1, 1)) / torch.tensor(std).reshape(3, 1, 1)
    torch.testing.assert_close(normalised, expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(known.to_pixels(normalised), pixels, rtol=0, atol=1e-9)
