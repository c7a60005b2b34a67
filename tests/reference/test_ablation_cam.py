"""Ablation-CAM against zeroing each channel in a full forward, and against grad-cam where that is right."""

from collections.abc import Callable
from functools import cache

import pytest
import torch
from torch import Tensor, nn
from torchvision.models.vision_transformer import VisionTransformer

from small_nets import Lambda, SmallNet, SmallViT, drawn, pictures, relative, rounding
from whence import attribute
from whence.attribution import attribute_all
from whence.methods import ablation_cam
from whence.models.classifier import Classifier
from whence.models.load import load_model
from whence.results import Attribution, Passes

TARGETS = [1, 3]
# What is counted before any channel is replayed: the record, the layer's own score, its gradient; then the tests of
# the closed form.
FIRST, TESTS = 3, 24


@cache
def published(name: str, **options: object) -> nn.Module:
    return load_model(f"torchvision:{name}", weights="random", **options).module.double()


def ours(net: nn.Module, x: Tensor, layer: str | None = None, **options: object) -> Attribution:
    return attribute(Classifier(net), x, "ablation-cam", target=TARGETS[: len(x)], layer=layer, **options)


def recorded(net: nn.Module, x: Tensor, layer: str, zero: int | None = None, axis: int = 1) -> tuple[Tensor, Tensor]:
    """Return the scores of a full forward and what the layer returned, its channel ``zero`` set to zero."""
    path, _, call = layer.partition("#")
    seen: list[Tensor] = []

    def hook(_: nn.Module, __: object, output: Tensor) -> Tensor:
        seen.append(output.clone())
        if len(seen) - 1 == int(call or 0) and zero is not None:
            output = output.clone()
            output.select(axis, zero).zero_()
        return output

    handle = net.get_submodule(path).register_forward_hook(hook)
    with torch.no_grad():
        scores = net(x.clone())[torch.arange(len(x)), TARGETS[: len(x)]]
    handle.remove()
    return scores, seen[int(call or 0)]


def assert_is_brute_force(
    net: nn.Module, x: Tensor, layer: str, axis: int = 1, few: int = 3, variant: str = "fraction"
) -> Attribution:
    """Compare the weights of the first channels and the last with their formula, and with them the map of all."""
    net.eval()
    y, activation = recorded(net, x, layer)
    some = [*range(few), activation.shape[axis] - 1]
    drop = torch.stack([y - recorded(net, x, layer, k, axis)[0] for k in some], dim=1)
    norms = torch.stack([activation.select(axis, k).flatten(1).norm(dim=1) for k in some], dim=1)
    answer = ours(net, x, layer, variant=variant)
    assert (drop != 0).any(1).all()
    expected = drop / (y.abs()[:, None] if variant == "fraction" else norms.where(norms > 0, 1))
    assert relative(answer.weights[:, some], expected) <= 1e-10
    mixed = (answer.weights[:, :, None, None] * answer.activation).sum(1, keepdim=True)
    assert relative(answer.values, mixed) <= 1e-12
    return answer


SMALL = ["stem.0", "stem", "relu", "block.conv", "block.bn", "block", "down", "relu#1"]


@pytest.mark.parametrize("layer", SMALL)
@pytest.mark.parametrize("inplace", [True, False])
def test_a_small_net(layer: str, inplace: bool) -> None:
    for variant in ("fraction", "slope"):
        assert_is_brute_force(drawn(SmallNet(inplace=inplace)), pictures(), layer, variant=variant)


@pytest.mark.parametrize("layer", ["patch", "blocks.0", "blocks.1.attn", "blocks.1.mlp", "norm"])
@pytest.mark.parametrize("token", [True, False])
def test_a_small_transformer_loses_the_channel_of_all_its_tokens(layer: str, token: bool) -> None:
    net, axis = drawn(SmallViT(token=token)), 1 if layer == "patch" else -1
    for variant in ("fraction", "slope"):
        assert_is_brute_force(net, pictures(), layer, axis, variant=variant)


def test_tokens_that_stand_before_the_batch() -> None:
    turned = Lambda(lambda _, x: x.flatten(2).permute(2, 0, 1))
    layers = {"turned": turned, "layer": nn.Linear(8, 8), "mix": nn.Linear(8, 8), "head": nn.Linear(8, 5)}
    net = Lambda(
        lambda n, x: n.head(n.mix(n.layer(n.turned(n.conv(x)))).relu().mean(0)), conv=nn.Conv2d(3, 8, 4, 4), **layers
    )
    net, x = drawn(net), pictures()
    y, activation = recorded(net, x, "layer")
    drops = torch.stack([y - recorded(net, x, "layer", k, axis=-1)[0] for k in range(8)], dim=1)
    answer = ours(net, x, "layer")
    assert relative(answer.weights, drops / y.abs()[:, None]) <= 1e-10
    assert torch.equal(answer.activation, activation.permute(1, 2, 0).unflatten(2, (4, 4)))


CASES = [
    ("resnet18", 64, "layer4", 1, "fraction"),
    ("resnet18", 32, "layer4.1.conv1", 1, "slope"),
    ("resnet18", 32, "layer4.1.relu#1", 1, "fraction"),
    ("resnet18", 32, "layer4.0.downsample.0", 1, "slope"),
    ("mobilenet_v2", 64, "features", 1, "slope"),
    ("mobilenet_v2", 32, "features.17.conv.2", 1, "fraction"),
    ("convnext_tiny", 32, "features.7.2.block.0", 1, "fraction"),
    ("convnext_tiny", 32, "features.7.2.block.5", -1, "slope"),
    ("densenet121", 64, "features", 1, "fraction"),
    ("densenet121", 32, "features.denseblock4.denselayer16.conv1", 1, "slope"),
    ("swin_t", 64, "permute", 1, "slope"),
    ("swin_t", 64, "features.7.1", -1, "fraction"),
]


@pytest.mark.parametrize(
    ("name", "side", "layer", "axis", "variant"), CASES, ids=[f"{case[0]}-{case[2]}" for case in CASES]
)
def test_published_nets(name: str, side: int, layer: str, axis: int, variant: str) -> None:
    assert_is_brute_force(published(name), pictures(1, size=side), layer, axis, few=6, variant=variant)


def test_vit_b_16_at_its_last_block() -> None:
    net = published("vit_b_16", image_size=32)
    assert_is_brute_force(net, pictures(1, size=32), "encoder.layers.encoder_layer_11", axis=-1)


def test_a_slim_vision_transformer() -> None:
    net = VisionTransformer(
        image_size=64, patch_size=16, num_layers=3, num_heads=2, hidden_dim=40, mlp_dim=32, num_classes=10
    )
    net = drawn(net.eval(), shape=(3, 64, 64))
    for layer in ("encoder.layers.encoder_layer_1", "encoder.layers.encoder_layer_2.ln_1", "encoder.ln"):
        assert_is_brute_force(net, pictures(size=64), layer, axis=-1)


def test_timm_s_vision_transformer() -> None:
    pytest.importorskip("timm")
    net = load_model("timm:vit_tiny_patch16_224", weights="random", img_size=64, depth=2).module.double()
    assert_is_brute_force(net, pictures(size=64), "blocks.0", axis=-1)


# The closed form


def pooled(act: Callable[[nn.Module, Tensor], Tensor] | None = None, channels: int = 40) -> nn.Module:
    """Return a net with a layer of rectified channels, whose mean, or what ``act`` makes of it, goes to the head."""

    def forward(net: nn.Module, x: Tensor) -> Tensor:
        mean = net.layer(net.conv(x)).mean((2, 3))
        return net.head(mean if act is None else act(net, mean))

    layers = {"conv": nn.Conv2d(3, channels, 3), "layer": nn.ReLU(), "head": nn.Linear(channels, 5)}
    return drawn(Lambda(forward, **layers))


def test_the_closed_form_gives_what_replays_give(monkeypatch: pytest.MonkeyPatch) -> None:
    net, x = published("resnet18"), pictures(1, size=64)
    closed = ours(net, x)
    assert closed.passes == Passes(partial=len(x) * (FIRST + TESTS))
    monkeypatch.setattr(ablation_cam, "_holds", lambda *_: False)
    replayed = ours(net, x)
    assert replayed.passes.partial > len(x) * (FIRST + TESTS + 100)
    assert relative(closed.weights, replayed.weights) <= 1e-10
    assert relative(closed.values, replayed.values) <= 1e-10


def square_of_one(net: nn.Module, mean: Tensor) -> Tensor:
    return torch.cat((mean[:, :7], mean[:, 7:8] ** 2, mean[:, 8:]), dim=1)


TAILS = {
    "square of one channel": square_of_one,
    "hidden factor": lambda _, mean: mean * mean.detach().sum(1, keepdim=True),
    "norm": lambda _, mean: mean / mean.norm(dim=1, keepdim=True),
    "largest": lambda _, mean: torch.cat((mean.topk(5, dim=1).values, mean[:, 5:]), dim=1),
    "rectifier of the sum": lambda _, mean: (
        mean + (mean.sum(1, keepdim=True) - 0.9 * mean.detach().sum(1, True)).relu()
    ),
    "without a gradient": lambda _, mean: mean.detach() ** 2,
}


@pytest.mark.parametrize("tail", TAILS)
def test_a_tail_that_only_looks_linear_is_replayed(tail: str) -> None:
    net, x = pooled(TAILS[tail]), pictures()
    answer = assert_is_brute_force(net, x, "layer")
    assert answer.passes.partial >= len(x) * (FIRST - 1 + TESTS + 30)


def test_an_operation_without_a_derivative_is_replayed() -> None:
    class Plain(torch.autograd.Function):
        @staticmethod
        def forward(_: object, x: Tensor) -> Tensor:
            return x * 2

    net, x = pooled(lambda _, mean: Plain.apply(mean)), pictures()
    assert_is_brute_force(net, x, "layer")


def test_the_weight_of_a_linear_tail_is_the_head_s_times_the_mean() -> None:
    net, x = pooled(), pictures()
    answer = ours(net, x, "layer")
    mean = net.layer(net.conv(x)).mean((2, 3))
    expected = net.head.weight[TARGETS] * mean / net(x)[[0, 1], TARGETS].abs()[:, None]
    assert answer.passes == Passes(partial=2 * (FIRST + TESTS))
    assert relative(answer.weights, expected.detach()) <= 1e-12


# Savings and edges


def test_dead_channels_weigh_nothing_and_take_no_replay() -> None:
    net, x = drawn(SmallNet()), pictures()
    with torch.no_grad():
        net.down.bias[:3] = -1e3
    dead = ours(net, x, "relu#1")
    alive = (net.eval().relu(net.down(net.block(net.relu(net.stem(x))))) != 0).flatten(2).any(2)
    assert not alive[:, :3].any()
    assert dead.passes == Passes(partial=2 * FIRST + int(alive.sum()))
    assert (dead.weights[~alive] == 0).all()
    assert_is_brute_force(net, x, "relu#1")


def test_a_layer_that_is_zero_everywhere_gives_no_evidence() -> None:
    net = drawn(SmallNet())
    with torch.no_grad():
        net.down.bias.fill_(-1e3)
    answer = ours(net, pictures(), "relu#1")
    assert answer.passes == Passes(partial=2 * FIRST)
    assert (answer.values == 0).all()
    assert all("no evidence" in note for notes in answer.notes for note in notes)


def test_a_layer_that_the_score_does_not_use_gives_no_evidence_in_single_precision() -> None:
    """Rounding differs between batches of other sizes; it is no evidence."""
    net = pooled(lambda n, mean: mean)
    function = net.function
    net.aside = nn.Conv2d(3, 64, 3)
    net.function = lambda n, x: (n.aside(x), function(n, x))[1]
    answer = ours(net.float(), pictures().float(), "aside")
    assert (answer.values == 0).all()


@pytest.mark.parametrize("variant", ["fraction", "slope"])
def test_drops_that_are_rounding_are_none_where_all_channels_are_replayed(variant: str) -> None:
    answer = ours(rounding(), pictures().float(), "aside", variant=variant)
    assert answer.passes.partial >= 2 * 16
    assert (answer.weights == 0).all()
    assert all("no evidence" in notes[-1] for notes in answer.notes)


@pytest.mark.parametrize("batch", [1, 3, 1000])
@pytest.mark.parametrize("layer", ["block.conv", "relu#1"])
def test_how_many_are_replayed_at_once_changes_nothing(batch: int, layer: str) -> None:
    net, x = drawn(SmallNet()), pictures()
    assert relative(ours(net, x, layer, batch=batch).values, ours(net, x, layer).values) <= 1e-12


@pytest.mark.parametrize("layer", ["layer4", "layer4.1.bn1"])
def test_a_batch_gives_what_single_pictures_give(layer: str) -> None:
    model, x = Classifier(published("resnet18")), pictures(size=32)
    options = {"layer": layer, "variant": "slope"}
    together = attribute(model, x, "ablation-cam", target=TARGETS, **options)
    for row, target in enumerate(TARGETS):
        alone = attribute(model, x[row : row + 1], "ablation-cam", target=target, **options)
        assert relative(together.values[row : row + 1], alone.values) <= 1e-10


def test_several_layers_in_any_order() -> None:
    net, x = drawn(SmallNet()), pictures()
    answer = ours(net, x, ("relu#1", "stem", "block"))
    assert list(answer.layers) == ["stem", "block", "relu#1"]
    assert answer.layer == "relu#1"
    for name, values in answer.layers.items():
        assert relative(values, ours(net, x, name).values) <= 1e-12
    assert torch.equal(answer.values, answer.layers["relu#1"])
    assert answer.weights.shape == answer.activation.shape[:2] == (2, 8)


def test_several_targets_share_the_record() -> None:
    model, x = Classifier(drawn(SmallNet())), pictures()
    both = attribute_all(model, x, "ablation-cam", [1, 3], {"layer": "block"})
    assert [answer.passes for answer in both] == [Passes(partial=2 * (3 + 6)), Passes(partial=2 * (2 + 6))]
    for answer, target in zip(both, [1, 3], strict=True):
        alone = attribute(model, x, "ablation-cam", target=target, layer="block")
        assert torch.equal(answer.values, alone.values)


def test_the_map_cut_to_its_positive_part() -> None:
    net, x = drawn(SmallNet()), pictures()
    assert torch.equal(ours(net, x, "block", relu=True).values, ours(net, x, "block").values.clamp(min=0))


@pytest.mark.parametrize("variant", ["fraction", "slope"])
def test_a_negative_score_does_not_turn_the_map_round(variant: str) -> None:
    """What speaks for a score speaks against its negative, whatever the sign of both."""
    model, x = Classifier(drawn(SmallNet())), pictures(4)
    options = {"layer": "block", "variant": variant}
    plus = attribute(model, x, "ablation-cam", target=lambda output: output[:, 2], **options)
    minus = attribute(model, x, "ablation-cam", target=lambda output: -output[:, 2], **options)
    lifted = attribute(model, x, "ablation-cam", target=lambda output: output[:, 2] - 100, **options)
    assert relative(minus.values, -plus.values) <= 1e-12
    for one, other in zip(plus.values, lifted.values, strict=True):
        assert torch.cosine_similarity(one.flatten(), other.flatten(), dim=0) > 1 - 1e-9


def test_of_a_score_of_zero_the_drop_itself_is_the_weight() -> None:
    model, x = Classifier(drawn(SmallNet())), pictures(1)

    def score(output: Tensor) -> Tensor:
        return output[:, 1]

    some = attribute(model, x, "ablation-cam", target=score, layer="block")
    none = attribute(model, x, "ablation-cam", target=lambda output: score(output) - some.score, layer="block")
    assert float(none.score) == 0
    assert relative(none.weights, some.weights * some.score.abs()) <= 1e-10
    assert any("the score is 0" in note for note in none.notes[0])
    assert not any("the score is 0" in note for note in some.notes[0])


@pytest.mark.filterwarnings("ignore:.*torch.jit.script. is deprecated:FutureWarning")
def test_a_net_that_cannot_be_run_from_the_middle_is_run_whole() -> None:
    script = torch.jit.script(nn.Sequential(nn.ReLU()))
    net = drawn(
        Lambda(lambda n, x: n.head(n.script(n.layer(x)).mean((2, 3))), layer=nn.Conv2d(3, 8, 3), head=nn.Linear(8, 5))
    )
    net.script = script
    answer = assert_is_brute_force(net, pictures(), "layer")
    assert answer.passes == Passes(forward=2 * (2 + 8), partial=2)


# grad-cam


def grad_cams(net: nn.Module, x: Tensor, layer: str, target: int) -> Tensor:
    """Return the weights that grad-cam 1.5.7 gives the channels."""
    peers = pytest.importorskip("pytorch_grad_cam")
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    kept: list[Tensor] = []

    class Kept(peers.AblationCAM):
        def get_cam_weights(self, *args: object, **kwargs: object) -> object:
            weights = super().get_cam_weights(*args, **kwargs)
            kept.append(torch.as_tensor(weights))
            return weights

    Kept(net, [net.get_submodule(layer)])(input_tensor=x, targets=[ClassifierOutputTarget(target)] * len(x))
    return kept[0]


def test_behind_a_rectifier_the_weights_are_grad_cam_s_but_for_the_sign_of_the_score() -> None:
    net, x = load_model("torchvision:resnet18", weights="random").module.eval(), pictures(2, size=32).float()
    scores = net(x)[0].detach()
    assert scores.min() < 0 < scores.max()
    for target in (int(scores.argmin()), int(scores.argmax())):
        theirs = grad_cams(net, x, "layer4", target)
        answer = attribute(Classifier(net), x, "ablation-cam", target=target, layer="layer4")
        assert relative(answer.weights, theirs * answer.score.sign()[:, None]) <= 1e-3


def test_where_the_minimum_is_not_zero_grad_cam_sets_channels_to_minus_ten_million_and_less() -> None:
    """Its weights are then not those of the paper; the full forwards with zeros say so."""
    peer = pytest.importorskip("pytorch_grad_cam.ablation_layer")
    layer, a = peer.AblationLayer(), pictures(1, channels=5)
    layer.set_next_batch(0, a, 4)
    layer.indices = list(range(4))
    ablated = layer(a)
    least = [float(ablated[row, row].min()) for row in range(4)]
    assert least == pytest.approx([-1e7, -2e7, -3e7, -4e7], rel=1e-4)
    net, x = pooled(lambda n, mean: n.norm(mean)), pictures(1)
    net.norm, net.layer = nn.LayerNorm(40).double(), nn.GELU()
    net.eval()
    with torch.no_grad():
        y = net(x)[0, 1]
        paper = torch.stack([(y - recorded(net, x, "layer", k)[0][0]) / y.abs() for k in range(40)])
    mine = ours(net, x, "layer").weights[0]
    theirs = grad_cams(net, x, "layer", 1)[0] * y.sign()
    assert relative(mine, paper) <= 1e-10
    assert relative(theirs, paper) > 0.5
