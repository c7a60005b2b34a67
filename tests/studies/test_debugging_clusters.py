"""Clusters of maps: what was planted is found, and a cloud is one."""

import pytest
import torch

from whence.errors import OptionError
from whence.studies.debugging.clusters import clustered, eigengap, features, laplacian, neighbours
from whence.studies.debugging.explained import pooled


def drawn(*seed):
    return torch.Generator().manual_seed(*seed)


def planted(each=30, places=((2, 2), (2, 12), (12, 7)), seed=0):
    """Return maps around some places, and which is which, in mixed order."""
    generator = drawn(seed)
    kind = torch.arange(len(places)).repeat_interleave(each)[torch.randperm(each * len(places), generator=generator)]
    grid = torch.stack(torch.meshgrid(torch.arange(16.0), torch.arange(16.0), indexing="ij"), -1)
    middle = torch.tensor(places, dtype=torch.float32)[kind] + 0.5 * torch.randn(len(kind), 2, generator=generator)
    away = (grid - middle[:, None, None]).square().sum(-1)
    return pooled(torch.exp(-away / 4)), kind


def same(a, b):
    """Return whether two numberings part the same things alike."""
    return torch.equal(a[:, None] == a, b[:, None] == b)


def test_three_planted_clusters_are_found_and_their_number():
    relevance, kind = planted()
    made = clustered(relevance)
    assert made.count == 3
    assert same(made.member, kind)


def test_a_uniform_cloud_is_one_cluster():
    relevance = pooled(torch.rand(150, 16, 16, generator=drawn(0)))
    assert clustered(relevance).count == 1


def test_the_number_may_be_asked_for():
    relevance, kind = planted()
    made = clustered(relevance, 2)
    assert made.count == 2
    parts = {int(k): set(made.member[kind == k].tolist()) for k in range(3)}
    assert all(len(part) == 1 for part in parts.values())


def test_the_seed_decides_and_nothing_else():
    relevance, _ = planted()
    state = torch.get_rng_state()
    first, second = clustered(relevance, 5, seed=3), clustered(relevance, 5, seed=3)
    assert torch.equal(first.member, second.member)
    assert torch.equal(state, torch.get_rng_state())


def test_above_the_sample_the_others_go_to_the_nearest():
    relevance, kind = planted(each=40)
    made = clustered(relevance, sample=50)
    assert len(made.points) == 50
    assert same(made.member, kind)


def test_more_parts_than_are_asked_about_give_the_most():
    relevance, _ = planted(each=12, places=((1, 1), (1, 8), (1, 14), (14, 1), (14, 8), (14, 14)))
    assert clustered(relevance, most=4).count == 4
    assert clustered(relevance, most=12).count == 6


def test_maps_that_are_zero_belong_to_no_cluster():
    relevance, kind = planted()
    relevance[5] = relevance[17] = 0
    made = clustered(relevance)
    assert (made.member == -1).nonzero().flatten().tolist() == [5, 17]
    there = made.member >= 0
    assert same(made.member[there], kind[there])


def test_other_maps_go_to_the_nearest_cluster():
    made = clustered(planted()[0])
    others, kind = planted(seed=9)
    nearest = made.nearest(torch.cat([others, torch.zeros(1, 16, 16)]))
    assert same(nearest[:-1], kind)
    assert nearest[-1] == -1
    with pytest.raises(OptionError, match="maps of 64 cells cannot be compared with maps of 256"):
        made.nearest(torch.ones(2, 8, 8))


def test_clusters_under_other_numbers_are_the_same():
    relevance, _ = planted()
    relevance[4] = 0
    made = clustered(relevance)
    other = made.ordered([2, 0, 1])
    for new, old in enumerate([2, 0, 1]):
        assert torch.equal(other.rows(new), made.rows(old))
    assert other.member[4] == -1
    assert torch.equal(other.nearest(relevance), other.member)


def test_distances_are_hellinger():
    a, b = pooled(torch.rand(2, 4, 4, generator=drawn(1)))
    wanted = sum((p.sqrt() - q.sqrt()) ** 2 for p, q in zip(a.double().flatten(), b.double().flatten(), strict=True))
    x, y = features(torch.stack([a, b]))
    assert torch.allclose((x - y).square().sum(), wanted, rtol=1e-6)


def test_the_graph_joins_each_point_with_its_nearest():
    points = torch.tensor([[0.0], [1.0], [2.1], [10.0]], dtype=torch.float64)
    # Of four points each has two nearest: 3's are 2 and 1, and neither has it among its own.
    wanted = [[0, 1, 1, 0], [1, 0, 1, 0.5], [1, 1, 0, 0.5], [0, 0.5, 0.5, 0]]
    assert neighbours(points).tolist() == wanted


def test_the_laplacian_has_as_many_zeros_as_parts():
    affinity = torch.block_diag(*[torch.ones(4, 4).double() - torch.eye(4).double()] * 3)
    values = torch.linalg.eigvalsh(laplacian(affinity))
    assert values[:3].abs().max() < 1e-12
    assert values[3] == pytest.approx(4 / 3)
    assert eigengap(values[:6]) == 3


def test_the_gap_is_the_largest():
    assert eigengap(torch.tensor([0.0, 0.01, 0.015, 0.3, 0.7])) == 3
    assert eigengap(torch.tensor([0.0, 0.9, 0.95])) == 1
    # 0.001 is hardly more than 0.
    assert eigengap(torch.tensor([0.0, 0.001, 0.05, 0.3])) == 3
    assert eigengap(torch.zeros(5)) == 4


@pytest.mark.parametrize("count", [0, -1, 91])
def test_fewer_maps_than_clusters_are_refused(count):
    with pytest.raises(OptionError, match=f"{count} clusters of 90 maps: ask for 1 to 90"):
        clustered(planted()[0], count)


@pytest.mark.parametrize("there", [0, 1])
def test_maps_that_show_nothing_are_refused(there):
    relevance = torch.zeros(5, 4, 4)
    relevance[:there] = 1 / 16
    with pytest.raises(OptionError, match=f"{there} of 5 maps show anything"):
        clustered(relevance)


def test_maps_that_are_all_the_same_do_not_fail():
    relevance = torch.full((6, 4, 4), 1 / 16)
    made = clustered(relevance, 3)
    assert made.member.unique().tolist() == list(range(made.count))


def test_pooled_maps_are_the_positive_part_with_the_sum_1():
    maps = torch.randn(3, 32, 48, generator=drawn(2))
    maps[1] = -maps[1].abs()
    made = pooled(maps)
    assert made.shape == (3, 16, 16)
    cell = maps[0].clamp(min=0)[2:4, 3:6].mean()
    total = sum(
        maps[0].clamp(min=0)[2 * i : 2 * i + 2, 3 * j : 3 * j + 3].mean() for i in range(16) for j in range(16)
    )
    assert made[0, 1, 1] == pytest.approx(float(cell / total), rel=1e-5)
    assert made[1].abs().max() == 0
    assert pooled(maps[:, :7, :5]).shape == (3, 7, 5)


@pytest.mark.parametrize("shape", [(0, 4, 4), (3, 1, 1)])
def test_maps_without_places_are_refused(shape):
    with pytest.raises(OptionError, match="show no places"):
        pooled(torch.ones(shape))
