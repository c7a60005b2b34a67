import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from whence.reports.colours import Scale, oklab, scale_of, table


def test_the_sequential_map_rises_evenly_in_lightness():
    steps = np.diff(oklab(table("positive"))[:, 0])
    assert steps.min() > 0
    assert steps.max() < 2 * steps.mean()


def test_the_diverging_map_is_symmetric_in_lightness_and_opposite_in_hue():
    lab = oklab(table("all"))
    assert np.abs(lab[:, 0] - lab[::-1, 0]).max() < 0.005
    assert (lab[:64, 2] < 0).all()
    assert (lab[-64:, 2] > 0).all()
    assert np.abs(lab[127:129, 1:]).max() < 0.01


# Machado, Oliveira and Fernandes, "A physiologically-based model for simulation of color vision deficiency", 2009:
# deuteranopia and protanopia, on linear RGB.
DEFICIENT = {
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
}


@pytest.mark.parametrize("eyes", DEFICIENT)
def test_colour_blind_eyes_tell_the_signs_apart(eyes):
    rgb = table("all") / 255
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    seen = np.clip(linear @ np.array(DEFICIENT[eyes]).T, 0, 1)
    unit = np.where(seen <= 0.0031308, seen * 12.92, 1.055 * seen ** (1 / 2.4) - 0.055)
    lab = oklab(np.rint(unit * 255).astype(np.uint8))
    assert np.linalg.norm(lab[:64] - lab[::-1][:64], axis=1).min() > 0.15


def test_positive_maps_are_cut_at_zero_and_reach_to_their_maximum():
    values = np.array([-8.0, 0, 1, 2])
    scale = scale_of(values, "positive")
    assert scale.ticks == (0, 1, 2)
    assert scale.unit(values).tolist() == [0, 0, 0.5, 1]


def test_signed_maps_are_symmetric():
    values = np.array([-4.0, 0, 2])
    scale = scale_of(values, "all")
    assert scale.ticks == (-4, 0, 4)
    assert scale.unit(values).tolist() == [0, 0.5, 0.75]


@pytest.mark.parametrize("sign", ["positive", "all"])
def test_a_zero_map_is_drawn_as_zero(sign):
    values = np.zeros((3, 3))
    scale = scale_of(values, sign)
    assert scale.top == 0
    assert (scale.rgb(values) == Scale(sign, 1.0).rgb(values)).all()


def test_a_map_that_only_speaks_against_is_zero_when_drawn_as_positive():
    values = np.array([-1.0, -2])
    assert scale_of(values, "positive").unit(values).tolist() == [0, 0]


@settings(deadline=None, max_examples=50)
@given(
    values=st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=20),
    sign=st.sampled_from(["positive", "all"]),
)
def test_every_map_has_colours_and_order(values, sign):
    values = np.array(values)
    unit = scale_of(values, sign).unit(values)
    assert ((unit >= 0) & (unit <= 1)).all()
    assert (np.diff(unit[np.argsort(values)]) >= 0).all()
