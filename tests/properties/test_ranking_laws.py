"""The one ranking of places: masks of the same area, in the order of the map, ties in equal parts."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from whence.errors import OptionError
from whence.metrics.ranking import top_share

SHARES = st.floats(0.001, 0.999)
SIDES = st.integers(1, 9)


@st.composite
def heat(draw: st.DrawFn) -> Tensor:
    """Draw maps [B, h, w] of few different values, so that there are ties."""
    shape = (draw(st.integers(1, 3)), draw(SIDES), draw(SIDES))
    values = st.integers(-3, 3) if draw(st.booleans()) else st.floats(-5, 5)
    count = shape[0] * shape[1] * shape[2]
    flat = draw(st.lists(values, min_size=count, max_size=count))
    return torch.tensor(flat, dtype=torch.float64).reshape(shape)


@settings(max_examples=200, deadline=None)
@given(heat=heat(), share=SHARES)
def test_every_mask_has_the_area_that_was_asked_for(heat: Tensor, share: float) -> None:
    mask = top_share(heat, share)
    assert mask.shape == heat.shape
    area = torch.full((len(heat),), share * heat[0].numel(), dtype=torch.float64)
    torch.testing.assert_close(mask.sum((1, 2)), area, rtol=1e-9, atol=1e-9)
    assert mask.min() >= -1e-12
    assert mask.max() <= 1 + 1e-12


@settings(max_examples=200, deadline=None)
@given(heat=heat(), share=SHARES)
def test_higher_places_come_first_and_ties_share_equally(heat: Tensor, share: float) -> None:
    for values, mask in zip(heat.flatten(1), top_share(heat, share).flatten(1), strict=True):
        order = values.argsort(descending=True)
        assert (mask[order].diff() <= 1e-12).all()
        for value in values.unique():
            assert mask[values == value].max() - mask[values == value].min() <= 1e-12
        # Only at one value can a place belong to the share in part.
        assert len(values[(mask > 1e-9) & (mask < 1 - 1e-9)].unique()) <= 1


@settings(max_examples=100, deadline=None)
@given(heat=heat(), share=SHARES, factor=st.sampled_from([0.5, 2.0, 8.0]), shift=st.sampled_from([-4.0, 0.0, 2.0]))
def test_only_the_order_of_the_values_matters(heat: Tensor, share: float, factor: float, shift: float) -> None:
    coarse = (heat * 4).round() / 4  # exact under the scaling below
    assert torch.equal(top_share(coarse * factor + shift, share), top_share(coarse, share))


@settings(max_examples=100, deadline=None)
@given(heat=heat(), small=SHARES, large=SHARES)
def test_a_larger_share_holds_the_smaller_one(heat: Tensor, small: float, large: float) -> None:
    small, large = sorted((small, large))
    assert (top_share(heat, large) - top_share(heat, small)).min() >= -1e-9


@pytest.mark.parametrize("share", [0.1, 0.25, 0.5, 0.999])
def test_a_constant_map_gives_the_same_part_of_every_place(share: float) -> None:
    mask = top_share(torch.full((2, 3, 5), 7.0, dtype=torch.float64), share)
    torch.testing.assert_close(mask, torch.full_like(mask, share))


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, 1.5])
def test_a_share_is_a_part_of_the_area(share: float) -> None:
    with pytest.raises(OptionError, match="between 0 and 1"):
        top_share(torch.zeros(1, 2, 2), share)
