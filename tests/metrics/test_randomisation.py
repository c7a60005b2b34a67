"""Randomisation: rank correlation, the layers that are drawn, and a model that stays what it is."""

import numpy as np
import pytest
import torch
from torch import nn

from metric_samples import answer, heat
from small_nets import Lambda, SmallNet, SmallViT, drawn, pictures
from whence import attribute
from whence.errors import NotFiniteError, OptionError, UnsupportedError
from whence.metrics import measure, randomisation
from whence.metrics.measuring import claim
from whence.metrics.randomisation import _randomised, _ranked, correlation
from whence.models.classifier import Classifier

LAYERS = ["stem.0", "stem.1", "block.conv", "block.bn", "down", "head"]


@pytest.fixture(scope="module")
def net():
    return drawn(SmallNet()).eval()


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    """Correlation of mean ranks, counted place by place."""
    ranks = [np.array([(one > v).sum() + ((one == v).sum() + 1) / 2 for v in one]) for one in (a, b)]
    return float(np.corrcoef(*ranks)[0, 1])


def test_it_is_spearman_s_correlation_also_at_ties():
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randint(0, 6, (2, 4, 5, 6), generator=generator).double()
    b = a + b
    found = correlation(_ranked(a, False), _ranked(b, False))
    wanted = [spearman(one.flatten().numpy(), other.flatten().numpy()) for one, other in zip(a, b, strict=True)]
    assert found.tolist() == pytest.approx(wanted, rel=1e-9)
    assert correlation(_ranked(a, False), _ranked(-a, False)).tolist() == pytest.approx([-1] * 4)


def changed_layers(net: nn.Module, other: nn.Module) -> list[str]:
    mine, theirs = dict(net.named_parameters()), dict(other.named_parameters())
    return [name for name in LAYERS if not torch.equal(mine[f"{name}.weight"], theirs[f"{name}.weight"])]


@pytest.mark.parametrize(
    ("order", "steps", "wanted"),
    [
        ("top-down", None, [["head"], ["down", "head"], *[None] * 4]),
        ("bottom-up", None, [["stem.0"], None, None, None, None, None]),
        ("independent", 3, [["stem.0"], ["block.conv"], ["down", "head"]]),
        ("top-down", 2, [["down", "head"], ["stem.0", "block.conv", "down", "head"]]),
        ("top-down", 50, [["head"], ["down", "head"], *[None] * 4]),
    ],
)
def test_the_layers_go_in_order(net, order, steps, wanted):
    """The weights of norms are drawn as they were: 1."""
    x = pictures(1)
    of = claim(Classifier(net), x, answer(heat(1, 16, 16), x), None)
    found = [(share, changed_layers(net, model.module)) for share, model in _randomised(of, order, steps, 0)]
    assert len(found) == len(wanted)
    assert all(one is None or one == layers for one, (_, layers) in zip(wanted, found, strict=True))
    assert [share for share, _ in found] == pytest.approx([(k + 1) / len(wanted) for k in range(len(wanted))])


def test_statistics_go_with_their_layer(net):
    x = pictures(1)
    of = claim(Classifier(net), x, answer(heat(1, 16, 16), x), None)
    stages = [model.module.block.bn.running_var.clone() for _, model in _randomised(of, "top-down", None, 0)]
    assert torch.equal(stages[1], net.block.bn.running_var)
    assert not torch.equal(stages[2], net.block.bn.running_var)


def test_the_value_is_the_mean_over_the_steps(net):
    x = pictures(2)
    made = attribute(net, x, "input-x-gradient", target=1)
    found = measure(net, x, made, "randomisation", steps=3)
    assert found.curve.value.shape == (2, 3)
    torch.testing.assert_close(found.value, found.curve.value.mean(1))
    for (_, model), step in zip(
        _randomised(claim(Classifier(net), x, made, None), "top-down", 3, 0), range(3), strict=True
    ):
        other = attribute(model, x, "input-x-gradient", target=1).heatmap()
        wanted = [
            spearman(a.flatten().numpy(), b.flatten().numpy()) for a, b in zip(made.heatmap(), other, strict=True)
        ]
        assert found.curve.value[:, step].tolist() == pytest.approx(wanted, rel=1e-9)


def test_a_model_drawn_from_the_same_seed_does_not_come_out_the_same(net):
    x = pictures(2)
    made = attribute(net, x, "input-x-gradient", target=1)
    assert measure(net, x, made, "randomisation", seed=0).value.abs().max() < 0.9


def test_absolute_maps_do_not_see_the_sign():
    """A model of one weight a place, whose sign alone the draw can turn: all places change alike."""
    net = Lambda(lambda m, x: torch.stack((m.conv(x).sum((1, 2, 3)), x.sum((1, 2, 3))), 1), conv=nn.Conv2d(1, 1, 1))
    with torch.no_grad():
        net.double().conv.weight.fill_(1)
    x = pictures(1, channels=1)
    made = attribute(net, x, "input-x-gradient", target=0)
    found = [
        [float(measure(net, x, made, "randomisation", absolute=absolute, seed=seed).value) for seed in range(6)]
        for absolute in (False, True)
    ]
    assert found[1] == pytest.approx([1] * 6)
    assert sorted({round(one) for one in found[0]}) == [-1, 1]


def test_a_map_that_looks_at_no_weights_stays(net, monkeypatch):
    x = pictures(2)
    made = attribute(net, x, "gradient", target=1)
    monkeypatch.setattr(randomisation, "attribute_all", lambda *args, **kwargs: [made])
    assert measure(net, x, made, "randomisation").value.tolist() == pytest.approx([1, 1])


def test_flat_maps_have_no_number(net, monkeypatch):
    x = pictures(2)
    values = heat(2, 16, 16)
    values[0] = 1
    found = measure(net, x, answer(values, x, 1), "randomisation", steps=2)
    assert found.value.isnan().tolist() == [True, False]
    assert [len(notes) for notes in found.notes] == [1, 0]
    assert "same everywhere" in found.notes[0][0]


def test_the_layer_of_the_map_is_kept(net):
    x = pictures(1)
    made = attribute(net, x, "grad-cam", target=1)
    asked = []
    real = randomisation.attribute_all

    def spy(model, batch, method, targets, options, **rest):
        asked.append(options["layer"])
        return real(model, batch, method, targets, options, **rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(randomisation, "attribute_all", spy)
        measure(net, x, made, "randomisation", steps=2)
    assert asked == [made.layer] * 2


def test_transformers_too():
    net, x = drawn(SmallViT()).eval(), pictures(2)
    made = attribute(net, x, "attention-rollout")
    assert measure(net, x, made, "randomisation", steps=3).value.isfinite().all()


def fingerprint(net: nn.Module) -> list[object]:
    tensors = [*net.named_parameters(), *net.named_buffers()]
    held = [(name, id(t), t._version, t.detach().clone().flatten().tolist(), t.requires_grad) for name, t in tensors]
    flags = [(m.training, len(m._forward_hooks), len(m._forward_pre_hooks)) for m in net.modules()]
    return [held, flags, torch.get_rng_state().tolist(), torch.is_grad_enabled()]


@pytest.mark.parametrize("training", [False, True])
def test_the_model_is_untouched(training):
    net, x = drawn(SmallNet()).train(training), pictures(2)
    made = attribute(net, x, "grad-cam", target=1)
    before = fingerprint(net)
    measure(net, x, made, "randomisation", steps=2)
    assert fingerprint(net) == before


def test_the_model_is_untouched_when_it_fails(net, monkeypatch):
    x = pictures(2)
    made = attribute(net, x, "grad-cam", target=1)
    before = fingerprint(net)
    real, calls = randomisation.attribute_all, []

    def breaking(*args, **kwargs):
        calls.append(1)
        if len(calls) == 2:
            raise NotFiniteError("picture 0: the map holds NaN")
        return real(*args, **kwargs)

    monkeypatch.setattr(randomisation, "attribute_all", breaking)
    with pytest.raises(NotFiniteError):
        measure(net, x, made, "randomisation", steps=3)
    assert fingerprint(net) == before


def test_what_has_no_weights_or_cannot_be_copied_is_refused(net):
    x = pictures(1)
    made = answer(heat(1, 16, 16), x)
    with pytest.raises(UnsupportedError, match="shows none: give the torch module"):
        measure(lambda batch: batch.mean((2, 3)), x, made, "randomisation")
    stubborn = drawn(SmallNet())
    stubborn.lock = (one for one in ())
    with pytest.raises(UnsupportedError, match="which cannot be copied"):
        measure(stubborn, x, made, "randomisation")
    with pytest.raises(OptionError, match="steps=0: give at least 1"):
        measure(net, x, made, "randomisation", steps=0)
