"""The receptive fields found by experiment are those that the classical recursion gives."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torchvision.models import resnet18, vgg

import whence
from whence.errors import LayerError, NotFiniteError, UnknownLayerError
from whence.interpretable import interpretable
from whence.interpretable.measures import ReceptiveFields, receptive_fields
from whence.models.classifier import Classifier


def headed(*layers: nn.Module) -> nn.Module:
    """Return a net whose layer ``0`` is the chain, with a head that takes any size."""
    return nn.Sequential(nn.Sequential(*layers), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LazyLinear(2))


def made(net: nn.Module, height: int, width: int | None = None, channels: int = 1) -> tuple[nn.Module, Tensor]:
    x = torch.ones(1, channels, height, width or height)
    net(x)
    return net, x


def recursion(chain: list[tuple[int, int, int, int]]) -> tuple[float, int, int]:
    """Return the first middle, the jump and the size of fields for layers of (kernel, stride, padding, dilation)."""
    start, jump, size = 0.0, 1, 1
    for kernel, stride, padding, dilation in chain:
        reach = dilation * (kernel - 1)
        start += (reach / 2 - padding) * jump
        size += reach * jump
        jump *= stride
    return start, jump, size


def check(fields: ReceptiveFields, chain: list[tuple[int, int, int, int]]) -> None:
    start, jump, size = recursion(chain)
    assert fields.size == (size, size)
    for middles in (fields.rows, fields.columns):
        expected = start + jump * torch.arange(len(middles), dtype=torch.float64)
        assert torch.equal(middles, expected)


def conv(kernel: int, stride: int, padding: int, dilation: int) -> nn.Module:
    return nn.Conv2d(1, 1, kernel, stride, padding, dilation)


CHAINS = [
    [(3, 1, 1, 1)],
    [(1, 1, 0, 1)],
    [(4, 4, 0, 1)],
    [(7, 2, 3, 1), (3, 2, 1, 1), (3, 1, 1, 1)],
    [(4, 2, 1, 1), (2, 2, 0, 1), (5, 1, 0, 1)],
    [(3, 1, 2, 2), (3, 2, 1, 1)],
    [(3, 1, 4, 4)],
    [(2, 3, 0, 1), (3, 1, 2, 1)],
    [(1, 2, 0, 1), (3, 1, 1, 1)],
    [(1, 1, 2, 1)],
    [(2, 1, 0, 1), (1, 1, 1, 1)],
]


@pytest.mark.parametrize("chain", CHAINS, ids=str)
def test_middles_and_sizes_are_those_of_the_recursion(chain: list[tuple[int, int, int, int]]) -> None:
    net, x = made(headed(*(conv(*layer) for layer in chain)), 41, 47)
    check(receptive_fields(net, x, "0"), chain)


layer = st.tuples(st.integers(1, 4), st.integers(1, 2), st.integers(0, 2), st.integers(1, 2))


@settings(max_examples=10, deadline=None)
@given(chain=st.lists(layer, min_size=1, max_size=2))
def test_any_chain(chain: list[tuple[int, int, int, int]]) -> None:
    net, x = made(headed(*(conv(*layer) for layer in chain)), 30)
    fields = receptive_fields(net, x, "0")
    start, jump, size = recursion(chain)
    assert fields.exact
    assert torch.equal(fields.rows, start + jump * torch.arange(len(fields.rows), dtype=torch.float64))
    assert fields.size == (size, size)


@pytest.mark.parametrize("pool", [nn.MaxPool2d(3, 2, 1), nn.AvgPool2d(3, 2, 1)])
def test_pooling(pool: nn.Module) -> None:
    net, x = made(headed(conv(3, 1, 1, 1), nn.ReLU6(), pool, conv(3, 1, 1, 1)), 32)
    check(receptive_fields(net, x, "0"), [(3, 1, 1, 1), (3, 2, 1, 1), (3, 1, 1, 1)])


def test_channels_last_maps() -> None:
    class Last(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.movedim(1, -1)

    class First(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.movedim(-1, 1)

    net = nn.Sequential(nn.Conv2d(1, 3, 4, 4), Last(), First(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    check(receptive_fields(net, torch.ones(1, 1, 32, 32), "1"), [(4, 4, 0, 1)])


def test_the_bundled_creatures_see_47_pixels_every_4() -> None:
    model = whence.load_model("creatures")
    fields = receptive_fields(model, torch.zeros(1, 3, 64, 64), "top")
    assert fields.size == (47, 47)
    assert torch.equal(fields.rows, 4 * torch.arange(16, dtype=torch.float64))
    at = torch.tensor([[0, 0], [3, 5]])
    assert fields.centres(at).tolist() == [[0, 0], [12, 20]]
    assert receptive_fields(model, torch.zeros(1, 3, 64, 64)).size == (47, 47)


def test_residual_net_whose_fields_are_all_cut() -> None:
    # The stem and its pool, then eight convolutions of which one has stride 2.
    chain = [(7, 2, 3, 1), (3, 2, 1, 1), *[(3, 1, 1, 1)] * 4, (3, 2, 1, 1), *[(3, 1, 1, 1)] * 3]
    check(receptive_fields(resnet18(weights=None), torch.zeros(1, 3, 96, 96), "layer2"), chain)


def test_vgg16_of_few_channels_whose_fields_are_196_of_224_pixels() -> None:
    plan = [2, 2, "M", 2, 2, "M", 2, 2, 2, "M", 2, 2, 2, "M", 2, 2, 2]
    net = nn.Sequential(vgg.make_layers(plan), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    chain = [(2, 2, 0, 1) if step == "M" else (3, 1, 1, 1) for step in plan]
    assert recursion(chain)[1:] == (16, 196)
    check(receptive_fields(net, torch.zeros(1, 3, 224, 224), "0"), chain)


def test_the_masked_maps_of_a_wrapper_see_what_the_raw_maps_see() -> None:
    net, x = made(headed(nn.Conv2d(1, 4, 3, 2, 1), nn.ReLU()), 24, 16)
    wrapped = interpretable(net, x, "0", added=True)
    check(receptive_fields(wrapped, x, "model.0"), [(3, 2, 1, 1)])
    check(receptive_fields(wrapped, x), [(3, 2, 1, 1), (3, 1, 1, 1)])


class Squeeze(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * x.mean((2, 3), keepdim=True).sigmoid()


@pytest.mark.parametrize(
    "chain",
    [
        (nn.Conv2d(1, 2, 3, 2, 1), Squeeze()),
        (nn.Conv2d(1, 2, 3, 2, 1), nn.GroupNorm(1, 2)),
        (nn.Conv2d(1, 2, 3, 2, 1), nn.Conv2d(2, 2, 41, 1, 20)),
        (nn.Conv2d(1, 2, 4, 4), nn.Upsample(scale_factor=2)),
    ],
    ids=["squeeze", "norm", "deep", "enlarged"],
)
def test_where_fields_cannot_be_told_middles_are_spread_evenly(chain: tuple[nn.Module, ...]) -> None:
    net, x = made(headed(*chain), 32, 16)
    fields = receptive_fields(net, x, "0")
    assert not fields.exact
    assert fields.size is None
    assert torch.equal(fields.rows, 2 * torch.arange(16, dtype=torch.float64) + 0.5)
    assert torch.equal(fields.columns, 2 * torch.arange(8, dtype=torch.float64) + 0.5)


def test_the_model_stays_as_it_is() -> None:
    net, x = made(headed(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Dropout()), 12)
    net.train()
    before = {name: t.clone() for name, t in net.state_dict().items()}
    state = torch.get_rng_state()
    receptive_fields(Classifier(net), x, "0")
    assert all(m.training for m in net.modules())
    assert all(torch.equal(t, before[name]) for name, t in net.state_dict().items())
    assert torch.equal(state, torch.get_rng_state())
    assert bool(x.isfinite().all())


def test_a_layer_that_is_not_there_and_a_picture_of_nan() -> None:
    net, x = made(headed(nn.Conv2d(1, 2, 3)), 12)
    with pytest.raises(UnknownLayerError):
        receptive_fields(net, x, "top")
    with pytest.raises(LayerError):
        receptive_fields(net, x, "3")
    with pytest.raises(NotFiniteError):
        receptive_fields(net, torch.full_like(x, torch.nan), "0")
