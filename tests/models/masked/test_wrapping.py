"""The wrapper: the model's own keys, what it changes and what it leaves, and how it is taken off."""

import copy
import gc
import io
import weakref

import pytest
import torch
from torch import Tensor, nn

import whence
from small_nets import Lambda, SmallNet, SmallViT, drawn, pictures, tiny_options
from whence.errors import LayerError, ModelError, OptionError, UnknownLayerError
from whence.interpretable import Interpretable, Mask, interpretable
from whence.models.session import opened

X = pictures(2)


def wrapped(layer: str | None = None, *, seed: int = 0, **options: object) -> Interpretable:
    return interpretable(drawn(SmallNet(), seed).eval(), X, layer, **options)


def off(wrapper: Interpretable) -> Interpretable:
    wrapper.interpretable.mask.on = False
    return wrapper


# Its output


def test_it_masks_the_layer_and_nothing_else() -> None:
    wrapper = wrapped("relu#1")
    net = wrapper.plain()
    with torch.no_grad():
        maps = net.relu(net.down(net.block(net.relu(net.stem(X)))))
        expected = net.head(Mask()(maps).mean((2, 3)))
        assert torch.equal(wrapper(X), expected)
        assert not torch.allclose(net(X), expected)
        with wrapper.recording() as raw:
            wrapper(X)
        assert torch.equal(raw[0], maps)


def test_the_default_layer_is_the_one_that_is_explained_by_default() -> None:
    with opened(whence.Classifier(drawn(SmallNet()))) as session:
        assert wrapped().form.layer == session.catalogue(X).chosen == "relu#1"


@pytest.mark.parametrize("layer", ["relu#1", "relu", "block"])
def test_without_mask_an_added_layer_changes_nothing_at_first(layer: str) -> None:
    wrapper = off(wrapped(layer, added=True))
    assert torch.equal(wrapper(X), wrapper.plain()(X))


def test_signed_maps_get_a_convolution_and_a_rectifier() -> None:
    """``down`` stands before a rectifier, so that with the mask off nothing changes."""
    wrapper = off(wrapped("down"))
    assert "interpretable.added.weight" in wrapper.state_dict()
    assert torch.equal(wrapper(X), wrapper.plain()(X))
    with wrapper.recording() as raw:
        wrapper(X)
    assert bool((raw[0] >= 0).all())


@pytest.mark.parametrize("on", [True, False])
@pytest.mark.parametrize(("layer", "added"), [("down", None), ("stem", None), ("relu#1", True), ("block", None)])
def test_gradients_flow_although_the_next_layer_works_in_place(layer: str, added: bool | None, on: bool) -> None:
    wrapper = wrapped(layer, added=added)
    wrapper.interpretable.mask.on = on
    with wrapper.recording() as raw:
        logits = wrapper(X)
    kept = raw[0].detach().clone()
    (gradient,) = torch.autograd.grad(logits[:, 1].sum(), raw[0], retain_graph=True)
    logits.sum().backward()
    assert bool(gradient.abs().sum() > 0)
    assert torch.equal(raw[0], kept)
    assert all(bool(p.grad.isfinite().all()) for p in wrapper.interpretable.parameters())


# Its state


def test_the_models_own_keys_are_unchanged() -> None:
    plain = SmallNet()
    wrapper = wrapped("down", classes=5)
    ours = {
        *("interpretable.added.weight", "interpretable.added.bias", "interpretable.mask.beta"),
        *(f"interpretable.categories.{name}" for name in ("activation", "seen", "frozen")),
    }
    assert list(wrapper.state_dict())[: len(plain.state_dict())] == list(plain.state_dict())
    assert set(wrapper.state_dict()) - set(plain.state_dict()) == ours
    assert len(list(wrapper.parameters())) == len(list(plain.parameters())) + 2


def test_the_state_loads_back_and_into_the_plain_model() -> None:
    source, target = wrapped("down", classes=5, seed=1), wrapped("down", classes=5, seed=2)
    with torch.no_grad():
        source.interpretable.added.weight += 0.1
    source.interpretable.categories.train().update(torch.rand(2, 8, 4, 4).double(), torch.tensor([0, 3]))
    buffer = io.BytesIO()
    torch.save(source.state_dict(), buffer)
    buffer.seek(0)
    target.load_state_dict(torch.load(buffer), strict=True)
    assert torch.equal(target(X), source(X))
    assert torch.equal(target.interpretable.categories.assigned(), source.interpretable.categories.assigned())
    own = {key: value for key, value in source.state_dict().items() if not key.startswith("interpretable.")}
    fresh = SmallNet().double().eval()
    fresh.load_state_dict(own, strict=True)
    assert torch.equal(fresh(X), source.plain()(X))
    again = wrapped("relu#1", seed=3)
    missing, unexpected = again.load_state_dict(own, strict=False)
    assert missing == ["interpretable.mask.beta"]
    assert unexpected == []
    assert torch.equal(again.plain()(X), fresh(X))


def test_a_strict_load_misses_what_is_not_there() -> None:
    wrapper = wrapped("down")
    state = wrapper.state_dict()
    del state["head.weight"]
    with pytest.raises(RuntimeError, match=r"head\.weight"):
        wrapper.load_state_dict(state)
    with pytest.raises(RuntimeError, match="Unexpected"):
        wrapper.load_state_dict({**wrapper.state_dict(), "elsewhere": torch.zeros(1)})


# Taken off, copied, moved


def test_nothing_is_left_on_the_model() -> None:
    net = drawn(SmallNet()).eval()
    before, keys = net(X), {name: dict(vars(module)) for name, module in net.named_modules()}
    wrapper = interpretable(net, X, "relu#1", classes=5)
    with wrapper.recording():
        wrapper(X)
    assert wrapper.plain() is net
    assert torch.equal(net(X), before)
    for name, module in net.named_modules():
        assert vars(module).keys() == keys[name].keys()
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in wrapper.modules())


def test_an_error_in_the_middle_leaves_no_hook() -> None:
    wrapper = wrapped("block")
    with pytest.raises(RuntimeError), wrapper.recording():
        wrapper(torch.zeros(1, 7, 8, 8))
    assert all(not module._forward_hooks for module in wrapper.modules())


def test_no_map_is_kept_outside_a_recording() -> None:
    wrapper = wrapped("relu#1").train()
    with wrapper.recording() as raw:
        wrapper(X)
    reference = weakref.ref(raw.pop())
    wrapper(X)
    gc.collect()
    assert reference() is None
    assert raw == []


def test_a_recording_without_a_pass_is_an_error() -> None:
    with pytest.raises(LayerError, match="never ran"), wrapped("block").recording():
        pass


def test_copies_modes_and_types() -> None:
    wrapper = wrapped("down", classes=5)
    other = copy.deepcopy(wrapper)
    with torch.no_grad():
        other.plain().head.weight.zero_()
        other.interpretable.added.weight.zero_()
    assert not torch.equal(other(X), wrapper(X))
    flags = [(w.training, w.plain().training, w.interpretable.categories.training) for w in (wrapper, other.train())]
    assert flags == [(False,) * 3, (True,) * 3]
    expected = wrapper(X)
    torch.testing.assert_close(wrapper.float()(X.float()).double(), expected, rtol=1e-4, atol=1e-5)
    assert wrapper.to(torch.bfloat16)(X.bfloat16()).dtype == torch.bfloat16


def inline(net: Lambda, x: Tensor) -> Tensor:
    """Run a SmallNet with the mask written into its forward."""
    model = net.model
    x = net.interpretable(model.block(model.relu(model.stem(x))))
    return model.head(model.dropout(model.relu(model.down(x)).mean((2, 3))))


@pytest.mark.parametrize(
    ("method", "layer"),
    [
        *((method, layer) for method in ("grad-cam", "score-cam") for layer in ("model.stem", "interpretable")),
        *(("ablation-cam", "model.relu#1"), ("lrp", None), ("integrated-gradients", None)),
    ],
)
def test_methods_explain_a_wrapper_like_a_model_with_the_mask_inside(method: str, layer: str | None) -> None:
    wrapper = wrapped("block")
    reference = Lambda(inline, model=wrapper.plain(), interpretable=wrapper.interpretable).eval()
    options = tiny_options(whence.methods.facts(method))
    if layer is not None:
        options["layer"] = layer
    found, expected = (
        whence.attribute(whence.Classifier(net), X, method, target=1, **options) for net in (wrapper, reference)
    )
    assert torch.equal(found.values, expected.values)
    assert bool(found.values.any())


# Real architectures


def torchvision_net(name: str) -> nn.Module:
    return pytest.importorskip("torchvision").models.get_model(name, weights=None)


def timm_net(name: str) -> nn.Module:
    return pytest.importorskip("timm").create_model(name)


def vgg16() -> nn.Module:
    """Return VGG-16 with a smaller classifier, whose 120 million weights would take their time."""
    with torch.device("meta"):
        net = torchvision_net("vgg16")
    net.avgpool, net.classifier = nn.AdaptiveAvgPool2d(1), nn.Linear(512, 10, device="meta")
    return net.to_empty(device="cpu")


NETS = {
    "resnet18": lambda: torchvision_net("resnet18"),
    "vgg16": vgg16,
    "mnasnet0_5": lambda: torchvision_net("mnasnet0_5"),
    "timm resnet": lambda: timm_net("resnet10t"),
    "timm mobilenet": lambda: timm_net("mobilenetv3_small_050"),
    "own": SmallNet,
}


@pytest.mark.parametrize("name", NETS)
def test_torchvision_timm_and_own_nets(name: str) -> None:
    net = drawn(NETS[name](), shape=(3, 64, 64)).float().eval()
    x = pictures(size=64).float()
    keys = list(net.state_dict())
    before = net(x)
    wrapper = interpretable(net, x)
    with wrapper.recording() as raw:
        out = wrapper(x)
    assert out.shape == before.shape
    assert not torch.equal(out, before)
    assert raw[0].shape[2] > 1
    assert bool((raw[0] >= 0).all())
    state = wrapper.state_dict()
    assert [key for key in state if not key.startswith("interpretable.")] == keys
    wrapper.load_state_dict(state, strict=True)
    assert torch.equal(wrapper.plain()(x), before)


# Errors


def dead_end() -> nn.Module:
    return drawn(
        Lambda(
            lambda net, x: (net.head(net.conv(x).mean((2, 3))), net.pool(x))[0],
            conv=nn.Conv2d(3, 4, 3),
            pool=nn.AdaptiveAvgPool2d(1),
            head=nn.Linear(4, 5),
        )
    )


@pytest.mark.parametrize(
    ("net", "layer", "options", "error", "message"),
    [
        (SmallNet, "blok", {}, UnknownLayerError, "did you mean 'block'"),
        (SmallNet, "relu#2", {}, LayerError, "never ran"),
        (SmallNet, "head", {}, LayerError, "no map"),
        (SmallNet, "down", {"added": False}, OptionError, "below zero"),
        (SmallNet, "down", {"beta": torch.ones(3)}, OptionError, "8 filters"),
        (SmallNet, "down", {"classes": 9}, OptionError, "at least 9 channels"),
        (SmallViT, "blocks.0", {}, LayerError, r"map \[B, K, H, W\]"),
        (dead_end, "pool", {}, LayerError, "more than one place"),
        (lambda: nn.DataParallel(SmallNet()), None, {}, ModelError, "then wrap it"),
        (lambda: wrapped("block"), None, {}, ModelError, "keys under 'interpretable.'"),
    ],
)
def test_errors_say_what_to_do(net, layer, options, error, message) -> None:
    with pytest.raises(error, match=message):
        interpretable(net().double(), X, layer, **options)


def test_an_output_that_is_no_tensor_keeps_its_form() -> None:
    net = drawn(
        Lambda(
            lambda net, x: {"logits": net.head(net.pair(x)[0].mean((2, 3)))},
            pair=Lambda(lambda pair, x: (pair.conv(x).relu(), 1), conv=nn.Conv2d(3, 4, 3)),
            head=nn.Linear(4, 5),
        )
    )
    wrapper = interpretable(net, X, "pair")
    out: dict[str, Tensor] = wrapper(X)
    expected = net.head(Mask()(net.pair(X)[0]).mean((2, 3)))
    assert torch.equal(out["logits"], expected)
