"""The norms of the bundled convolutional net: which values each takes together, and what stays the same."""

import pytest
import torch

from small_nets import drawn, pictures, relative
from whence import attribute
from whence.errors import ModelError
from whence.models.bundled.creature_net import LayerNorm2d, creature_net
from whence.models.classifier import Classifier

NORMS = ["batch", "group", "layer"]
SIDE = 32


@pytest.mark.parametrize("norm", NORMS)
def test_every_norm_has_the_same_parameters(norm):
    shapes, plain = ({name: p.shape for name, p in creature_net(norm=n).named_parameters()} for n in (norm, "batch"))
    assert shapes == plain
    assert sum(shape.numel() for shape in shapes.values()) == 177_113


def test_batch_norm_is_the_default_and_alone_has_statistics():
    assert list(creature_net().state_dict()) == list(creature_net(norm="batch").state_dict())
    assert [len(list(creature_net(norm=norm).buffers())) for norm in NORMS] == [30, 0, 0]


@pytest.mark.parametrize("norm", NORMS)
def test_only_batch_norm_in_training_sees_the_other_pictures(norm):
    net, x = drawn(creature_net(norm=norm)).train(), pictures(size=SIDE)
    alone = torch.cat([net(x[:1]), net(x[1:])]).detach()
    assert (relative(net(x).detach(), alone) > 1e-3) == (norm == "batch")


def test_the_layer_norm_takes_the_channels_of_each_place():
    norm, x = LayerNorm2d(5).double(), pictures(2, 5, (3, 4))
    with torch.no_grad():
        norm.weight.copy_(torch.arange(1, 6))
        norm.bias.copy_(torch.arange(5))
    y = norm(x)
    for b, i, j in torch.cartesian_prod(torch.arange(2), torch.arange(3), torch.arange(4)):
        one = x[b, :, i, j]
        expected = (one - one.mean()) / (one.var(correction=0) + norm.eps).sqrt() * norm.weight + norm.bias
        torch.testing.assert_close(y[b, :, i, j], expected)


def test_the_group_norm_takes_an_eighth_of_the_channels_and_all_places():
    norm, x = creature_net(norm="group").double().stages[1].second[1], pictures(2, 48, 6)
    groups = x.reshape(2, 8, 6, 6, 6)
    mean, variance = groups.mean((2, 3, 4), keepdim=True), groups.var((2, 3, 4), correction=0, keepdim=True)
    torch.testing.assert_close(norm(x), ((groups - mean) / (variance + norm.eps).sqrt()).reshape(x.shape))


@pytest.mark.parametrize("norm", NORMS)
def test_relevance_is_in_balance_with_every_norm(norm):
    net = drawn(creature_net(norm=norm), shape=(3, SIDE, SIDE)).eval()
    answer = attribute(Classifier(net), pictures(size=SIDE), "lrp", target=[1, 5])
    assert (answer.balance.unaccounted.abs() <= 1e-10 * answer.values.abs().flatten(1).sum(1)).all()
    assert not any("without a rule" in note for notes in answer.notes for note in notes)


def test_an_unknown_norm_is_refused():
    with pytest.raises(ModelError, match="no norm 'bach', did you mean 'batch'"):
        creature_net(norm="bach")
