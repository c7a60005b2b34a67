"""The truth about creatures, and what maps that know nothing of them are measured at."""

from itertools import islice

import pytest
import torch

from whence.creatures import NAMES, draw, draw_many
from whence.creatures.anatomy import creature_parts
from whence.errors import OptionError
from whence.interpretable.measures import Maps, ReceptiveFields, measured


def test_parts_are_what_is_seen_and_landmarks_are_row_and_column():
    creatures = [draw(1, 0), draw(2, 4, drop=("tail",))]
    parts = creature_parts(creatures)
    assert parts.names == ("body", "wing", "head", "beak", "crest", "tail", "feet")
    assert parts.places.shape == (2, 7, 64, 64)
    for creature, places, landmarks in zip(creatures, parts.places, parts.landmarks, strict=True):
        seen = torch.from_numpy(creature.parts)
        for name, place in zip(parts.names, places, strict=True):
            ids = [NAMES.index(n) for n in ((name, "eye") if name == "head" else (name,))]
            assert torch.equal(place, sum(seen == i for i in ids).bool())
        x, y = creature.centroids["head"]
        assert landmarks[0].tolist() == [y, x]
    # The first species has no crest, the second creature lacks its tail.
    assert parts.contained[:, 4:6].tolist() == [[False, True], [True, False]]
    assert parts.present.tolist() == [[True, True, True], [True, False, True]]


def test_no_creatures():
    with pytest.raises(OptionError):
        creature_parts([])


def test_random_maps_know_nothing(unchecked):
    """Of uniform noise all cells are as likely the peak: its measures are means over all cells of all pictures."""
    creatures = list(islice(draw_many(100, 1), 100))
    parts = creature_parts(creatures)
    middles = 4 * torch.arange(16, dtype=torch.float64)
    values = torch.rand(100, 64, 16, 16, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([creature.label for creature in creatures])
    maps = Maps(values, labels, ReceptiveFields(middles, middles, (47, 47)), (64, 64))
    found = measured(maps, parts, region="bilinear")
    assert found.instability is not None
    assert found.purity is not None
    cells = torch.cartesian_prod(middles, middles)
    distances = (cells[:, None, None] - parts.landmarks).norm(dim=3) / maps.diagonal
    expected = distances.flatten(0, 1).std(0).mean()
    assert found.instability.filters.mean == pytest.approx(float(expected), rel=0.02)
    near = torch.nn.functional.max_pool2d(parts.places.float(), 5, 1, 2)[..., ::4, ::4].mean((0, 2, 3))
    assert found.purity.parts.mean(0).tolist() == pytest.approx(near.tolist(), abs=0.025)
    summary = found.summary()
    assert summary["part-interpretability"] < 0.002
    assert summary["category-entropy"] > 0.999
    assert summary["location-instability"] == pytest.approx(0.143, abs=0.005)
    assert summary["peak-purity"] == pytest.approx(0.136, abs=0.02)
