"""Each measure against loops written out, and at its closed anchors."""

from math import hypot, log
from statistics import stdev

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from whence.errors import OptionError
from whence.interpretable.measures import (
    Maps,
    Measures,
    Parts,
    ReceptiveFields,
    category_entropy,
    location_instability,
    measured,
    part_interpretability,
    peak_purity,
)

N, K, P, L = 14, 4, 3, 2
GRID, SIZE = (4, 6), (13, 20)
DTYPE = torch.float64


def fields() -> ReceptiveFields:
    """Return middles every three pixels, the first of them above the picture."""
    return ReceptiveFields(3 * torch.arange(4, dtype=DTYPE) - 0.5, 3 * torch.arange(6, dtype=DTYPE) + 1, (5, 5))


def drawn(seed: int = 0) -> tuple[Maps, Parts]:
    """Return random maps, some of them silent, with random parts and landmarks, some of them missing."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.rand(N, K, *GRID, generator=generator, dtype=DTYPE)
    values = values * (torch.rand(N, K, 1, 1, generator=generator) < 0.8)
    corners = torch.randint(0, 8, (N, P, 2), generator=generator)
    rows, columns = (
        (torch.arange(n) >= corners[..., axis, None]) & (torch.arange(n) < corners[..., axis, None] + 6)
        for axis, n in enumerate(SIZE)
    )
    there = torch.rand(N, P, 1, 1, generator=generator) < 0.8
    places = rows[..., None] & columns[..., None, :] & there
    landmarks = 12 * torch.rand(N, L, 2, generator=generator, dtype=DTYPE)
    landmarks[torch.rand(N, L, generator=generator) < 0.2] = torch.nan
    labels = torch.randint(0, 3, (N,), generator=generator)
    return Maps(values, labels, fields(), SIZE), Parts(("a", "b", "c"), places, ("x", "y"), landmarks)


def peak(maps: Maps, n: int, k: int) -> tuple[float, float, float]:
    """Return the value and the middle of the first largest cell, by a loop."""
    found = (-1.0, 0, 0)
    for i, row in enumerate(maps.values[n, k].tolist()):
        for j, value in enumerate(row):
            if value > found[0]:
                found = (value, i, j)
    return found[0], float(maps.fields.rows[found[1]]), float(maps.fields.columns[found[2]])


def highest(maps: Maps, k: int, top: int, allowed: list[int]) -> list[int]:
    live = [n for n in allowed if peak(maps, n, k)[0] > 0]
    return sorted(live, key=lambda n: -peak(maps, n, k)[0])[:top]


def same(a: Tensor, b: list[float] | list[list[float]]) -> None:
    torch.testing.assert_close(a, torch.tensor(b, dtype=a.dtype), equal_nan=True, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("top", [3, 100])
def test_location_instability_by_loops(top: int) -> None:
    maps, parts = drawn()
    expected = []
    for k in range(K):
        row = []
        for mark in range(L):
            allowed = [n for n in range(N) if not bool(parts.landmarks[n, mark].isnan().any())]
            distances = []
            for n in highest(maps, k, top, allowed):
                _, i, j = peak(maps, n, k)
                y, x = parts.landmarks[n, mark].tolist()
                distances.append(hypot(i - y, j - x) / hypot(*SIZE))
            row.append(stdev(distances))
        expected.append(row)
    found = location_instability(maps, parts, top=top)
    same(found.landmarks, expected)
    same(found.filters.values, [sum(row) / L for row in expected])


@pytest.mark.parametrize("margin", [0.0, 2.0, 2.5])
def test_peak_purity_by_loops(margin: float) -> None:
    maps, parts = drawn(1)
    expected = []
    for k in range(K):
        chosen = highest(maps, k, 5, list(range(N)))
        row = []
        for p in range(P):
            hits = 0
            for n in chosen:
                _, i, j = peak(maps, n, k)
                pixels = parts.places[n, p].nonzero().tolist()
                hits += any(max(abs(y - i), abs(x - j)) <= margin + 0.5 for y, x in pixels)
            row.append(hits / len(chosen))
        expected.append(row)
    found = peak_purity(maps, parts, top=5, margin=margin)
    same(found.parts, expected)
    same(found.filters.values, [max(row) for row in expected])
    assert found.best == tuple("abc"[row.index(max(row))] for row in expected)


def marked(maps: Maps, n: int, k: int, threshold: float, region: str, radius: float) -> Tensor:
    """Return what is marked, pixel by pixel."""
    found = torch.zeros(SIZE, dtype=torch.bool)
    m = maps.values[n, k].tolist()
    valid = [(i, j) for i in range(GRID[0]) for j in range(GRID[1]) if m[i][j] > threshold]
    at = [(float(maps.fields.rows[i]), float(maps.fields.columns[j])) for i, j in valid]
    for y in range(SIZE[0]):
        for x in range(SIZE[1]):
            if region == "bilinear":
                i = min(max((y + 0.5) * GRID[0] / SIZE[0] - 0.5, 0), GRID[0] - 1)
                j = min(max((x + 0.5) * GRID[1] / SIZE[1] - 0.5, 0), GRID[1] - 1)
                low = [int(i), int(j)]
                up = [min(low[0] + 1, GRID[0] - 1), min(low[1] + 1, GRID[1] - 1)]
                a, b = i - low[0], j - low[1]
                upper = (1 - b) * m[low[0]][low[1]] + b * m[low[0]][up[1]]
                lower = (1 - b) * m[up[0]][low[1]] + b * m[up[0]][up[1]]
                found[y, x] = (1 - a) * upper + a * lower > threshold
                continue
            found[y, x] = any(hypot(i - y, j - x) <= radius for i, j in at)
    return found


@pytest.mark.parametrize("region", ["round", "bilinear"])
@pytest.mark.parametrize("grouped", [False, True])
def test_part_interpretability_by_loops(region: str, grouped: bool) -> None:
    maps, parts = drawn(2)
    categories = torch.tensor([0, 2, 0, 1]) if grouped else None
    every, active = [], []
    for k in range(K):
        pictures = [n for n in range(N) if categories is None or maps.labels[n] == categories[k]]
        cells = sorted((v for n in pictures for v in maps.values[n, k].flatten().tolist()), reverse=True)
        threshold = cells[int(0.3 * len(cells) + 1e-9)]
        valid = [n for n in pictures if peak(maps, n, k)[0] > threshold]
        strong = highest(maps, k, 3, valid)
        rows: tuple[list[float], list[float]] = ([], [])
        for p in range(P):
            hits = {}
            for n in pictures:
                region_, part = marked(maps, n, k, threshold, region, 3.0), parts.places[n, p]
                if bool(part.any()):
                    hits[n] = int((region_ & part).sum()) / int((region_ | part).sum()) > 0.2
            rows[0].append(sum(hits.values()) / len(hits))
            few = [hits[n] for n in strong if n in hits]
            rows[1].append(sum(few) / len(few) if few else torch.nan)
        every.append(rows[0])
        active.append(rows[1])
    found = part_interpretability(maps, parts, categories, quantile=0.3, region=region, top=3)
    same(found.parts, every)
    same(found.active_parts, active)
    same(found.filters.values, [max(row) for row in every])
    same(found.active.values, [max(v for v in row if v == v) for row in active])
    assert 0 < found.filters.mean < 1
    assert found.best == tuple("abc"[row.index(max(row))] for row in every)


@pytest.mark.parametrize("statistic", ["max", "sum"])
def test_category_entropy_by_loops(statistic: str) -> None:
    maps, _ = drawn(3)
    expected = []
    for k in range(K):
        means = []
        for c in range(3):
            values = [maps.values[n, k] for n in range(N) if maps.labels[n] == c]
            means.append(sum(float(v.max() if statistic == "max" else v.sum()) for v in values) / len(values))
        expected.append(-sum(m / sum(means) * log(m / sum(means)) for m in means) / log(3))
    same(category_entropy(maps, statistic=statistic).values, expected)


def one_cell(at: list[tuple[int, int]], labels: list[int] | None = None) -> Maps:
    """Return one filter that fires in one cell of each picture."""
    values = torch.zeros(len(at), 1, *GRID, dtype=DTYPE)
    for n, (i, j) in enumerate(at):
        values[n, 0, i, j] = 1 + n
    return Maps(values, torch.tensor(labels or [n % 2 for n in range(len(at))]), fields(), SIZE)


def truth(places: Tensor, landmarks: Tensor) -> Parts:
    return Parts(("a",), places, ("x",), landmarks)


def test_a_peak_at_a_landmark_is_stable_also_at_a_constant_distance() -> None:
    at = [(1, 2), (3, 0), (2, 5)]
    maps = one_cell(at)
    landmarks = maps.fields.centres(torch.tensor(at))[:, None]
    nowhere = torch.zeros(3, 1, *SIZE, dtype=torch.bool)
    assert location_instability(maps, truth(nowhere, landmarks)).filters.values.tolist() == [0]
    shifted = location_instability(maps, truth(nowhere, landmarks + torch.tensor([3.0, 4.0]))).filters
    assert shifted.mean == pytest.approx(0, abs=1e-15)
    # One at the landmark and two at five pixels.
    landmarks[1:] += torch.tensor([3.0, 4.0])
    spread = location_instability(maps, truth(nowhere, landmarks)).filters.mean
    assert spread == pytest.approx(stdev([0, 5, 5]) / hypot(*SIZE))


@pytest.mark.parametrize(("missed", "expected"), [(4, 0.0), (3, 1.0)])
def test_an_overlap_of_a_fifth_is_not_enough(missed: int, expected: float) -> None:
    # The middle (5.5, 7) has two pixels within half a pixel; the part holds one of them and some others.
    maps = one_cell([(2, 2)] * 2)
    places = torch.zeros(2, 1, *SIZE, dtype=torch.bool)
    places[:, 0, 5, 7] = True
    places[:, 0, 0, : missed - 1] = True
    found = part_interpretability(maps, truth(places, torch.zeros(2, 1, 2)), radius=0.5, quantile=0.1)
    assert found.filters.values.tolist() == [expected]
    assert found.active.values.tolist() == [expected]


def test_a_filter_of_one_class_has_no_entropy_and_one_of_all_has_the_most() -> None:
    assert category_entropy(one_cell([(0, 0)] * 4, [0, 0, 1, 1])).values.item() < 1
    maps = one_cell([(0, 0)] * 2)
    maps.values[1] = maps.values[0]
    assert category_entropy(maps).values.tolist() == [1]
    maps.values[1] = 0
    assert category_entropy(Maps(maps.values, maps.labels, fields(), SIZE)).values.tolist() == [0]
    assert bool(category_entropy(Maps(maps.values, torch.zeros(2).long(), fields(), SIZE)).values.isnan())


def test_dead_filters_have_no_number_and_are_left_out() -> None:
    maps, parts = drawn(4)
    whole = measured(maps, parts, quantile=0.1)
    maps.values[:, 1] = 0
    found = measured(Maps(maps.values, maps.labels, maps.fields, SIZE), parts, quantile=0.1)
    assert found.dead.tolist() == [False, True, False, False]
    assert found.interpretability is not None
    assert found.instability is not None
    assert found.purity is not None
    assert found.purity.best[1] is None
    for each in (
        found.entropy,
        found.interpretability.filters,
        found.interpretability.active,
        found.instability.filters,
        found.purity.filters,
    ):
        assert each.values.isnan().tolist() == [False, True, False, False]
        assert each.count == 3
        assert each.mean == pytest.approx(float(each.values[[0, 2, 3]].mean()))
    assert found.summary()["dead"] == 1
    assert whole.summary()["dead"] == 0
    assert list(found.summary()) == [
        "filters",
        "dead",
        "part-interpretability",
        "part-interpretability-active",
        "location-instability",
        "peak-purity",
        "category-entropy",
    ]


def test_a_landmark_of_one_picture_says_nothing() -> None:
    maps = one_cell([(0, 0), (1, 1), (2, 2)])
    landmarks = torch.full((3, 1, 2), torch.nan)
    landmarks[0] = 1
    found = location_instability(maps, truth(torch.zeros(3, 1, *SIZE, dtype=torch.bool), landmarks))
    assert found.filters.values.isnan().tolist() == [True]
    assert found.filters.count == 0


def test_ties_a_plateau_counts_from_its_first_cell_and_equal_peaks_all_count() -> None:
    values = torch.ones(3, 1, *GRID, dtype=DTYPE)
    places = torch.zeros(3, 1, *SIZE, dtype=torch.bool)
    places[:2, 0, 0, 1] = True
    maps, parts = Maps(values, torch.arange(3), fields(), SIZE), truth(places, torch.zeros(3, 1, 2))
    assert maps.cells.unique().tolist() == [0]
    assert peak_purity(maps, parts, top=1, margin=0.0).filters.values.tolist() == [pytest.approx(2 / 3)]
    # Nothing is above a threshold that all values share.
    found = part_interpretability(maps, parts)
    assert found.filters.values.tolist() == [0]
    assert found.active.values.isnan().tolist() == [True]


def same_measures(a: Measures, b: Measures, filters: Tensor) -> None:
    assert a.interpretability is not None
    assert b.interpretability is not None
    assert a.instability is not None
    assert b.instability is not None
    assert a.purity is not None
    assert b.purity is not None
    for one, other in (
        (a.entropy.values, b.entropy.values),
        (a.interpretability.parts, b.interpretability.parts),
        (a.interpretability.active_parts, b.interpretability.active_parts),
        (a.instability.landmarks, b.instability.landmarks),
        (a.purity.parts, b.purity.parts),
    ):
        torch.testing.assert_close(one[filters], other, equal_nan=True, rtol=1e-9, atol=1e-12)


@settings(max_examples=6, deadline=None)
@given(pictures=st.permutations(range(N)), filters=st.permutations(range(K)), levels=st.integers(2, 50))
def test_the_order_of_pictures_and_of_filters_changes_nothing(
    pictures: list[int], filters: list[int], levels: int
) -> None:
    maps, parts = drawn(5)
    # With few levels there are many ties.
    values = (maps.values * levels).round()
    p, f = torch.tensor(pictures), torch.tensor(filters)
    moved = Maps(values[p][:, f], maps.labels[p], maps.fields, SIZE)
    there = Parts(parts.names, parts.places[p], parts.landmark_names, parts.landmarks[p])
    categories = torch.tensor([0, 1, 2, 1])
    a = measured(Maps(values, maps.labels, maps.fields, SIZE), parts, categories, quantile=0.1, top=4)
    same_measures(a, measured(moved, there, categories[f], quantile=0.1, top=4), f)


def test_without_parts_there_are_entropy_and_dead_filters_alone() -> None:
    maps, _ = drawn()
    found = measured(maps)
    assert (found.interpretability, found.instability, found.purity) == (None, None, None)
    assert found.summary() == {"filters": 4, "dead": 0, "category-entropy": found.entropy.mean}


def test_landmarks_alone_and_parts_alone() -> None:
    maps, parts = drawn()
    marks = Parts((), parts.places[:, :0], parts.landmark_names, parts.landmarks)
    found = measured(maps, marks)
    assert found.purity is not None
    assert found.purity.best == (None,) * K
    assert found.purity.filters.count == 0
    assert found.summary()["location-instability"] == location_instability(maps, parts).filters.mean
    places = Parts(parts.names, parts.places, (), parts.landmarks[:, :0])
    assert location_instability(maps, places).filters.count == 0


def test_bad_input_is_refused() -> None:
    maps, parts = drawn()
    for values, labels in (
        (maps.values[:0], maps.labels[:0]),
        (maps.values, maps.labels[1:]),
        (-maps.values, maps.labels),
        (maps.values * torch.nan, maps.labels),
        (maps.values[..., 1:], maps.labels),
    ):
        with pytest.raises(OptionError):
            Maps(values, labels, fields(), SIZE)
    with pytest.raises(OptionError, match="names"):
        Parts(("a",), parts.places, parts.landmark_names, parts.landmarks)
    with pytest.raises(OptionError, match="same pictures"):
        measured(Maps(maps.values[1:], maps.labels[1:], fields(), SIZE), parts)
    with pytest.raises(OptionError, match="same pictures"):
        measured(Maps(maps.values, maps.labels, fields(), (13, 21)), parts)
    for options in ({"quantile": 0.0}, {"quantile": 1.0}, {"radius": 0.0}, {"top": 1}, {"margin": -1.0}):
        with pytest.raises(OptionError, match=next(iter(options))):
            measured(maps, parts, **options)
    with pytest.raises(OptionError, match="categories"):
        measured(maps, parts, torch.zeros(3).long())
