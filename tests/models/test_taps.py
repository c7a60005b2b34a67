"""Recording and replacing what layers return."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from small_nets import Lambda, SmallNet, drawn, pictures
from whence.errors import LayerError
from whence.models.taps import Call, find, forwards, recorded, replaced, watched

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.script. is deprecated:FutureWarning")


def record(net: nn.Module, layers: list[str], x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    with torch.no_grad(), recorded(net, layers, gradients=True) as kept:
        output = net(x)
    return output, kept


def plain_gradient(net: nn.Module, layer: str, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return a layer's output and the gradient of logit 1, by plain autograd, with a hook that keeps the tensor."""
    call, count, kept = Call.parse(layer), 0, {}

    def hook(_: nn.Module, __: object, output: Tensor) -> Tensor:
        nonlocal count
        if count == call.count:
            kept["a"] = output
        count += 1
        return output.clone()

    handle = net.get_submodule(call.path).register_forward_hook(hook)
    score = net(x)[:, 1].sum()
    handle.remove()
    (gradient,) = torch.autograd.grad(score, kept["a"], retain_graph=True)
    return kept["a"], gradient


# Names


@pytest.mark.parametrize(("name", "call"), [("a.b", Call("a.b")), ("a.b#0", Call("a.b")), ("a#12", Call("a", 12))])
def test_a_layer_is_a_path_and_a_number_of_the_call(name: str, call: Call) -> None:
    assert Call.parse(name) == call
    assert Call.parse(str(call)) == call


@pytest.mark.parametrize("name", ["relu#", "relu#x", "relu#-1", "relu#1#2"])
def test_what_stands_after_the_mark_must_be_a_number(name: str) -> None:
    with pytest.raises(LayerError, match="number of the call"):
        Call.parse(name)


@pytest.mark.parametrize(("name", "near"), [("block.bm", "block.bn"), ("hed", "head"), ("", "stem")])
def test_an_unknown_layer_is_named_with_the_nearest(name: str, near: str) -> None:
    with pytest.raises(LayerError, match=near):
        find(SmallNet(), Call.parse(name))


@pytest.mark.parametrize("layer", ["relu#2", "side"])
@pytest.mark.parametrize("gradients", [True, False])
def test_a_layer_that_never_ran_is_named(layer: str, gradients: bool) -> None:
    net = SmallNet()
    net.side = nn.Identity()
    with pytest.raises(LayerError, match=f"'{layer}' never ran"), recorded(net, [layer], gradients=gradients):
        net(pictures().float())


def test_an_error_in_the_block_is_not_hidden_by_a_layer_that_never_ran() -> None:
    with pytest.raises(ValueError, match="own"), recorded(SmallNet(), ["stem"], gradients=True):
        raise ValueError("own")


# Recording


@pytest.mark.parametrize(
    "layer", ["stem", "stem.0", "stem.1", "relu", "block.conv", "block.bn", "block.relu", "relu#1"]
)
def test_values_and_gradient_are_those_of_plain_autograd(layer: str) -> None:
    net, x = drawn(SmallNet()), pictures()
    activation, expected = plain_gradient(net, layer, x)
    output, kept = record(net, [layer], x)
    (gradient,) = torch.autograd.grad(output[:, 1].sum(), kept[layer])
    assert torch.equal(kept[layer], activation)
    assert torch.equal(gradient, expected)
    assert torch.equal(output, net(x))


def test_several_layers_are_recorded_in_one_run_in_the_order_in_which_they_run() -> None:
    net, x = drawn(SmallNet()), pictures()
    asked = ["relu#1", "block.bn", "stem", "relu"]
    output, kept = record(net, asked, x)
    assert list(kept) == ["stem", "relu", "block.bn", "relu#1"]
    gradients = torch.autograd.grad(output[:, 1].sum(), list(kept.values()))
    for name, gradient in zip(kept, gradients, strict=True):
        assert torch.equal(gradient, plain_gradient(net, name, x)[1])


def branches() -> nn.Module:
    """Return a net of two branches that do not see each other, and work in place behind their layers."""

    def forward(net: nn.Module, x: Tensor) -> Tensor:
        left, right = net.left(x), net.right(x)
        left += 1
        right *= 2
        return net.head((left.relu() * right).mean((2, 3)))

    layers = {name: nn.Conv2d(3, 8, 3) for name in ("left", "right")}
    return drawn(Lambda(forward, **layers, head=nn.Linear(8, 5)))


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("asked", [["left", "right"], ["right", "left"]])
def test_parallel_branches_are_recorded_together(asked: list[str], frozen: bool) -> None:
    net, x = branches().requires_grad_(not frozen), pictures()
    output, kept = record(net, asked, x)
    assert list(kept) == ["left", "right"]
    gradients = torch.autograd.grad(output[:, 1].sum(), list(kept.values()))
    for name, gradient in zip(kept, gradients, strict=True):
        value, expected = plain_gradient(net.requires_grad_(), name, x)
        assert torch.equal(kept[name], value)
        assert torch.equal(gradient, expected)


def test_a_module_under_two_names_is_one_layer() -> None:
    shared = nn.Conv2d(3, 3, 3, padding=1)
    net = drawn(nn.Sequential(shared, nn.ReLU(), shared, nn.Flatten(), nn.Linear(768, 5)))
    x = pictures()
    output, kept = record(net, ["0", "2", "0#1", "2#1"], x)
    assert torch.equal(kept["0"], shared(x))
    assert torch.equal(kept["0"], kept["2"])
    assert torch.equal(kept["2#1"], shared(shared(x).relu()))
    gradients = torch.autograd.grad(output[:, 1].sum(), [kept["0"], kept["2"], kept["0#1"]])
    assert torch.equal(gradients[0], gradients[1])
    assert torch.equal(gradients[2], plain_gradient(net, "0#1", x)[1])


@pytest.mark.parametrize(
    "wrap",
    [lambda maps: (maps, 3), lambda maps: [None, maps], lambda maps: {"size": maps.shape[2:], "maps": maps}],
    ids=["tuple", "list", "dict"],
)
def test_the_maps_in_a_container_are_recorded_and_the_rest_is_passed_on(wrap: object) -> None:
    def forward(net: nn.Module, x: Tensor) -> Tensor:
        output = net.layer(x)
        parts = list(output.values()) if isinstance(output, dict) else list(output)
        maps = next(part for part in parts if isinstance(part, Tensor))
        assert len(parts) == 2
        return net.head(maps.relu_().mean((2, 3)))

    layer = Lambda(lambda inner, x: wrap(inner.conv(x)), conv=nn.Conv2d(3, 8, 3))
    net, x = drawn(Lambda(forward, layer=layer, head=nn.Linear(8, 5))), pictures()
    _, kept = record(net, ["layer"], x)
    assert torch.equal(kept["layer"], layer.conv(x))


@pytest.mark.parametrize("layer", ["head", "index"])
def test_a_layer_without_maps_is_refused(layer: str) -> None:
    def forward(net: nn.Module, x: Tensor) -> Tensor:
        net.index(x)
        return net.head(x.mean((2, 3)))

    index = Lambda(lambda _, x: x.argmax(1))
    net = Lambda(forward, index=index, head=nn.Linear(3, 5))
    with pytest.raises(LayerError, match=f"layer '{layer}' has no map"):
        record(net, [layer], pictures().float())


def test_without_gradients_the_model_goes_on_with_its_own_tensor() -> None:
    net, x = drawn(SmallNet()), pictures()
    with torch.no_grad(), recorded(net, ["block.bn"], gradients=False) as kept:
        output = net(x)
    assert not kept["block.bn"].requires_grad
    assert not output.requires_grad
    assert torch.equal(kept["block.bn"], net.block.bn(net.block.conv(net.stem(x).relu())))


ENCODER_LAYERS = ["encoder", "encoder.self_attn", "encoder.linear1", "encoder.norm1", "encoder.linear2"]


@pytest.mark.parametrize("norm_first", [True, False])
@pytest.mark.parametrize("layer", ENCODER_LAYERS)
def test_layers_inside_a_transformer_layer_are_reached_past_its_fast_path(layer: str, norm_first: bool) -> None:
    encoder = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, norm_first=norm_first)
    head = nn.Linear(8, 5)
    net = Lambda(lambda n, x: n.head(n.encoder(x.flatten(2).transpose(1, 2)).mean(1)), encoder=encoder, head=head)
    drawn(net, shape=(8, 4, 4))
    x = pictures(channels=8, size=4)
    output, kept = record(net.eval(), [layer], x)
    (gradient,) = torch.autograd.grad(output[:, 1].sum(), kept[layer])
    assert gradient.abs().max() > 0
    torch.testing.assert_close(output, net(x), rtol=1e-10, atol=1e-12)


def test_a_module_whose_weights_alone_are_used_never_ran() -> None:
    attention = nn.MultiheadAttention(8, 2, batch_first=True)
    net = Lambda(lambda n, x: n.attention(x, x, x)[0].mean(1), attention=attention)
    with pytest.raises(LayerError, match=r"'attention\.out_proj' never ran"):
        record(net, ["attention.out_proj"], pictures(channels=1, size=8).float()[:, 0])


# The trunk


class Untraced(torch.autograd.Function):
    """An identity that must never be part of a graph."""

    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> Tensor:
        raise AssertionError("the trunk was part of the graph")


def test_no_graph_is_made_of_what_lies_before_the_layer() -> None:
    made = []

    def forward(net: nn.Module, x: Tensor) -> Tensor:
        x = net.trunk(Untraced.apply(x))
        made.append(x.requires_grad)
        x = net.layer(Untraced.apply(x))
        made.append(x.requires_grad)
        return net.head(x.mean((2, 3)))

    net = drawn(Lambda(forward, trunk=nn.Conv2d(3, 6, 3), layer=nn.Conv2d(6, 8, 3), head=nn.Linear(8, 5)))
    output, kept = record(net, ["layer"], pictures())
    torch.autograd.grad(output[:, 1].sum(), kept["layer"])
    assert made[-2:] == [False, True]


def test_no_gradient_of_a_parameter_is_computed() -> None:
    net = drawn(SmallNet())
    computed = []
    for name, p in net.named_parameters():
        p.register_hook(lambda _, name=name: computed.append(name))
    output, kept = record(net, ["block"], pictures())
    torch.autograd.grad(output[:, 1].sum(), kept["block"])
    assert computed == []


@pytest.mark.parametrize("mode", [True, False])
def test_the_grad_mode_is_put_back_at_the_end_of_the_block(mode: bool) -> None:
    with torch.set_grad_enabled(mode):
        record(SmallNet(), ["stem"], pictures().float())
        assert torch.is_grad_enabled() is mode


# Replacing


def test_what_a_layer_returns_is_replaced() -> None:
    net, x = drawn(SmallNet()), pictures()
    maps = torch.randn(2, 6, 16, 16, generator=torch.Generator().manual_seed(3)).double()
    with torch.no_grad(), replaced(net, "block", lambda _: maps.clone()):
        output = net(x)
    expected = net.head(net.down(maps).relu().mean((2, 3)))
    assert torch.equal(output, expected)
    assert not torch.equal(net(x), output)


def test_only_the_call_that_is_named_is_replaced() -> None:
    net, x = drawn(SmallNet(inplace=False)), pictures()
    with torch.no_grad(), replaced(net, "relu#1", torch.zeros_like):
        assert torch.equal(net(x), net.head.bias.expand(2, 5))


def test_a_replacement_of_another_shape_is_refused() -> None:
    net = drawn(SmallNet())
    with pytest.raises(LayerError, match=r"'block' returns \[2, 6, 16, 16\], not \[1, 6, 16, 16\]"):  # noqa: SIM117
        with replaced(net, "block", lambda maps: maps[:1]):
            net(pictures())


def test_the_forwards_of_all_layers_but_the_model_itself_are_wrapped_by_path() -> None:
    net, x, ran = drawn(SmallNet()), pictures(), []

    def wrap(path: str, forward: object) -> object:
        def logged(*args: object) -> object:
            ran.append(path)
            return forward(*args)

        return logged

    expected = net(x)
    with forwards(net, wrap):
        assert torch.equal(net(x), expected)
    inside = ["block.conv", "block.bn", "block.relu"]
    assert ran == ["stem", "stem.0", "stem.1", "relu", "block", *inside, "down", "relu", "dropout", "head"]


def test_a_script_module_cannot_be_patched() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), torch.jit.script(nn.Sequential(nn.ReLU())))
    with pytest.raises(LayerError, match="script module"), forwards(net, lambda _, forward: forward):
        pass
    assert "forward" not in vars(net[0])


# Watching


def test_watching_tells_what_each_call_returned_and_changes_nothing() -> None:
    net, x = drawn(SmallNet(inplace=False)), pictures().requires_grad_()
    with watched(net) as seen:
        output = net(x)
    inside = ["block.conv", "block.bn", "block.relu"]
    assert [str(entry.call) for entry in seen] == [
        "stem.0",
        "stem.1",
        "stem",
        "relu",
        *inside,
        "block",
        "down",
        "relu#1",
    ]
    assert all(entry.node is entry.tensor.grad_fn for entry in seen)
    assert torch.equal(output, net(x))
    assert torch.equal(seen[3].tensor, F.relu(seen[2].tensor))
