"""Relevance at layers, relevance through some channels of a layer alone, and scores of any output."""

from typing import Any

import pytest
import torch
from lrp_nets import KINDS, lrp, net_of, stirred
from torch import Tensor, nn

import whence
from small_nets import SIZE, Lambda, SmallNet, SmallViT, pictures, relative
from whence import attribute
from whence.errors import LayerError, ModelError, OptionError, UnknownLayerError
from whence.methods.lrp import named, rules
from whence.methods.lrp.composites import Composite

TOLERANCE = 1e-10
# Carrying R / value, carrying R before the first operation, and carrying R everywhere.
FORMS = ["epsilon-alpha2-beta1", "epsilon-plus-flat", "preset-b-flat-until-2"]
UNMERGED = Composite("lrp-0 with batch norms of their own", (("batch-norm", "affine"),))
NAMES = [
    *("stem.0", "stem.1", "stem", "relu", "block.conv", "block.bn", "block.relu", "block"),
    *("down", "relu#1", "dropout", "head"),
]


def values_times_gradients(net: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """Return value times gradient of what each call of each module returns, by plain autograd."""
    outputs: dict[str, Tensor] = {}
    calls: dict[str, int] = {}

    def kept(name: str) -> Any:
        def hook(module: nn.Module, args: object, output: Tensor) -> None:
            number = calls[name] = calls.get(name, -1) + 1
            outputs[f"{name}#{number}" if number else name] = output

        return hook

    handles = [layer.register_forward_hook(kept(name)) for name, layer in net.named_modules() if name]
    score = net(x.clone().requires_grad_())[:, 1].sum()
    for handle in handles:
        handle.remove()
    gradients = torch.autograd.grad(score, list(outputs.values()))
    return {name: (y * g).detach() for (name, y), g in zip(outputs.items(), gradients, strict=True)}


# Names, order, shapes, values


@pytest.mark.parametrize("kind", ["residual", "in_place"])
def test_all_layers_come_in_the_order_in_which_they_ran(kind: str) -> None:
    answer = lrp(net_of(kind), pictures(), layer="all")
    assert list(answer.layers) == NAMES
    assert answer.layer is None
    assert answer.values.shape == (2, 3, SIZE, SIZE)
    assert {answer.layers[name].shape[1:] for name in NAMES[:8]} == {(6, SIZE, SIZE)}
    assert {answer.layers[name].shape[1:] for name in NAMES[8:10]} == {(8, SIZE // 2, SIZE // 2)}
    assert [answer.layers[name].shape for name in NAMES[10:]] == [(2, 8), (2, 5)]


@pytest.mark.parametrize("composite", FORMS)
def test_one_layer_is_the_map_and_several_stand_beside_the_input_s(composite: str) -> None:
    net, x = net_of("residual"), pictures()
    everything = lrp(net, x, composite=composite, layer="all")
    plain = lrp(net, x, composite=composite)
    assert relative(everything.values, plain.values) <= 1e-13
    one = lrp(net, x, composite=composite, layer="relu#1")
    assert one.layer == "relu#1"
    assert not one.layers
    assert torch.equal(one.values, everything.layers["relu#1"])
    several = lrp(net, x, composite=composite, layer=("head", "relu#1", "stem"))
    assert list(several.layers) == ["stem", "relu#1", "head"]
    assert torch.equal(several.values, everything.values)
    for name, r in several.layers.items():
        assert torch.equal(r, everything.layers[name])


@pytest.mark.parametrize(("kind", "composite"), [(kind, FORMS[i % 3]) for i, kind in enumerate(KINDS)])
def test_the_balance_holds_the_sum_at_every_layer(kind: str, composite: str) -> None:
    net, x = net_of(kind), pictures()
    answer = lrp(net, x, composite=composite, layer="all")
    assert list(answer.balance.layers) == list(reversed(answer.layers))
    for name, r in answer.layers.items():
        if kind == "attention" and r.ndim == 4:
            continue  # a map of patches holds no class token
        sums = r.flatten(1).sum(1)
        assert (answer.balance.layers[name] - sums).abs().max() <= 1e-12 * r.abs().sum(), name
    if kind == "functional":
        assert not answer.layers  # it calls none of its modules
    else:
        last = next(iter(answer.balance.layers))
        assert last in ("head", "9", "1")
        torch.testing.assert_close(answer.balance.layers[last], answer.balance.start, rtol=1e-12, atol=0)


def test_lrp_0_at_a_layer_is_value_times_gradient() -> None:
    net, x = net_of("residual"), pictures()
    expected = values_times_gradients(net, x)
    assert list(expected) == NAMES
    found = lrp(net, x, composite=UNMERGED, layer="all")
    for name in NAMES:
        assert relative(found.layers[name], expected[name]) <= TOLERANCE, name
    # What works in place does not change what a layer returned.
    in_place = lrp(net_of("in_place"), x, composite=UNMERGED, layer="all")
    for name in NAMES:
        assert relative(in_place.layers[name], expected[name]) <= TOLERANCE, name


def test_a_convolution_has_the_relevance_of_the_batch_norm_that_is_merged_into_it() -> None:
    net, x = net_of("residual"), pictures()
    expected = values_times_gradients(net, x)
    for composite in ("lrp-0", *FORMS):
        found = lrp(net, x, composite=composite, layer="all").layers
        assert torch.equal(found["stem.0"], found["stem.1"])
        assert torch.equal(found["block.conv"], found["block.bn"])
        if composite == "lrp-0":
            assert relative(found["block.bn"], expected["block.bn"]) <= TOLERANCE
            assert relative(found["block.conv"], expected["block.conv"]) > 0.1


def test_each_call_of_a_module_is_a_layer_of_its_own() -> None:
    net, x = net_of("twice"), pictures()
    expected = values_times_gradients(net, x)
    found = lrp(net, x, composite=UNMERGED, layer=("conv#1", "conv"))
    assert list(found.layers) == ["conv", "conv#1"]
    for name in found.layers:
        assert relative(found.layers[name], expected[name]) <= TOLERANCE
    assert relative(found.layers["conv"], found.layers["conv#1"]) > 0.1


@pytest.mark.parametrize("token", [True, False])
def test_the_relevance_of_tokens_is_a_map_of_patches(token: bool) -> None:
    """A class token is no place: the norm, of which the head reads the token alone, has an empty map then."""
    net = stirred(SmallViT(token=token))
    answer = lrp(net, pictures(), layer=("patch", "blocks.0", "blocks.1.mlp", "norm"))
    assert {r.shape for r in answer.layers.values()} == {(2, 12, 4, 4)}
    start = answer.balance.layers["norm"]
    maps = answer.layers["norm"].sum((1, 2, 3))
    if token:
        assert (answer.layers["norm"] == 0).all()
        assert (start != 0).all()
    else:
        torch.testing.assert_close(maps, start, rtol=1e-12, atol=0)
    patches = answer.layers["patch"].sum((1, 2, 3))
    torch.testing.assert_close(patches, answer.balance.layers["patch"], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("start", ["sglrp", "sglrp-two-pass", "clrp1", "clrp2"])
def test_layers_of_a_contrast_are_the_layers_of_its_parts(start: str) -> None:
    """Whatever is done with the parts at the input is done with them at every layer."""
    net, x = net_of("residual"), pictures()
    found = lrp(net, x, composite="epsilon-plus", start=start, layer=("relu", "relu#1"))
    for name in ("relu", "relu#1"):
        alone = lrp(net, x, composite="epsilon-plus", start=start, layer=name)
        assert torch.equal(found.layers[name], alone.values)
        assert (found.layers[name].min() >= 0) == start.startswith("clrp")


# Some channels alone


@pytest.mark.parametrize(
    ("layer", "composite"),
    [
        *(("stem.0", form) for form in FORMS),
        *zip(("stem", "relu", "block", "relu#1", "dropout", "head"), [*FORMS, *FORMS], strict=True),
    ],
)
def test_all_channels_change_nothing_and_parts_add_up(layer: str, composite: str) -> None:
    net, x = net_of("in_place"), pictures()
    whole = lrp(net, x, composite=composite, layer=layer)
    count = whole.values.shape[1]
    everything = lrp(net, x, composite=composite, keep={layer: range(count)})
    plain = lrp(net, x, composite=composite)
    assert relative(everything.values, plain.values) <= TOLERANCE
    assert everything.residual.max() <= 1e-9
    odd, even = range(1, count, 2), range(0, count, 2)
    by_text = lrp(net, x, composite=composite, keep=f"{layer}:{'+'.join(map(str, odd))}", layer=layer)
    assert (by_text.values[:, list(even)] == 0).all()
    assert relative(by_text.values[:, list(odd)], whole.values[:, list(odd)]) <= TOLERANCE
    parts = [lrp(net, x, composite=composite, keep={layer: list(part)}) for part in (odd, even)]
    assert relative(parts[0].values + parts[1].values, plain.values) <= TOLERANCE
    assert (relative(parts[0].values, plain.values) > 1e-3) == (layer != "head")
    for part in parts:
        b = part.balance
        assert set(b.other) >= {"not kept"}
        got = b.input + b.bias + b.constants + b.stabiliser + sum(b.other.values())
        scale = part.values.abs().sum() + b.other["not kept"].abs() + b.bias.abs()
        assert ((b.start - got).abs() <= TOLERANCE * scale).all()


def test_channels_of_tokens_and_of_two_layers_at_once() -> None:
    net, x = net_of("attention"), pictures()
    plain = lrp(net, x, composite="cp-lrp")
    total = torch.zeros_like(plain.values)
    for first in ([0, 5], [1, 2, 3, 4, *range(6, 12)]):
        for second in (range(7), range(7, 12)):
            total += lrp(net, x, composite="cp-lrp", keep={"blocks.0": first, "blocks.1": list(second)}).values
    assert relative(total, plain.values) <= TOLERANCE


@pytest.mark.parametrize("start", ["sglrp", "clrp2"])
def test_the_channels_of_the_last_layer_are_those_of_the_start(start: str) -> None:
    """SGLRP's map is a sum over all logits; CLRP2's starts at the target alone."""
    net, x = net_of("residual"), pictures()
    options: dict[str, object] = {"composite": "epsilon-plus", "start": start}
    plain = lrp(net, x, **options)
    mine, others = (lrp(net, x, keep={"head": kept}, **options) for kept in ([1], [0, 2, 3, 4]))
    if start == "sglrp":
        assert relative(mine.values + others.values, plain.values) <= TOLERANCE
        assert mine.residual.max() <= 1e-9
        assert (others.values != 0).any()
    else:
        assert relative(mine.values, plain.values) <= TOLERANCE
        assert (others.values == 0).all()


@pytest.mark.parametrize(
    ("keep", "match"),
    [
        ("down:0+8", "keep: 'down' has 8 channels, 0 to 7"),
        ({"relu#1": 8}, "keep: 'relu#1' has 8 channels, 0 to 7"),
        ("down", "give a layer and its channels, as in layer4:3"),
        ("down:", "give a layer and its channels"),
        ("down:1+x", "give a layer and its channels"),
        ({"down": []}, "give channels as whole numbers from 0"),
        ({"down": [-1]}, "give channels as whole numbers from 0"),
        ({"down": [True]}, "give channels as whole numbers from 0"),
        ({"down": [1.0]}, "give channels as whole numbers from 0"),
        ({"down": "3"}, "give channels as whole numbers from 0"),
    ],
)
def test_channels_that_there_are_not_are_refused(keep: object, match: str) -> None:
    with pytest.raises(OptionError, match=match):
        lrp(net_of("residual"), pictures(), keep=keep)


@pytest.mark.parametrize("where", ["keep", "layer"])
def test_layers_that_there_are_not_are_refused(where: str) -> None:
    def option(name: str) -> dict[str, object]:
        return {"keep": {name: [0]}} if where == "keep" else {"layer": name}

    with pytest.raises(UnknownLayerError, match="no layer 'dwn': did you mean 'down'"):
        lrp(net_of("residual"), pictures(), **option("dwn"))
    with pytest.raises(LayerError, match="layer 'relu#2' never ran"):
        lrp(net_of("residual"), pictures(), **option("relu#2"))


# Any output


def test_a_backbone_is_explained_by_a_function_of_what_it_returns() -> None:
    model = whence.load_model("torchvision:resnet34", weights="random")
    backbone = nn.Sequential(*list(model.module.double().eval().children())[:7])
    x = pictures(2, size=64)
    features = backbone(x).detach()
    assert features.shape == (2, 256, 4, 4)
    for composite in ("lrp-0", named.epsilon_plus(1e-12), "auto"):
        found = attribute(backbone, x, "lrp", target=lambda output: output.sum((1, 2, 3)), composite=composite)
        b = found.balance
        assert found.target.tolist() == [-1, -1]
        torch.testing.assert_close(found.score, features.sum((1, 2, 3)), rtol=1e-12, atol=0)
        total = found.values.sum((1, 2, 3)) + b.bias + b.stabiliser
        torch.testing.assert_close(total, features.sum((1, 2, 3)), rtol=TOLERANCE, atol=0)
        assert (b.constants == 0).all()
        if composite != "auto":
            assert (b.stabiliser.abs() <= 1e-6 * b.start.abs()).all()


def test_an_output_of_maps_asks_for_a_function() -> None:
    backbone = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()).double()
    with pytest.raises(ModelError, match=r"returned \[2, 4, 14, 14\] where logits .* give target= a function"):
        attribute(backbone, pictures(), "lrp")


def test_a_function_may_take_any_of_several_outputs() -> None:
    net = Lambda(lambda net, x: {"mask": net.body(x), "logits": net.body(x).mean((2, 3))}, body=nn.Conv2d(3, 4, 3))
    net, x = stirred(net), pictures()
    found = attribute(net, x, "lrp", target=lambda output: output["mask"][:, 2, 3, 4], composite="lrp-0")
    w = net.body.weight[2].detach()
    expected = torch.zeros_like(x)
    expected[:, :, 3:6, 4:7] = x[:, :, 3:6, 4:7] * w
    assert relative(found.values, expected) <= TOLERANCE
    torch.testing.assert_close(found.balance.bias, net.body.bias[2].detach().expand(2))


def test_a_rule_for_one_layer_alone_is_seen_below_it_alone() -> None:
    """Above the layer everything is as it was."""
    net, x = stirred(SmallNet()), pictures()
    plain = lrp(net, x, composite="lrp-0", layer="all").layers
    other = lrp(net, x, composite=Composite("mine", (("down", rules.z_plus()),)), layer="all").layers
    at = NAMES.index("down")
    assert all(torch.equal(plain[name], other[name]) for name in NAMES[at:])
    assert all(relative(plain[name], other[name]) > 1e-3 for name in NAMES[:at])
