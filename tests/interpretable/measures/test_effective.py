"""The effective receptive field of chains of box kernels has the variance that the boxes' own add up to."""

from math import sqrt

import pytest
import torch
from torch import Tensor, nn

import whence
from small_nets import drawn, pictures
from whence.errors import LayerError, ModelError, NotFiniteError
from whence.interpretable import interpretable
from whence.interpretable.measures import effective, effective_radius, receptive_fields


def box(kernel: int, stride: int = 1, channels: tuple[int, int] = (1, 1)) -> nn.Conv2d:
    layer = nn.Conv2d(*channels, kernel, stride, kernel // 2, bias=False, dtype=torch.float64)
    nn.init.constant_(layer.weight, 0.1)
    return layer


def headed(*layers: nn.Module) -> nn.Module:
    """Return a net whose layer ``0`` is the chain."""
    return nn.Sequential(nn.Sequential(*layers), nn.AdaptiveAvgPool2d(1), nn.Flatten())


def white(count: int = 2, channels: int = 1, height: int = 33, width: int = 33) -> Tensor:
    return torch.ones(count, channels, height, width, dtype=torch.float64)


def variance(kernel: int) -> float:
    return (kernel**2 - 1) / 12


@pytest.mark.parametrize("kernel", [1, 3, 7])
def test_a_box(kernel: int) -> None:
    assert effective_radius(headed(box(kernel)), white(), "0") == pytest.approx(sqrt(variance(kernel)))


def test_variances_add_up_over_a_chain() -> None:
    net = headed(box(3), nn.ReLU(), box(5, channels=(1, 2)), box(7, channels=(2, 3)))
    expected = sqrt(variance(3) + variance(5) + variance(7))
    assert effective_radius(net, white(), "0") == pytest.approx(expected)


def test_behind_a_stride_a_kernel_reaches_as_many_times_farther() -> None:
    net = headed(box(3, stride=2), box(5, stride=3), box(3))
    expected = sqrt(variance(3) + 4 * variance(5) + 36 * variance(3))
    assert effective_radius(net, white(height=61, width=80), "0") == pytest.approx(expected)


def test_the_spread_is_about_the_middle_of_the_field_not_of_the_gradient() -> None:
    layer = box(5)
    layer.weight.data *= 1e-9
    layer.weight.data[..., 0, 3] = 1.0
    # Nearly all is seen at one pixel: two rows and one column from the middle.
    assert effective_radius(headed(layer), white(), "0") == pytest.approx(sqrt((4 + 1) / 2))


def test_filters_count_alike_whatever_their_scale_and_sign() -> None:
    layer = box(5, channels=(1, 3))
    layer.weight.data[0] = 0
    layer.weight.data[0, 0, 2, 2] = 1000.0
    layer.weight.data[2, 0, :, 1] *= -1
    expected = sqrt((0 + variance(5) + variance(5)) / 3)
    assert effective_radius(headed(layer), white(), "0") == pytest.approx(expected)


def test_channels_of_opposite_sign_do_not_cancel() -> None:
    layer = box(3, channels=(2, 1))
    layer.weight.data[0, 1] = 0
    layer.weight.data[0, 1, 1, 1] = -0.1
    # Ten equal shares along an axis: three to either side, four in the middle.
    assert effective_radius(headed(layer), white(channels=2), "0") == pytest.approx(sqrt(6 / 10))


def test_silent_filters_are_left_out_and_silent_pictures_count_nothing() -> None:
    layer = box(3, channels=(1, 2))
    layer.weight.data[1] = 0
    layer.weight.data[1, 0, 1, 1] = -1.0
    net = headed(layer)
    assert effective_radius(net, white(), "0") == pytest.approx(sqrt(variance(3)))
    assert effective_radius(net, torch.cat([white(), -white()]), "0") == pytest.approx(sqrt(variance(3) / 2))


def by_hand(net: nn.Sequential, x: Tensor, row: float, column: float) -> float:
    variances = []
    for k in range(4):
        shares = torch.zeros(x.shape[2:], dtype=torch.float64)
        for picture in x:
            leaf = picture[None].clone().requires_grad_()
            maps = net[:4](leaf)
            (gradient,) = torch.autograd.grad(maps[0, k, maps.shape[2] // 2, maps.shape[3] // 2].relu(), leaf)
            shares += gradient[0].abs().sum(0)
        away = [
            float(shares[i, j]) * ((i - row) ** 2 + (j - column) ** 2) / 2
            for i in range(x.shape[2])
            for j in range(x.shape[3])
        ]
        if shares.sum() > 0:
            variances.append(sum(away) / float(shares.sum()))
    return sqrt(sum(variances) / len(variances))


def test_any_net_is_measured_as_by_hand_and_left_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    layers = (nn.Conv2d(3, 5, 4, 2, 1), nn.ReLU(inplace=True), nn.BatchNorm2d(5), nn.Conv2d(5, 4, 3, 1, 1))
    net = drawn(nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())).eval()
    x = pictures(7, size=(16, 18))
    fields = receptive_fields(net, x, "3")
    expected = by_hand(net, x, float(fields.rows[4]), float(fields.columns[4]))
    net.train()
    assert effective_radius(net, x, "3") == pytest.approx(expected)
    assert all(layer.training for layer in net.modules())
    assert all(parameter.grad is None for parameter in net.parameters())
    monkeypatch.setattr(effective, "chunk_size", lambda _: 2)
    assert effective_radius(net.requires_grad_(False), x, "3") == pytest.approx(expected)


def test_a_mask_sees_as_far_as_what_it_masks() -> None:
    net = headed(box(5, channels=(1, 2)), nn.ReLU())
    x = pictures(6, 1, 33).abs()
    assert effective_radius(interpretable(net, x, "0"), x) == pytest.approx(sqrt(variance(5)))
    assert effective_radius(net, x) == pytest.approx(sqrt(variance(5)))


def test_the_bundled_creatures_look_at_less_than_their_fields() -> None:
    x = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    # A box of 47 pixels has 13.6.
    assert 6 < effective_radius(whence.load_model("creatures"), x, "top") < 11


class Cut(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.detach()


@pytest.mark.parametrize("before", [(), (box(3),)], ids=["no parameters", "parameters"])
def test_a_layer_that_is_cut_off_from_the_picture(before: tuple[nn.Module, ...]) -> None:
    with pytest.raises(ModelError, match="no gradient flows from the middle of layer '0'"):
        effective_radius(headed(*before, Cut(), box(3)), white(), "0")
    with pytest.raises(ModelError, match="no gradient flows"):
        effective_radius(headed(box(3), Cut()), white(), "0")


def test_what_cannot_be_measured() -> None:
    net = headed(box(3))
    with pytest.raises(ModelError, match="pictures on which its filters are active"):
        effective_radius(net, -white(), "0")
    with pytest.raises(NotFiniteError):
        effective_radius(net, white() * torch.nan, "0")
    with pytest.raises(NotFiniteError, match="the activation of layer '0'"):
        effective_radius(net, torch.cat([white(), white() * torch.inf]), "0")
    with pytest.raises(LayerError, match="top"):
        effective_radius(net, white(), "top")
