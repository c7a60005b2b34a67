"""Pointing and relevance mass: against loops, at ties, and where there is no number."""

import numpy as np
import pytest
import torch

from metric_samples import answer, heat
from small_nets import SmallNet, drawn, pictures
from whence.errors import OptionError
from whence.metrics import measure
from whence.metrics.pointing import near, pointing_hits
from whence.metrics.relevance_mass import mass_inside


@pytest.fixture(scope="module")
def net():
    return drawn(SmallNet())


def region(count: int, side: int = 16, seed: int = 0) -> torch.Tensor:
    return torch.rand(count, side, side, generator=torch.Generator().manual_seed(seed)) < 0.3


def torchray(mask: np.ndarray, row: int, column: int, tolerance: int) -> bool:
    """Hit where a pixel of the mask is closer to the point than the tolerance: TorchRay 1.0.0."""
    rows, columns = np.nonzero(mask)
    return bool((((rows - row) ** 2 + (columns - column) ** 2) < tolerance**2).any())


@pytest.mark.parametrize("tolerance", [1, 2, 3, 5, 15, 30])
def test_pointing_is_that_of_torchray(net, tolerance):
    maps, x = heat(40, 16, 16), pictures(40)
    places = region(40) & (torch.arange(16) < 5)
    places[0] = False
    places[0, 3, 4] = True
    found = measure(net, x, answer(maps, x), "pointing", region=places, tolerance=tolerance).value
    for value, one, mask in zip(found.tolist(), maps[:, 0], places.numpy(), strict=True):
        row, column = divmod(int(one.argmax()), 16)
        assert value == torchray(mask, row, column, tolerance)
    assert tolerance not in (2, 3, 5) or 0 < found.mean() < 1


def test_pointing_without_tolerance_asks_for_the_region_itself(net):
    maps, x, places = heat(40, 16, 16), pictures(40), region(40)
    found = measure(net, x, answer(maps, x), "pointing", region=places).value
    at = maps.flatten(1).argmax(1)
    assert found.tolist() == places.flatten(1)[torch.arange(40), at].double().tolist()


def test_tied_places_are_averaged():
    flat = torch.zeros(1, 4, 4)
    inside = torch.zeros(1, 4, 4, dtype=torch.bool)
    inside[0, 0, :3] = True
    assert pointing_hits(flat, inside).item() == 3 / 16
    flat[0, 0, 0] = flat[0, 3, 3] = 1
    assert pointing_hits(flat, inside).item() == 0.5


def test_a_map_of_negative_values_points_at_the_least_negative():
    values = -torch.arange(1.0, 17).reshape(1, 4, 4)
    inside = torch.zeros(1, 4, 4, dtype=torch.bool)
    inside[0, 0, 0] = True
    assert pointing_hits(values, inside).item() == 1


def test_near_is_a_disc():
    inside = torch.zeros(1, 9, 9, dtype=torch.bool)
    inside[0, 4, 4] = True
    rows, columns = torch.meshgrid(torch.arange(9), torch.arange(9), indexing="ij")
    for distance in range(7):
        wanted = ((rows - 4) ** 2 + (columns - 4) ** 2 < distance**2) | inside[0]
        assert torch.equal(near(inside, distance)[0], wanted)


def test_mass_is_the_positive_share_inside():
    maps, places = heat(5, 16, 16)[:, 0], region(5)
    for value, one, mask in zip(mass_inside(maps, places).tolist(), maps.numpy(), places.numpy(), strict=True):
        positive = one * (one > 0)
        assert value == pytest.approx(positive[mask].sum() / positive.sum(), rel=1e-12)


def test_mass_does_not_see_what_is_negative():
    values = torch.tensor([[[2.0, -5.0], [1.0, -7.0]]])
    inside = torch.tensor([[[True, True], [False, False]]])
    assert mass_inside(values, inside).item() == pytest.approx(2 / 3)


def test_there_is_no_number_where_nothing_is_positive_or_the_region_is_empty(net):
    x, maps = pictures(3), heat(3, 16, 16)
    maps[1] = -maps[1].abs()
    places = region(3)
    places[2] = False
    found = measure(net, x, answer(maps, x), "relevance-mass", region=places)
    assert found.value.isnan().tolist() == [False, True, True]
    assert found.notes == (
        (),
        ("there is no number: nothing in the map is positive",),
        ("there is no number: the region is empty",),
    )
    pointed = measure(net, x, answer(maps, x), "pointing", region=places)
    assert pointed.value.isnan().tolist() == [False, False, True]
    assert [len(notes) for notes in pointed.notes] == [0, 0, 1]


@pytest.mark.parametrize("metric", ["pointing", "relevance-mass"])
def test_a_region_is_needed(net, metric):
    x = pictures(1)
    with pytest.raises(OptionError, match=f"^{metric} compares .* give its region$"):
        measure(net, x, answer(heat(1, 16, 16), x), metric)


def test_a_tolerance_is_not_negative(net):
    x = pictures(1)
    with pytest.raises(OptionError, match="tolerance=-1: give at least 0"):
        measure(net, x, answer(heat(1, 16, 16), x), "pointing", region=region(1), tolerance=-1)
