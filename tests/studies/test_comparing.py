"""How far maps are apart: closed forms, loops written out, and means over pictures."""

from math import isnan

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr

from whence.studies.comparing import compared
from whence.studies.comparing.measures import coarse, moved, others, rank_correlation, shares


def maps(count, height=4, width=5, seed=0):
    return torch.randn(count, height, width, generator=torch.Generator().manual_seed(seed)).double()


def tied(count, seed=0):
    return maps(count, seed=seed).mul(2).round()


def chunks(a, b, size=3):
    return zip(a.split(size), b.split(size), strict=True)


def distance(a, b):
    return moved(shares(a), shares(b))


NO_CLASS = torch.full((7,), -1)


def test_moved_is_a_loop_over_places():
    a, b = maps(6), maps(6, seed=1)
    for one, other, found in zip(a.tolist(), b.tolist(), distance(a, b).tolist(), strict=True):
        p, q = ([max(0.0, value) for row in heat for value in row] for heat in (one, other))
        expected = sum(abs(x / sum(p) - y / sum(q)) for x, y in zip(p, q, strict=True)) / 2
        assert found == pytest.approx(expected)


def test_equal_maps_have_not_moved_and_disjoint_ones_wholly():
    a = maps(5)
    assert distance(a, a).tolist() == [0] * 5
    assert distance(a, 3 * a).tolist() == pytest.approx([0] * 5)
    assert distance(a, -a).tolist() == pytest.approx([1] * 5)


def test_half_of_a_map_moved_is_a_half():
    a, b = torch.tensor([[[4.0, 4.0, 0.0]]]), torch.tensor([[[0.0, 1.0, 1.0]]])
    assert distance(a, b).tolist() == [0.5]


@given(st.integers(0, 10**6))
def test_moved_is_a_metric_between_0_and_1(seed):
    a, b, c = (maps(4, seed=seed + i) for i in range(3))
    ab, bc, ac = distance(a, b), distance(b, c), distance(a, c)
    assert ((ab >= 0) & (ab <= 1 + 1e-12)).all()
    assert torch.equal(ab, distance(b, a))
    assert (ac <= ab + bc + 1e-12).all()


def test_a_map_without_a_positive_part_has_not_moved_anywhere():
    a = maps(3)
    a[1] = -1.0
    assert distance(a, maps(3, seed=1)).isnan().tolist() == [False, True, False]


@pytest.mark.parametrize("make", [maps, tied])
def test_rank_correlation_is_that_of_scipy(make):
    a, b = make(5), make(5, seed=1)
    expected = [spearmanr(x.flatten(), y.flatten()).statistic for x, y in zip(a, b, strict=True)]
    assert rank_correlation(a, b).tolist() == pytest.approx(expected)


def test_rank_correlation_of_the_same_order_is_1():
    a = maps(4)
    assert rank_correlation(a, a.exp()).tolist() == pytest.approx([1] * 4)
    assert rank_correlation(a, -a).tolist() == pytest.approx([-1] * 4)
    assert rank_correlation(a, torch.full_like(a, 0.1)).isnan().all()


@given(st.integers(2, 40), st.integers(0, 10**6))
def test_every_picture_gets_another(count, seed):
    found = others(count, torch.Generator().manual_seed(seed)).tolist()
    assert sorted(found) == list(range(count))
    assert all(i != other for i, other in enumerate(found))


def test_coarse_shares_keep_their_sum_and_place():
    p = shares(maps(3, 70, 33))
    found = coarse(p)
    assert found.shape == (3, 32, 32)
    assert found.sum((1, 2)).tolist() == pytest.approx([1] * 3)
    # A cell covers 70 / 32 rows and 33 / 32 columns.
    corner = p[0, :2, 0].sum() + p[0, 2, 0] * (70 / 32 - 2)
    corner += (p[0, :2, 1].sum() + p[0, 2, 1] * (70 / 32 - 2)) * (33 / 32 - 1)
    assert float(found[0, 0, 0]) == pytest.approx(float(corner))
    even = shares(maps(2, 64, 8))
    assert torch.allclose(coarse(even), even.reshape(2, 32, 2, 8).sum(2))
    assert torch.allclose(coarse(shares(maps(2))), shares(maps(2)))


@pytest.mark.parametrize("size", [1, 3, 7])
def test_distances_and_means_do_not_depend_on_how_maps_come(size):
    a, b = maps(7), maps(7, seed=1)
    classes = torch.tensor([0, 1, 0, 3, -1, 1, 0])
    found = compared(chunks(a, b, size), classes)
    assert torch.equal(found.distances.moved, distance(a, b))
    assert torch.equal(found.distances.rank, rank_correlation(a, b))
    p, q = shares(a), shares(b)
    assert torch.allclose(found.means.first, p.mean(0))
    assert torch.allclose(found.means.second, q.mean(0))
    assert found.means.net == pytest.approx(float((q - p).mean(0).abs().sum() / 2))
    assert found.gained.shape == (4, 4, 5)
    for k in (0, 1, 3):
        assert torch.allclose(found.gained[k], (q - p)[classes == k].mean(0))
    assert found.gained[2].isnan().all()


def test_pictures_without_a_positive_part_are_in_no_mean():
    a, b = maps(7), maps(7, seed=1)
    b[2] = -b[2].abs()
    classes = torch.tensor([0, 0, 1, 0, 0, 0, 0])
    found = compared(chunks(a, b), classes)
    rest = torch.arange(7) != 2
    assert isnan(found.distances.moved[2])
    assert found.means.count == 6
    assert torch.allclose(found.means.second, shares(b)[rest].mean(0))
    assert found.gained[1].isnan().all()
    assert compared(chunks(a, -b.abs()), NO_CLASS).means is None


def test_equal_models_have_moved_nothing():
    a = maps(7)
    found = compared(chunks(a, a), NO_CLASS)
    assert found.distances.moved.tolist() == [0] * 7
    assert found.distances.rank.tolist() == pytest.approx([1] * 7)
    assert (found.means.net, found.means.chance) == (0, 0)


def test_anchors_are_between_different_pictures_of_one_model():
    a, b = maps(7), maps(7, seed=1)
    found = compared(chunks(a, b), NO_CLASS)
    for own, anchor in zip((a, b), found.anchors, strict=True):
        each = {round(float(distance(own[i : i + 1], own[j : j + 1])), 9) for i in range(7) for j in range(i)}
        assert len(anchor.moved) == 7
        assert {round(value, 9) for value in anchor.moved.tolist()} <= each
        assert (anchor.moved > 0).all()
    again = compared(chunks(a, b), NO_CLASS)
    assert torch.equal(found.anchors[0].moved, again.anchors[0].moved)
    other = compared(chunks(a, b), NO_CLASS, seed=1)
    assert not torch.equal(found.anchors[0].moved, other.anchors[0].moved)


def test_pictures_that_are_alike_have_an_anchor_of_0():
    one = maps(1).repeat(7, 1, 1)
    found = compared(chunks(one, maps(7)), NO_CLASS)
    assert found.anchors[0].moved.tolist() == [0] * 7
    assert found.anchors[1].moved.min() > 0


def test_a_single_picture_has_no_anchor_and_moves_by_chance():
    found = compared(chunks(maps(1), maps(1, seed=1)), NO_CLASS[:1])
    assert len(found.anchors[0].moved) == 0
    assert found.means.net == pytest.approx(found.means.chance)


def test_the_maps_of_a_sample_are_held(monkeypatch):
    monkeypatch.setattr("whence.studies.comparing.averaging._HELD", 3)
    a, b = maps(7), maps(7, seed=1)
    found = compared(chunks(a, b), NO_CLASS)
    assert len(found.anchors[0].moved) == len(found.anchors[1].rank) == 3
    assert len(found.distances.moved) == 7


def test_a_rule_is_told_from_chance():
    count = 60
    noise, more = maps(count, 8, 8).abs(), maps(count, 8, 8, seed=1).abs()
    none = torch.full((count,), -1)
    by_chance = compared(chunks(noise, more), none).means
    assert by_chance.net < 1.3 * by_chance.chance
    more[:, 0, 0] += 5
    ruled = compared(chunks(noise, more), none).means
    assert ruled.net > 1.5 * ruled.chance
    assert int((ruled.second - ruled.first).argmax()) == 0
