"""Infidelity: equal to captum's for the same disturbances, zero for maps that tell the truth."""

import pytest
import torch
from captum.metrics import infidelity as captum_infidelity

from metric_samples import answer, heat
from small_nets import Lambda, SmallNet, drawn, pictures
from whence.errors import OptionError
from whence.metrics import infidelity as infidelity_module
from whence.metrics import measure, measuring
from whence.metrics.infidelity import _squares
from whence.metrics.measuring import claim
from whence.models.classifier import Classifier

SAMPLES = 12


@pytest.fixture(scope="module")
def net():
    return drawn(SmallNet()).eval()


def captum(net, x, values, disturbances, normalize):
    """Run captum on disturbances: what the map is multiplied with, [S, C, H, W], and the pictures that are left."""
    told, left = disturbances
    count = len(x)

    def perturb(inputs):
        return told.repeat(count, 1, 1, 1), left.flatten(0, 1)

    return captum_infidelity(net, perturb, x, values, target=1, n_perturb_samples=SAMPLES, normalize=normalize)


@pytest.mark.parametrize("normalize", [True, False])
def test_gaussian_noise_is_captum_s(net, normalize):
    x = pictures(3)
    values = torch.randn(x.shape, generator=torch.Generator().manual_seed(5)).double()
    options = {"disturbance": "gaussian", "sigma": 0.3, "samples": SAMPLES, "normalize": normalize}
    found = measure(net, x, answer(values, x, 1), "infidelity", **options).value
    noise = 0.3 * torch.randn(SAMPLES, 3, 16, 16, generator=torch.Generator().manual_seed(0)).double()
    wanted = captum(net, x, values, (noise, x[:, None] - noise), normalize)
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("normalize", [True, False])
def test_squares_are_captum_s(net, normalize):
    x, maps = pictures(3), heat(3, 16, 16)
    made = answer(maps, x, 1)
    options = {"size": 5, "samples": SAMPLES, "normalize": normalize, "substrate": "zeros"}
    found = measure(net, x, made, "infidelity", **options).value
    squares = _squares(claim(Classifier(net), x, made, None), 5, SAMPLES, 0)[:, None].expand(-1, 3, -1, -1)
    values = (maps / 3).expand_as(x)
    wanted = captum(net, x, values, (squares, x[:, None] * (1 - squares)), normalize)
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-12)


def test_squares_lie_everywhere_and_within(net):
    x = pictures(1)
    of = claim(Classifier(net), x, answer(heat(1, 16, 16), x), None)
    squares = _squares(of, 5, 2000, 0)
    assert squares.sum((1, 2)).tolist() == [25] * 2000
    assert (squares.sum(0) > 0).all()
    assert _squares(of, None, 3, 0).sum((1, 2)).tolist() == [4] * 3


def linear():
    weight = torch.randn(3, 16, 16, generator=torch.Generator().manual_seed(3)).double()

    def forward(net, x):
        score = (x * weight).sum((1, 2, 3))
        return torch.stack((score, -score), dim=1)

    net = Lambda(forward)
    net.register_buffer("like", torch.zeros(1).double())
    return net, weight


def test_the_truth_about_a_linear_model_has_no_infidelity():
    """Its slopes tell all of the fall under noise, its contributions all of it under squares of zeros."""
    net, weight = linear()
    x = pictures(2)
    slopes, contributions = answer(weight.expand(2, -1, -1, -1), x), answer(x * weight, x)
    for normalize in (True, False):
        noise = {"disturbance": "gaussian", "normalize": normalize}
        assert measure(net, x, slopes, "infidelity", **noise).value.max() < 1e-20
        assert measure(net, x, contributions, "infidelity", normalize=normalize).value.max() < 1e-18
        assert measure(net, x, contributions, "infidelity", **noise).value.min() > 1e-3


def test_normalised_the_scale_of_a_map_does_not_matter_and_else_it_does(net):
    x, maps = pictures(2), heat(2, 8, 8)
    one, ten = (measure(net, x, answer(factor * maps, x, 1), "infidelity").value for factor in (1, 10))
    torch.testing.assert_close(one, ten)
    raw = [measure(net, x, answer(factor * maps, x, 1), "infidelity", normalize=False).value for factor in (1, 10)]
    assert (raw[1] > 2 * raw[0]).all()
    assert (one <= raw[0]).all()


def test_a_zero_map_is_measured_by_the_falls_alone_and_says_so(net):
    x = pictures(2)
    maps = heat(2, 8, 8)
    maps[1] = 0
    found = measure(net, x, answer(maps, x, 1), "infidelity")
    raw = measure(net, x, answer(maps, x, 1), "infidelity", normalize=False)
    torch.testing.assert_close(found.value[1], raw.value[1])
    assert found.value.isfinite().all()
    assert [len(notes) for notes in found.notes] == [0, 1]


@pytest.mark.parametrize("disturbance", ["square", "gaussian"])
def test_maps_are_summed_in_float32_where_the_model_is_half(disturbance):
    """A map whose sum over a square is beyond float16's largest number is no more wrong than a small one."""
    net, weight = linear()
    half, x = net.half(), pictures(1).half()
    weight = weight.half()
    net.forward = lambda x: torch.stack(((x * weight).sum((1, 2, 3)), -(x * weight).sum((1, 2, 3))), dim=1)
    maps = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(5))
    found = [
        measure(half, x, answer(factor * maps, x), "infidelity", disturbance=disturbance).value for factor in (1, 1e6)
    ]
    assert found[0].dtype == torch.float32
    assert found[1].isfinite().all()
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("target", [1, "top", None])
def test_no_more_pictures_than_a_chunk_go_through_the_model_at_once(net, monkeypatch, target):
    seen = []
    handle = net.register_forward_pre_hook(lambda module, inputs: seen.append(len(inputs[0])))
    for module in (measuring, infidelity_module):
        monkeypatch.setattr(module, "chunk_size", lambda x: 2)
    x, maps = pictures(5), heat(5, 8, 8)
    measure(net, x, answer(maps, x, 1), "infidelity", samples=2, target=target)
    handle.remove()
    assert max(seen) == 2


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"size": 17}, "size=17 on inputs of 16 x 16: give a square that fits in"),
        ({"size": 0}, "size=0: give at least 1"),
        ({"samples": 0}, "samples=0: give at least 1"),
        ({"disturbance": "circle"}, "expected square or gaussian"),
    ],
)
def test_bad_options_are_refused(net, options, said):
    x = pictures(1)
    with pytest.raises(OptionError, match=said):
        measure(net, x, answer(heat(1, 8, 8), x), "infidelity", **options)
