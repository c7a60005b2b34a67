"""The bundled nets of the creatures hold what is said of them."""

from importlib.resources import files

import pytest
import torch

from whence.creatures import draw_many
from whence.creatures.anatomy import creature_parts
from whence.creatures.labelled import drawn
from whence.creatures.score import answers, predictor
from whence.interpretable import Interpretable, Mask
from whence.interpretable.measures import Maps, maps_of, measured, receptive_fields
from whence.models.load import load_model

COUNT, FRESH = 400, 70_000


def test_all_four_take_less_than_a_megabyte_and_a_half():
    folders = files("whence.models.bundled")
    sizes = [
        (folders / name / "weights.safetensors").stat().st_size
        for name in ("creatures", "creatures-confounded", "creatures-interpretable", "creatures-vit")
    ]
    assert sum(sizes) < 1_500_000


@pytest.mark.parametrize(("name", "least"), [("creatures-interpretable", 0.99), ("creatures-vit", 0.97)])
def test_the_species_are_known(name, least, unchecked):
    found = answers(predictor(load_model(name)), COUNT, 2024)
    assert found.right.double().mean() >= least


def test_the_filters_mean_one_part_more_than_those_of_the_plain_net(unchecked):
    x = torch.stack([one for one, _ in drawn(COUNT, FRESH)])
    labels, parts = drawn(COUNT, FRESH).labels, creature_parts(draw_many(COUNT, FRESH))

    def figures(name, layer=None, mask=None):
        model = load_model(name)
        fields = receptive_fields(model, x[:1], layer or "interpretable")
        return measured(Maps(maps_of(model, [x], layer, mask=mask), labels, fields, (64, 64)), parts).summary()

    plain, after = figures("creatures", "top"), figures("creatures", "top", Mask())
    ours = figures("creatures-interpretable")
    assert isinstance(load_model("creatures-interpretable").module, Interpretable)
    assert ours["location-instability"] < 0.55 * plain["location-instability"]
    assert ours["location-instability"] < 0.55 * after["location-instability"]
    assert ours["peak-purity"] > plain["peak-purity"] + 0.05
    assert ours["part-interpretability"] > 1.2 * plain["part-interpretability"]
    assert ours["part-interpretability-active"] > plain["part-interpretability-active"] + 0.05
    assert ours["dead"] == 0
