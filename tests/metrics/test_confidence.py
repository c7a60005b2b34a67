"""Drop and increase: against the peers' definition, closed forms, and where there is no number."""

import pytest
import torch
import torch.nn.functional as F

from metric_samples import answer, heat, probability
from small_nets import SmallNet, classifier, drawn, pictures
from whence.metrics import measure
from whence.pictures.preprocess import Preprocess


@pytest.fixture(scope="module")
def net():
    return drawn(SmallNet()).eval()


def test_they_are_the_peers_on_maps_from_0_to_1(net):
    """pytorch-grad-cam and torch-cam multiply the normalised input with the map on its grid."""
    x, maps = pictures(6), heat(6, 8, 8).abs()
    cam = F.interpolate(maps, (16, 16), mode="bilinear")
    cam = cam / cam.amax((2, 3), keepdim=True)
    with torch.no_grad():
        whole, masked = (net(t).softmax(1)[:, 2] for t in (x, x * cam))
    drop, increase = (measure(net, x, answer(maps, x, 2), name) for name in ("drop", "increase"))
    torch.testing.assert_close(drop.value, torch.relu(whole - masked) / whole)
    assert torch.equal(increase.value, (masked > whole).double())


def test_what_is_negative_is_taken_away():
    x = torch.full((1, 1, 2, 2), 0.8).double()
    net = probability(lambda x: x.mean((1, 2, 3)))
    maps = torch.tensor([[4.0, 2.0], [-1.0, -9.0]]).double()[None, None]
    # A half of the whole, and a quarter of a half: 3/8 is left of the probability.
    assert float(measure(net, x, answer(maps, x), "drop").value) == pytest.approx(1 - (1 + 0.5) / 4)
    assert float(measure(net, x, answer(maps, x), "increase").value) == 0


def test_a_picture_that_is_better_under_its_map_rises():
    x = torch.full((1, 1, 2, 2), 0.6).double()
    net = probability(lambda x: 1 - x.mean((1, 2, 3)))
    maps = torch.tensor([[1.0, 0.0], [0.0, 0.0]]).double()[None, None]
    assert float(measure(net, x, answer(maps, x), "increase").value) == 1
    assert float(measure(net, x, answer(maps, x), "drop").value) == 0


def test_a_map_that_keeps_all_neither_drops_nor_rises(net):
    x = pictures(2)
    for name in ("drop", "increase"):
        found = measure(net, x, answer(torch.full((2, 1, 8, 8), 3.0).double(), x), name)
        assert found.value.tolist() == [0, 0]
        assert found.notes == ((), ())


def test_a_map_without_anything_positive_takes_everything_away(net):
    x = pictures(2)
    maps = -heat(2, 8, 8).abs()
    found = measure(net, x, answer(maps, x), "drop", substrate="zeros")
    with torch.no_grad():
        whole, nothing = (net(t).softmax(1)[:, 0] for t in (x, torch.zeros_like(x)))
    torch.testing.assert_close(found.value, torch.relu(whole - nothing) / whole)
    assert found.notes == (("nothing in the map is positive: the whole picture is taken away",),) * 2


def test_a_number_of_0_has_no_share_to_lose(net):
    x = pictures(2)
    made = answer(heat(2, 8, 8), x, target=-1)
    found = measure(net, x, made, "drop", target=lambda output: output[:, 0] * 0)
    assert found.value.isnan().all()
    assert all("not above 0" in said for (said,) in found.notes)


def test_black_multiplies_the_pixels(net):
    model = classifier(net, preprocess=Preprocess(mean=(0.5, 0.4, 0.3), std=(0.2, 0.2, 0.2), crop=(16, 16)))
    pixels = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)).double()
    mean = torch.tensor([0.5, 0.4, 0.3]).double()[:, None, None]
    maps = heat(2, 16, 16).abs()
    x, masked = ((p - mean) / 0.2 for p in (pixels, pixels * maps / maps.amax((2, 3), keepdim=True)))
    with torch.no_grad():
        p, q = (net(t).softmax(1)[:, 0] for t in (x, masked))
    found = measure(model, x, answer(maps, x), "drop", substrate="black")
    torch.testing.assert_close(found.value, torch.relu(p - q) / p, rtol=1e-5, atol=1e-7)
