import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from whence.graphs.patches import PatchGrid, bits, members, patches_of

STYLES = ("tents", "centred", "boxes")


@given(st.sets(st.integers(0, 400)))
def test_a_set_is_its_bits(patches):
    assert patches_of(bits(patches)) == tuple(members(bits(patches))) == tuple(sorted(patches))
    assert bits(patches) == sum(2**patch for patch in patches)


def _height(style, patch, side, place, length):
    """How much of a row of pixels a row of patches shows, one at a time."""
    if style == "boxes":
        return float(int((place + 0.5) * side / length) == patch)
    if style == "tents":
        return max(0.0, 1 - abs(place * (side - 1) / (length - 1) - patch))
    across = min(max((place + 0.5) * side / length - 0.5, 0.0), side - 1)
    return max(0.0, 1 - abs(across - patch))


@pytest.mark.parametrize("style", STYLES)
def test_masks_are_what_loops_give(style):
    grid, shown = PatchGrid(3, (9, 14), style), (1, 5, 6)
    got = grid.masks([bits(shown), 0], torch.zeros((), dtype=torch.float64))
    assert got.shape == (2, 1, 9, 14)
    assert not got[1].any()
    for y in range(9):
        for x in range(14):
            held = (_height(style, p // 3, 3, y, 9) * _height(style, p % 3, 3, x, 14) for p in shown)
            assert got[0, 0, y, x].item() == pytest.approx(sum(held), abs=1e-12)


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("side", [1, 2, 7])
def test_all_patches_show_everything(style, side):
    grid = PatchGrid(side, (15, 22), style)
    assert grid.whole == bits(range(grid.count))
    shown = grid.masks([grid.whole], torch.zeros((), dtype=torch.float64))
    torch.testing.assert_close(shown, torch.ones(1, 1, 15, 22, dtype=torch.float64), atol=1e-12, rtol=0)


def test_masks_are_of_the_kind_that_is_asked_for():
    assert PatchGrid(2, (4, 4)).masks([1], torch.zeros(3, dtype=torch.float16)).dtype == torch.float16


@pytest.mark.parametrize("style", STYLES)
def test_a_patch_shows_most_between_its_edges(style):
    """Where a patch shows more than any other, between its edges, and nowhere else."""
    grid = PatchGrid(4, (200, 120), style)
    one = grid.masks([bits((4 * row,)) for row in range(4)], torch.zeros((), dtype=torch.float64))[:, 0, :, 0]
    edges = grid.edges(0)
    assert len(edges) == 5
    assert edges[0] == 0
    assert edges[-1] == 1
    for y in range(200):
        place = (y + 0.5) / 200
        row = one[:, y].argmax().item()
        assert edges[row] - 1e-9 <= place <= edges[row + 1] + 1e-9


def test_outer_tents_are_half_as_wide():
    edges = PatchGrid(7, (224, 224)).edges(1)
    assert edges[1] * 224 == pytest.approx(223 / 12 + 0.5)
    assert (edges[2] - edges[1]) * 224 == pytest.approx(223 / 6)
