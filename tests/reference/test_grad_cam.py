"""Grad-CAM against captum's LayerGradCam, and against its formula where captum cannot read the layer's layout."""

from collections.abc import Callable

import pytest
import torch
from captum.attr import LayerGradCam
from torch import Tensor, nn
from torchvision.models import vgg16
from torchvision.models.swin_transformer import SwinTransformer
from torchvision.models.vision_transformer import VisionTransformer

from small_nets import Lambda, SmallNet, drawn, pictures, relative
from whence import attribute
from whence.models.classifier import Classifier
from whence.models.load import load_model
from whence.results import Attribution

TARGETS = [1, 3]


def published(name: str) -> nn.Module:
    if name == "vgg16":  # without its classifier of 120 million weights
        with torch.device("meta"):
            net = vgg16(init_weights=False)
        net.classifier = nn.Linear(512 * 7 * 7, 10)
        return drawn(net.to_empty(device="cpu").eval(), shape=(3, 64, 64))
    return load_model(f"torchvision:{name}", weights="random").module.double()


def ours(net: nn.Module, x: Tensor, layer: str | None = None, **options: object) -> Attribution:
    return attribute(Classifier(net), x, "grad-cam", target=TARGETS, layer=layer, **options)


def captums(net: nn.Module, x: Tensor, layer: str, relu: bool = False) -> Tensor:
    explainer = LayerGradCam(net, net.get_submodule(layer))
    return explainer.attribute(x, target=TARGETS, relu_attributions=relu).detach()


def formula(net: nn.Module, x: Tensor, layer: str, to_maps: Callable[[Tensor], Tensor]) -> Tensor:
    """Return sum_k (mean of dS/dA_k) A_k by plain autograd; ``to_maps`` reads the layer's output as [B, K, h, w]."""
    kept = []
    handle = net.get_submodule(layer).register_forward_hook(lambda _, __, output: kept.append(output))
    score = net(x)[torch.arange(len(x)), torch.tensor(TARGETS)].sum()
    handle.remove()
    (gradient,) = torch.autograd.grad(score, kept[0])
    a, g = to_maps(kept[0].detach()), to_maps(gradient)
    return (g.mean((2, 3), keepdim=True) * a).sum(1, keepdim=True)


CASES = [
    # Its default layer, and an inner layer behind which the net works in place.
    ("resnet18", 64, [None, "layer4.1.bn2", "layer3.0.bn1"]),
    ("resnet50", 64, [None, "layer4.2.bn3"]),
    ("vgg16", 64, [None, "features.26"]),
    ("densenet121", 64, [None, "features.denseblock4.denselayer16.norm2"]),
    ("mobilenet_v2", 64, [None, "features.18.1"]),
    ("convnext_tiny", 64, [None, "features.7.1.block.0"]),
]


@pytest.mark.parametrize(("name", "side", "layers"), CASES, ids=[case[0] for case in CASES])
def test_the_map_is_captums(name: str, side: int, layers: list[str | None]) -> None:
    net, x = published(name), pictures(size=side)
    for layer in layers:
        answer = ours(net, x, layer)
        expected = captums(net, x, answer.layer)
        assert answer.values.shape == expected.shape
        assert expected.abs().max() > 0
        assert relative(answer.values, expected) <= 1e-10


def test_the_map_cut_to_its_positive_part_is_captums() -> None:
    net, x = drawn(SmallNet()), pictures()
    answer = ours(net, x, "down", relu=True)
    assert relative(answer.values, captums(net, x, "down", relu=True)) <= 1e-12
    assert torch.equal(answer.values, ours(net, x, "down").values.clamp(min=0))


def tokens(grid: tuple[int, int]) -> Callable[[Tensor], Tensor]:
    """Return the maps in [B, 1 + h w, K], the class token left out."""
    return lambda t: t[:, 1:].transpose(1, 2).unflatten(2, grid)


def channels_last(t: Tensor) -> Tensor:
    return t.permute(0, 3, 1, 2)


def small_vit() -> nn.Module:
    """Return torchvision's vision transformer at a tenth of the width."""
    return VisionTransformer(
        image_size=64, patch_size=16, num_layers=3, num_heads=2, hidden_dim=16, mlp_dim=32, num_classes=10
    ).eval()


def small_swin() -> nn.Module:
    """Return torchvision's Swin transformer with two short stages."""
    return SwinTransformer(
        patch_size=[4, 4], embed_dim=12, depths=[2, 2], num_heads=[2, 2], window_size=[4, 4], num_classes=10
    ).eval()


ENCODER = "encoder.layers.encoder_layer_"
TRANSFORMERS = [
    (small_vit, 64, f"{ENCODER}2.ln_1", tokens((4, 4))),
    (small_vit, 64, f"{ENCODER}1", tokens((4, 4))),
    (small_vit, 64, f"{ENCODER}1.mlp", tokens((4, 4))),
    (small_swin, 64, "features.3.1", channels_last),
    (small_swin, 64, "features.1.0.mlp", channels_last),
    (small_swin, 64, "norm", channels_last),
    (small_swin, 64, "permute", lambda t: t),
]


@pytest.mark.parametrize(
    ("build", "side", "layer", "to_maps"),
    TRANSFORMERS,
    ids=[f"{case[0].__name__}-{case[2]}" for case in TRANSFORMERS],
)
def test_the_map_of_a_transformer_is_the_formula(
    build: Callable[[], nn.Module], side: int, layer: str, to_maps: Callable[[Tensor], Tensor]
) -> None:
    net, x = drawn(build(), shape=(3, side, side)), pictures(size=side)
    expected = formula(net, x, layer, to_maps)
    assert expected.abs().max() > 0
    assert relative(ours(net, x, layer).values, expected) <= 1e-10


def test_the_map_of_vit_b_16_at_its_default_layer_is_the_formula() -> None:
    net = load_model("torchvision:vit_b_16", weights="random", image_size=64).module.double()
    x = pictures(size=64)
    answer = ours(net, x)
    assert answer.layer in (f"{ENCODER}10", f"{ENCODER}11.ln_1")
    assert relative(answer.values, formula(net, x, answer.layer, tokens((4, 4)))) <= 1e-10


def test_the_map_of_swin_t_at_its_default_layer_is_the_formula() -> None:
    net, x = published("swin_t"), pictures(size=64)
    answer = ours(net, x)
    assert answer.layer == "permute"
    assert relative(answer.values, formula(net, x, "permute", lambda t: t)) <= 1e-10


def test_a_norm_over_the_last_axis_inside_convnext_is_the_formula() -> None:
    net, x = published("convnext_tiny"), pictures(size=64)
    layer = "features.5.4.block.2"
    assert relative(ours(net, x, layer).values, formula(net, x, layer, channels_last)) <= 1e-10


@pytest.mark.parametrize("size", [(64, 96), (96, 64)])
def test_rectangular_pictures_are_captums(size: tuple[int, int]) -> None:
    net, x = published("resnet18"), pictures(size=size)
    answer = ours(net, x)
    assert answer.values.shape[2:] == (size[0] // 32, size[1] // 32)
    assert relative(answer.values, captums(net, x, "layer4")) <= 1e-10


def test_the_call_of_a_module_that_is_used_twice_is_the_one_that_is_named() -> None:
    """Equal to a twin in which each call is a module of its own."""
    x = pictures()

    def twice(net: nn.Module, x: Tensor) -> Tensor:
        return net.head(net.relu(net.second(net.relu(net.first(x)))).mean((2, 3)))

    def once(net: nn.Module, x: Tensor) -> Tensor:
        return net.head(net.relu1(net.second(net.relu(net.first(x)))).mean((2, 3)))

    convs = {"first": nn.Conv2d(3, 6, 3), "second": nn.Conv2d(6, 8, 3)}
    net = drawn(Lambda(twice, **convs, relu=nn.ReLU(), head=nn.Linear(8, 10)))
    twin = Lambda(once, **convs, relu=nn.ReLU(), relu1=nn.ReLU(), head=net.head)
    for ours_, twins in (("relu", "relu"), ("relu#1", "relu1")):
        assert relative(ours(net, x, ours_).values, captums(twin, x, twins)) <= 1e-12
