"""maps_of collects what a layer returns, masked where that is asked for."""

import pytest
import torch
from torch import Tensor, nn

from small_nets import drawn, pictures
from whence.errors import OptionError, UnknownLayerError
from whence.interpretable import Mask, interpretable
from whence.interpretable.measures import maps_of
from whence.models.classifier import Classifier


def net() -> nn.Sequential:
    layers = (nn.Conv2d(3, 6, 3, 2, 1), nn.BatchNorm2d(6), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return drawn(nn.Sequential(*layers, nn.Linear(6, 2)))


def by_hand(model: nn.Module, x: Tensor) -> Tensor:
    return model[:3].eval()(x).detach()


def test_the_maps_of_an_ordinary_model_and_the_mask_behind_them() -> None:
    model, x = net(), pictures(5)
    expected = by_hand(model, x)
    model.train()
    batches = [x[:2], x[2:]]
    assert torch.allclose(maps_of(model, batches, "2"), expected)
    assert torch.allclose(maps_of(Classifier(model), iter(batches)), expected)
    assert torch.allclose(maps_of(model, batches, "1").amax((2, 3)), expected.amax((2, 3)))
    masked = maps_of(model, batches, "2", mask=Mask(3.0))
    assert torch.allclose(masked, Mask(3.0)(expected))
    assert not torch.allclose(masked, expected)
    assert all(m.training for m in model.modules())


def test_the_maps_of_a_wrapper_are_masked_unless_others_are_named() -> None:
    model, x = net(), pictures(3)
    wrapped = interpretable(model, x, "2", beta=3.0)
    raw = by_hand(model, x)
    assert torch.allclose(maps_of(wrapped, [x]), Mask(3.0)(raw))
    assert torch.allclose(maps_of(wrapped, [x], "interpretable.added"), raw)
    assert torch.allclose(maps_of(wrapped, [x], "model.2"), raw)


def test_what_cannot_be_collected() -> None:
    model = net()
    with pytest.raises(OptionError, match="at least one batch"):
        maps_of(model, [])
    with pytest.raises(OptionError, match="one size"):
        maps_of(model, [pictures(1), pictures(1, size=20)], "2")
    with pytest.raises(UnknownLayerError):
        maps_of(model, [pictures(1)], "top")
