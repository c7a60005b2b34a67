"""A model up to a layer, the mean of its maps, and one linear layer: what runs, what CAM says, what is written."""

import io

import pytest
import torch
from torch import nn

import whence
from small_nets import Lambda, SmallNet, SmallViT, drawn, pictures
from whence.errors import LayerError, ModelError, OptionError, UnknownLayerError
from whence.models.cam_head import CamForm, CamHead
from whence.models.load import load_model
from whence.models.masked.wrapper import interpretable
from whence.models.taps import ended_at
from whence.models.writing import Origin, write

X = pictures(2)
LAYERS = {"stem": 6, "relu": 6, "block": 6, "down": 8, "relu#1": 8}


def with_head(net: nn.Module, layer: str, filters: int, classes: int = 4) -> CamHead:
    head = CamHead(net, layer, filters, classes).double().eval()
    generator = torch.Generator().manual_seed(1)
    for parameter in head.cam_head.parameters():
        parameter.data.copy_(torch.randn(parameter.shape, generator=generator))
    return head


def small(layer: str = "block", inplace: bool = True) -> CamHead:
    return with_head(drawn(SmallNet(inplace=inplace)), layer, LAYERS[layer])


def maps(layer: str) -> torch.Tensor:
    """Run a SmallNet, none of whose operations works in place, by hand up to a layer."""
    net = drawn(SmallNet(inplace=False)).eval()
    out = {"stem": net.stem(X)}
    out["relu"] = out["stem"].relu()
    out["block"] = net.block(out["relu"])
    out["down"] = net.down(out["block"])
    out["relu#1"] = out["down"].relu()
    return out[layer].detach()


class Fatal(nn.Module):
    def forward(self, x):
        raise AssertionError("what comes after the layer ran")


# Its output


@pytest.mark.parametrize("layer", LAYERS)
def test_it_is_the_mean_of_each_map_and_a_linear_layer(layer):
    head = small(layer, inplace=False)
    means = maps(layer).mean((2, 3))
    assert torch.allclose(head.pooled(X), means, rtol=1e-12, atol=1e-12)
    expected = means @ head.cam_head.weight.T + head.cam_head.bias
    assert torch.allclose(head(X), expected, rtol=1e-12, atol=1e-12)


def test_nothing_behind_the_layer_runs():
    head = small("block")
    before = head(X)
    head.model.down, head.model.head = Fatal(), Fatal()
    assert torch.equal(head(X), before)
    with pytest.raises(AssertionError, match="ran"):
        head.model(X)


def test_the_model_itself_still_runs_to_its_end_and_keeps_no_hook():
    net = drawn(SmallNet()).eval()
    before = net(X)
    head = with_head(net, "block", 6)
    head(X)
    assert head.plain() is net
    assert torch.equal(net(X), before)
    assert not any(module._forward_hooks for module in head.modules())


def test_a_model_that_catches_all_errors_is_ended_too():
    def forward(net, x):
        try:
            return net.conv(x)
        except Exception:
            return x

    net = drawn(Lambda(forward, conv=nn.Conv2d(3, 4, 3)))
    assert with_head(net, "conv", 4)(X).shape == (2, 4)


def test_before_it_is_fitted_it_says_zero_and_draws_nothing():
    net = drawn(SmallNet())
    state = torch.get_rng_state()
    head = CamHead(net, "block", 6, 4).double()
    assert not head(X).any()
    assert torch.equal(torch.get_rng_state(), state)


def test_tokens_of_patches_are_pooled_without_the_others():
    net = drawn(SmallViT()).eval()
    with ended_at(net, "blocks.0") as returned:
        net(X)
    prefix = returned[0].shape[1] % 4
    assert prefix > 0
    head = with_head(net, "blocks.0", returned[0].shape[2])
    assert torch.allclose(head.pooled(X), returned[0][:, prefix:].mean(1), rtol=1e-12, atol=1e-12)


def test_channels_may_come_last():
    net = Lambda(lambda net, x: net.last(x).sum(), last=Lambda(lambda _, x: x.movedim(1, -1)))
    assert torch.allclose(with_head(net, "last", 3).pooled(X), X.mean((2, 3)), rtol=1e-12, atol=1e-12)


# What explains it


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("target", [0, 3])
def test_cam_is_the_class_s_weights_on_the_maps(layer, target):
    head = small(layer)
    found = whence.attribute(whence.Classifier(head), X, "cam", target=target, layer=f"model.{layer}")
    expected = torch.einsum("k,bkhw->bhw", head.cam_head.weight[target].detach(), maps(layer))
    assert torch.allclose(found.values[:, 0], expected, rtol=1e-9, atol=1e-9)


def test_cam_needs_no_layer_where_the_head_stands_behind_the_last_one():
    head = small("relu#1")
    found = whence.attribute(whence.Classifier(head), X, "cam", target=1)
    assert found.layer == "model.relu#1"
    with pytest.raises(whence.errors.UnsupportedError):
        whence.attribute(whence.Classifier(head), X, "cam", target=1, layer="model.block")


@pytest.mark.parametrize("layer", LAYERS)
def test_grad_cam_is_cam_over_the_number_of_places(layer):
    classifier = whence.Classifier(small(layer))
    grad_cam, cam = (
        whence.attribute(classifier, X, name, target=2, layer=f"model.{layer}").values for name in ("grad-cam", "cam")
    )
    places = cam.shape[-2] * cam.shape[-1]
    assert torch.allclose(grad_cam, cam / places, rtol=1e-9, atol=1e-12)
    assert bool((grad_cam > 0).any())


def test_the_gradient_is_that_of_the_formula():
    head = small("block", inplace=False)
    found = whence.attribute(whence.Classifier(head), X, "gradient", target=1).values
    x = X.clone().requires_grad_()
    net = head.model
    pooled = net.block(net.relu(net.stem(x))).mean((2, 3))
    (expected,) = torch.autograd.grad((pooled @ head.cam_head.weight[1]).sum(), x)
    assert torch.allclose(found, expected, rtol=1e-9, atol=1e-12)


def test_lrp_hands_on_what_the_same_net_without_a_wrapper_does():
    head = small("block")
    plain = Lambda(
        lambda net, x: net.head(net.block(net.relu(net.stem(x))).mean((2, 3))),
        **{name: getattr(head.model, name) for name in ("stem", "relu", "block")},
        head=head.cam_head,
    ).eval()
    found, expected = (whence.attribute(whence.Classifier(net), X, "lrp", target=1).values for net in (head, plain))
    assert torch.allclose(found, expected, rtol=1e-9, atol=1e-12)
    assert bool(found.any())


# Its state and its folder


def test_the_models_own_keys_are_unchanged_and_load_back():
    source, target = small("block"), CamHead(drawn(SmallNet(), 7), "block", 6, 4).double().eval()
    plain = SmallNet().double().eval()
    assert set(source.state_dict()) - set(plain.state_dict()) == {"cam_head.weight", "cam_head.bias"}
    buffer = io.BytesIO()
    torch.save(source.state_dict(), buffer)
    buffer.seek(0)
    state = torch.load(buffer)
    target.load_state_dict(state, strict=True)
    assert torch.equal(target(X), source(X))
    plain.load_state_dict({key: value for key, value in state.items() if not key.startswith("cam_head.")})
    assert torch.equal(plain(X), source.plain()(X))


def written(folder, head, **changed):
    model = load_model("creatures")
    folder.mkdir(exist_ok=True)
    settings = {"name": "mine", "labels": ["a", "b"], "preprocess": model.preprocess, **changed}
    write(folder, head, Origin.of("creatures", {}), **settings)
    return folder


def test_a_folder_holds_it(tmp_path):
    head = with_head(load_model("creatures").module.double(), "stages.1", 48, 2).float()
    found = load_model(written(tmp_path, head))
    x = pictures(2, size=64).float()
    assert torch.equal(found.module(x), head(x))
    assert found.module.form == CamForm("stages.1", 48, 2)
    assert found.labels == ("a", "b")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("filters = 48", "", r"\[cam-head\] has no filters"),
        ("filters = 48", "filters = 0", "0 filters and 2 classes: give at least 1"),
        ("filters = 48", "filters = 47", r"cam_head.weight \[2, 48\] for \[2, 47\]"),
        ("classes = 2", "classes = true", "cam-head.classes = True is not a whole number"),
        ("classes = 2", "classes = 2\nbeta = 1", "there is no key 'cam-head.beta'"),
        ('layer = "stages.1"', 'layer = "stages.7"', "has no layer 'stages.7'"),
        ("[cam-head]", '[interpretable]\nlayer = "top"\nfilters = 64\n\n[cam-head]', "of which a model can have one"),
    ],
)
def test_a_faulty_table_is_named(tmp_path, old, new, words):
    written(tmp_path, CamHead(load_model("creatures").module, "stages.1", 48, 2))
    path = tmp_path / "model.toml"
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises((ModelError, LayerError), match=words):
        load_model(tmp_path).module(pictures(1, size=64).float())


def test_labels_must_be_as_many_as_the_head_has_classes(tmp_path):
    head = CamHead(load_model("creatures").module, "stages.1", 48, 2)
    with pytest.raises(ModelError, match="holds 3 labels for a model of 2 classes"):
        load_model(written(tmp_path, head, labels=["a", "b", "c"]))


def test_two_wrappers_cannot_be_written(tmp_path):
    masked = interpretable(load_model("creatures").module, pictures(1, size=64).float())
    with pytest.raises(ModelError, match=r"two wrappers.*plain\(\) of 'mine'"):
        written(tmp_path, CamHead(masked, "model.stages.1", 48, 2))


# Errors


@pytest.mark.parametrize(
    ("layer", "filters", "error", "words"),
    [
        ("blok", 6, UnknownLayerError, "did you mean 'block'"),
        ("relu#2", 6, LayerError, "never ran"),
        ("head", 5, LayerError, "layer 'head' has no map"),
        ("block", 7, LayerError, "has 6 maps, and its CAM head is for 7"),
    ],
)
def test_errors_say_what_to_do(layer, filters, error, words):
    with pytest.raises(error, match=words):
        with_head(drawn(SmallNet()), layer, filters)(X)


@pytest.mark.parametrize(
    ("last", "words"),
    [
        (lambda net, x: x.mean((2, 3), keepdim=True), "a map of more than one place"),
        (lambda net, x: x.flatten(2).movedim(2, 0), "holds the batch first"),
    ],
)
def test_what_is_no_map_with_the_batch_first_is_refused(last, words):
    net = Lambda(lambda net, x: net.last(x), last=Lambda(last))
    with pytest.raises(LayerError, match=words):
        with_head(net, "last", 3)(X)


def test_a_head_of_nothing_is_refused():
    with pytest.raises(OptionError, match="give at least 1 each"):
        CamForm("block", 6, 0).around(SmallNet())
