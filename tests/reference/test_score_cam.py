"""Score-CAM against brute force, one masked picture at a time, and against grad-cam."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from small_nets import Lambda, SmallNet, drawn, pictures, relative, rounding
from whence import attribute
from whence.errors import OptionError
from whence.models.classifier import Classifier
from whence.models.load import load_model
from whence.pictures.baselines import make_baseline
from whence.results import Attribution

TARGETS = [1, 3]
VARIANTS = ["paper", "official", "logit"]


def ours(net: nn.Module | Classifier, x: Tensor, target: object = TARGETS, **options: object) -> Attribution:
    model = net if isinstance(net, Classifier) else Classifier(net)
    return attribute(model, x, "score-cam", target=target, **options)


def activation(net: nn.Module, x: Tensor, layer: str, call: int = 0) -> Tensor:
    """Return what a layer returns, before anything works in place on it."""
    kept = []
    handle = net.get_submodule(layer).register_forward_hook(
        lambda _, __, output: kept.append(output.detach().clone())
    )
    with torch.no_grad():
        net(x)
    handle.remove()
    return kept[call]


@torch.no_grad()
def brute_force(
    net: nn.Module, x: Tensor, maps: Tensor, variant: str, base: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return weights [B, K] and map [B, 1, h, w], by a run for every channel of every picture."""
    base = torch.zeros_like(x) if base is None else base
    weights = torch.zeros(maps.shape[:2], dtype=x.dtype)
    for b, c in enumerate(TARGETS[: len(x)]):

        def f(picture: Tensor, c: int = c) -> Tensor:
            logits = net(picture[None])[0]
            return logits[c] if variant == "logit" else logits.softmax(0)[c]

        for k, channel in enumerate(maps[b]):
            up = F.interpolate(
                channel[None, None], size=x.shape[2:], mode="bilinear", align_corners=variant == "logit"
            )
            constant = channel.max() == channel.min()
            if constant and variant == "official":
                continue
            h = torch.zeros_like(up[0]) if constant else ((up - up.min()) / (up.max() - up.min()))[0]
            weights[b, k] = f(x[b] * h + base[b] * (1 - h))
            if variant == "paper":
                weights[b, k] -= f(base[b])
    if variant != "official":
        weights = weights.softmax(1)
    return weights, torch.einsum("bk,bkhw->bhw", weights, maps)[:, None]


def with_dead_channels() -> nn.Module:
    """Return a net whose second rectifier gives nothing but zeros in three of eight channels."""
    net = drawn(SmallNet())
    with torch.no_grad():
        net.down.bias[[1, 4, 6]] = -100
    return net


LAYERS = [("stem", "stem", 0), ("down", "down", 0), ("relu#1", "relu", 1)]


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(("layer", "path", "call"), LAYERS, ids=[case[0] for case in LAYERS])
def test_the_map_is_brute_force(layer: str, path: str, call: int, variant: str) -> None:
    net, x = with_dead_channels().eval(), pictures()
    answer = ours(net, x, layer=layer, variant=variant)
    maps = activation(net, x, path, call)
    weights, expected = brute_force(net, x, maps, variant)
    assert weights.std(1).min() > 1e-6  # no two variants agree by chance
    assert relative(answer.weights, weights) <= 1e-10
    assert relative(answer.values, expected) <= 1e-10
    assert torch.equal(answer.activation, maps)
    assert answer.options["variant"] == variant
    assert torch.equal(answer.target, torch.tensor(TARGETS))


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_map_of_a_published_net_is_brute_force(variant: str) -> None:
    net = load_model("torchvision:mobilenet_v2", weights="random").module.double().eval()
    x = pictures(1, size=(32, 48))
    answer = ours(net, x, TARGETS[0], layer="features.3", variant=variant)
    weights, expected = brute_force(net, x, activation(net, x, "features.3"), variant)
    assert relative(answer.weights, weights) <= 1e-10
    assert relative(answer.values, expected) <= 1e-10


def test_the_official_heatmap_is_the_authors_before_its_cut_and_its_scaling() -> None:
    """The authors add the maps at the picture's size; stretching is linear, so that the sum may come first."""
    net, x = with_dead_channels().eval(), pictures()
    maps = activation(net, x, "relu", 1)
    weights, _ = brute_force(net, x, maps, "official")
    up = F.interpolate(maps, size=x.shape[2:], mode="bilinear", align_corners=False)
    expected = (weights[:, :, None, None] * up).sum(1)
    answer = ours(net, x, layer="relu#1", variant="official")
    assert relative(answer.heatmap(), expected) <= 1e-10
    assert not answer.weights[:, [1, 4, 6]].any()


def test_the_variants_differ() -> None:
    net, x = drawn(SmallNet()), pictures()
    shapes = [ours(net, x, layer="stem", variant=variant).weights for variant in VARIANTS]
    shapes = [w / w.sum(1, keepdim=True) for w in shapes]
    for a in range(3):
        for b in range(a):
            assert relative(shapes[a], shapes[b]) > 1e-3


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_baseline_stands_where_the_picture_is_masked(variant: str) -> None:
    net, x = drawn(SmallNet()).eval(), pictures()
    base = make_baseline("blurred", x, None)[0]
    _, expected = brute_force(net, x, activation(net, x, "down"), variant, base)
    answer = ours(net, x, layer="down", variant=variant, baseline="blurred")
    assert relative(answer.values, expected) <= 1e-10
    assert relative(answer.values, ours(net, x, layer="down", variant=variant).values) > 1e-4
    assert "the picture, blurred" in answer.notes[0][0]


def test_what_stands_where_the_picture_is_masked_is_said() -> None:
    (first, *_), second = ours(drawn(SmallNet()), pictures()).notes
    assert first == second[0]
    assert "the zero of the normalised input, that is the mean colour" in first


# What is measured


def test_a_class_is_measured_by_its_probability_and_any_other_target_by_its_own_number() -> None:
    net, x = drawn(SmallNet()), pictures()
    by_class = ours(net, x, 2)
    assert torch.equal(by_class.values, ours(net, x, "probability:2").values)
    assert torch.equal(by_class.score, net.eval()(x)[:, 2])
    assert any("probability, not its logit" in note for note in by_class.notes[0])
    logit = ours(net, x, lambda output: output[:, 2])
    assert relative(logit.values, by_class.values) > 1e-6
    assert not any("probability" in note for note in logit.notes[0])
    contrast = ours(net, x, "2 - 3")
    assert torch.equal(contrast.values, ours(net, x, lambda output: output[:, 2] - output[:, 3]).values)
    assert torch.equal(ours(net, x, 2, variant="logit").values, ours(net, x, logit_of_2, variant="logit").values)


def logit_of_2(output: Tensor) -> Tensor:
    return output[:, 2]


def test_the_top_class_stays_the_picture_s_own_under_every_mask() -> None:
    net, x = drawn(SmallNet()).eval(), pictures(4)
    top = net(x).argmax(1)
    assert len(set(top.tolist())) > 1
    assert torch.equal(ours(net, x, None).values, ours(net, x, top.tolist()).values)


# What it costs


def counted(net: nn.Module) -> list[Tensor]:
    """Return a list that fills with the inputs of all runs."""
    seen: list[Tensor] = []
    net.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    return seen


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_constant_channel_costs_no_pass(variant: str) -> None:
    net, x = with_dead_channels(), pictures(3)
    model = Classifier(net)
    ours(model, x, 1, layer="relu#1", variant=variant)  # finds out how the model is folded
    alive = (activation(net.eval(), x, "relu", 1).flatten(2).std(2) > 0).sum(1)
    assert int(alive.max()) == 5
    seen = counted(net)
    answer = ours(model, x, 1, layer="relu#1", variant=variant)
    assert answer.passes.forward == sum(map(len, seen)) == 3 * 2 + int(alive.sum())


def test_a_picture_that_is_the_same_in_all_channels_gives_a_zero_map_and_costs_no_masks() -> None:
    net = drawn(SmallNet())
    with torch.no_grad():
        net.down.bias.fill_(-100)
    answer = ours(net, pictures(), layer="relu#1")
    assert answer.passes.forward == 4
    assert not answer.values.any()
    assert "no evidence" in answer.notes[0][-1]


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_score_that_only_rounds_differently_gives_no_evidence(variant: str) -> None:
    answer = ours(rounding(), pictures().float(), logit_of_2, layer="aside", variant=variant, batch=7)
    assert (answer.values == 0).all()
    assert all("no evidence" in notes[-1] for notes in answer.notes)


@pytest.mark.parametrize("batch", [1, 5, 1000])
def test_no_more_pictures_than_a_chunk_are_masked_at_once(batch: int) -> None:
    net, x = drawn(SmallNet()), pictures()
    model = Classifier(net)
    expected = ours(model, x, layer="down")
    seen = counted(net)
    answer = ours(model, x, layer="down", batch=batch)
    assert relative(answer.values, expected.values) <= 1e-10
    assert max(map(len, seen[1:])) == min(batch, 16)


def test_masked_pictures_lie_in_memory_as_the_picture_does() -> None:
    net = drawn(SmallNet()).float()
    seen = counted(net)
    for order in (torch.channels_last, torch.contiguous_format):
        model = Classifier(net)
        model.channels_last[3, 16, 16] = order is torch.channels_last
        seen.clear()
        attribute(model, pictures().float(), "score-cam", layer="down")
        assert len(seen) > 1
        assert all(x.is_contiguous(memory_format=order) for x in seen)


def test_a_batch_gives_what_single_pictures_give() -> None:
    net, x = with_dead_channels(), pictures(3)
    for variant in VARIANTS:
        whole = ours(net, x, 1, layer="relu#1", variant=variant)
        for row in range(3):
            alone = ours(net, x[row : row + 1], 1, layer="relu#1", variant=variant)
            assert relative(whole.values[row], alone.values[0]) <= 1e-10
            assert relative(whole.weights[row], alone.weights[0]) <= 1e-10


def test_several_layers_give_each_its_own_map() -> None:
    net, x = drawn(SmallNet()), pictures()
    answer = ours(net, x, layer=("down", "stem"))
    assert list(answer.layers) == ["stem", "down"]
    assert answer.layer == "down"
    assert torch.equal(answer.values, answer.layers["down"])
    for name in ("stem", "down"):
        assert torch.equal(answer.layers[name], ours(net, x, layer=name).values)
    cut = ours(net, x, layer=("down", "stem"), relu=True)
    assert torch.equal(cut.layers["down"], answer.values.clamp(min=0))
    assert answer.values.min() < 0


def test_a_layer_finer_than_the_picture_whose_one_place_is_lost_masks_everything() -> None:
    """A map that stands out in one place, which stretching to fewer places leaves out, is no division by zero."""

    def forward(net: nn.Module, x: Tensor) -> Tensor:
        fine = F.interpolate(net.conv(x), scale_factor=4.0)
        dots = torch.zeros_like(fine[:, :1])
        dots[:, :, 0, 0] = 1
        return net.head(net.layer(torch.cat((fine, dots), 1)).mean((2, 3)))

    layers = {"conv": nn.Conv2d(3, 4, 3), "layer": nn.Identity(), "head": nn.Linear(5, 4)}
    assert ours(drawn(Lambda(forward, **layers)), pictures(), layer="layer").values.isfinite().all()


def test_a_chunk_of_nothing_is_refused() -> None:
    with pytest.raises(OptionError, match="batch=0: give at least 1"):
        ours(drawn(SmallNet()), pictures(), batch=0)


# grad-cam


@pytest.fixture
def in_double() -> Iterator[None]:
    """grad-cam puts its scores into tensors of the default type, which would round them to float32."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def grad_cams(net: nn.Module, x: Tensor, layer: str, maps: Tensor) -> np.ndarray:
    """Return grad-cam's weights for the maps of a layer."""
    peer = pytest.importorskip("pytorch_grad_cam")
    targets = [peer.utils.model_targets.ClassifierOutputTarget(c) for c in TARGETS]
    explainer = peer.ScoreCAM(net, [net.get_submodule(layer)])
    return explainer.get_cam_weights(x, None, targets, maps.numpy(), None)


def scaled(net: SmallNet, factor: float) -> SmallNet:
    """Return the net with the maps of one layer in other units, and the same logits."""
    with torch.no_grad():
        net.down.weight *= factor
        net.down.bias *= factor
        net.head.weight /= factor
    return net.eval()


@pytest.mark.usefixtures("in_double")
def test_the_logit_variant_has_grad_cam_s_weights() -> None:
    """On maps so large that the 1e-8 by which grad-cam's division is off does not show."""
    for net in (scaled(drawn(SmallNet(inplace=False)), 1e6), scaled(with_dead_channels(), 1e6)):
        answer = ours(net, pictures(), layer="relu#1", variant="logit")
        theirs = torch.from_numpy(grad_cams(net, pictures(), "down", answer.activation))
        assert relative(answer.weights, theirs) <= 1e-10


@pytest.mark.usefixtures("in_double")
def test_grad_cam_s_weights_depend_on_the_units_of_a_layer_and_ours_do_not() -> None:
    """It divides by max - min + 1e-8: small maps make it darken the pictures."""
    plain, small = drawn(SmallNet(inplace=False)).eval(), scaled(drawn(SmallNet(inplace=False)), 1e-8)
    a, b = (ours(net, pictures(), layer="down", variant="logit") for net in (plain, small))
    assert relative(b.weights, a.weights) <= 1e-9
    theirs = [grad_cams(net, pictures(), "down", answer.activation) for net, answer in ((plain, a), (small, b))]
    assert relative(torch.from_numpy(theirs[0]), a.weights) <= 1e-6
    assert relative(torch.from_numpy(theirs[1]), a.weights) > 1e-2


@pytest.mark.usefixtures("in_double")
def test_grad_cam_runs_constant_channels_as_black_pictures_and_we_do_not() -> None:
    net = with_dead_channels().eval()
    answer = ours(net, pictures(), layer="relu#1", variant="logit")
    seen = counted(net)
    theirs = torch.from_numpy(grad_cams(net, pictures(), "down", answer.activation))
    assert sum(map(len, seen)) == 16 > answer.passes.forward
    assert (torch.cat(seen).flatten(1).abs().amax(1) == 0).sum() == 6
    assert relative(answer.weights[:, [1, 4, 6]], theirs[:, [1, 4, 6]]) <= 1e-6
