"""The class activation maps against their formulas, and against grad-cam and torch-cam where these are right."""

from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torchvision.models.swin_transformer import SwinTransformer
from torchvision.models.vision_transformer import VisionTransformer

from small_nets import Lambda, drawn, pictures, relative
from whence import attribute
from whence.models.classifier import Classifier
from whence.models.load import load_model
from whence.registry import METHODS
from whence.results import Attribution

TARGETS = [1, 3]
Maps = Callable[[Tensor], Tensor]


@cache
def published(name: str) -> nn.Module:
    return load_model(f"torchvision:{name}", weights="random").module.double()


@cache
def small_vit() -> nn.Module:
    """Return torchvision's vision transformer at a tenth of the width."""
    net = VisionTransformer(
        image_size=64, patch_size=16, num_layers=3, num_heads=2, hidden_dim=16, mlp_dim=32, num_classes=10
    )
    return drawn(net.eval(), shape=(3, 64, 64))


@cache
def small_swin() -> nn.Module:
    """Return torchvision's Swin transformer with two short stages."""
    net = SwinTransformer(
        patch_size=[4, 4], embed_dim=12, depths=[2, 2], num_heads=[2, 2], window_size=[4, 4], num_classes=10
    )
    return drawn(net.eval(), shape=(3, 64, 64))


def as_it_is(t: Tensor) -> Tensor:
    return t


def tokens(t: Tensor) -> Tensor:
    """Return the maps in [B, 1 + 16, K], the class token left out."""
    return t[:, 1:].transpose(1, 2).unflatten(2, (4, 4))


def channels_last(t: Tensor) -> Tensor:
    return t.permute(0, 3, 1, 2)


CASES: dict[str, tuple[Callable[[], nn.Module], str, Maps]] = {
    "resnet18": (lambda: published("resnet18"), "layer4", as_it_is),
    "resnet18 inner": (lambda: published("resnet18"), "layer3.0.bn1", as_it_is),
    "mobilenet_v2": (lambda: published("mobilenet_v2"), "features", as_it_is),
    "densenet121": (lambda: published("densenet121"), "features.denseblock4", as_it_is),
    "convnext_tiny": (lambda: published("convnext_tiny"), "features.7.1.block.0", as_it_is),
    "vit": (small_vit, "encoder.layers.encoder_layer_2.ln_1", tokens),
    "swin": (small_swin, "features.3.1", channels_last),
}


def ours(net: nn.Module, x: Tensor, method: str, layer: str | tuple[str, ...], **options: object) -> Attribution:
    return attribute(Classifier(net), x, method, target=TARGETS, layer=layer, **options)


def tapped(net: nn.Module, x: Tensor, layer: str, to_maps: Maps = as_it_is) -> tuple[Tensor, Tensor]:
    """Return a layer's own activation and gradient by plain autograd; the net goes on with a copy."""
    kept = []

    def keep(_: nn.Module, __: object, output: Tensor) -> Tensor:
        kept.append(output)
        return output.clone()

    handle = net.get_submodule(layer).register_forward_hook(keep)
    score = net(x.clone().requires_grad_())[torch.arange(len(x)), torch.tensor(TARGETS)].sum()
    handle.remove()
    (gradient,) = torch.autograd.grad(score, kept[0])
    return to_maps(kept[0].detach()), to_maps(gradient)


def plus_plus_weights(a: Tensor, g: Tensor, eps: float = 0.0) -> Tensor:
    alpha = g**2 / (2 * g**2 + a.sum((2, 3), keepdim=True) * g**3 + eps)
    return (torch.where(g == 0, 0.0, alpha) * g.relu()).sum((2, 3))


def xgrad_weights(a: Tensor, g: Tensor) -> Tensor:
    total, size = a.sum((2, 3)), a.abs().sum((2, 3))
    return torch.where(total.abs() <= 1e-3 * size, g.mean((2, 3)), (g * a).sum((2, 3)) / total)


def summed(weights: Tensor, a: Tensor) -> Tensor:
    return torch.einsum("bk,bkhw->bhw", weights, a)


def component(a: Tensor) -> Tensor:
    """Return the first principal component by a full singular value decomposition, growing with the length."""
    maps = []
    for one in a:
        o = one.flatten(1).T.numpy()
        centred = o - o.mean(0)
        found = centred @ np.linalg.svd(centred, full_matrices=False)[2][0]
        lengths = np.linalg.norm(o, axis=1)
        sign = np.sign(np.dot(found, lengths - lengths.mean()))
        maps.append(torch.from_numpy(sign * found).reshape(one.shape[1:]))
    return torch.stack(maps)


FORMULAS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "grad-cam++": lambda a, g: summed(plus_plus_weights(a, g), a),
    "xgrad-cam": lambda a, g: summed(xgrad_weights(a, g), a),
    "layer-cam": lambda a, g: (g.relu() * a).sum(1),
    "hires-cam": lambda a, g: (g * a).sum(1),
    "eigen-cam": lambda a, g: component(a),
}


@pytest.mark.parametrize("case", CASES)
def test_the_maps_are_the_formulas(case: str) -> None:
    build, layer, to_maps = CASES[case]
    net, x = build(), pictures(size=64)
    a, g = tapped(net, x, layer, to_maps)
    for method, formula in FORMULAS.items():
        answer, expected = ours(net, x, method, layer), formula(a, g)
        assert expected.abs().max() > 0
        assert relative(answer.values[:, 0], expected) <= 1e-10, method
        positive = ours(net, x, method, layer, relu=True).values
        assert torch.equal(positive, answer.values.clamp(min=0))


# The weights of CAM: those of the linear layer itself

HEADS = {
    "resnet18": ("layer4", "fc"),
    "mobilenet_v2": ("features", "classifier.1"),
    "densenet121": ("features", "classifier"),
}


@pytest.mark.parametrize("name", HEADS)
def test_cam_is_the_pooled_maps_weighed_by_the_linear_layer(name: str) -> None:
    layer, head = HEADS[name]
    net, x = published(name), pictures(size=64)
    answer = attribute(Classifier(net), x, "cam", target=TARGETS)
    assert answer.layer == layer
    weight, bias = net.get_submodule(head).weight[TARGETS].detach(), net.get_submodule(head).bias[TARGETS].detach()
    a, _ = tapped(net, x, layer)
    # DenseNet rectifies its features on the way to the pooling.
    rectified = name == "densenet121"
    pooled = a.relu() if rectified else a
    assert relative(answer.values[:, 0], summed(weight, pooled)) <= 1e-12
    assert relative(answer.values.mean((1, 2, 3)), answer.score - bias) <= 1e-10
    # What the rectifier cuts everywhere has a weight that cannot be seen.
    seen = (a > 0).flatten(2).any(2) if rectified else torch.ones_like(weight)
    assert relative(answer.weights, weight * seen) <= 1e-12


def test_cam_of_a_swin_transformer_is_its_head_over_its_normed_tokens() -> None:
    net, x = small_swin(), pictures(size=64)
    answer = attribute(Classifier(net), x, "cam", target=TARGETS)
    a, _ = tapped(net, x, "norm", channels_last)
    assert relative(answer.values[:, 0], summed(net.head.weight[TARGETS].detach(), a)) <= 1e-12


@pytest.mark.parametrize("layer", ["conv", ("conv",), ("conv", "relu")])
def test_cam_s_plan_of_cost_counts_every_layer(layer: str | tuple[str, ...]) -> None:
    layers = {"conv": nn.Conv2d(3, 6, 3), "relu": nn.ReLU(), "head": nn.Linear(6, 5)}
    net, x = drawn(Lambda(lambda n, x: n.head(n.relu(n.conv(x)).mean((2, 3))), **layers)), pictures()
    facts = METHODS.facts("cam")
    plan = facts.cost(facts.checked({"layer": layer}), Classifier(net))
    taken = ours(net, x, "cam", layer).passes
    assert (taken.forward, taken.backward, taken.partial) == (2 * plan.forward, 2 * plan.backward, 2 * plan.partial)


@pytest.mark.parametrize("layer", ["classifier.1", "classifier.2"])
def test_cam_at_the_class_maps_of_squeezenet_is_the_class_s_own_map(layer: str) -> None:
    net, x = published("squeezenet1_1"), pictures(size=64)
    a, _ = tapped(net, x, layer)
    expected = a.relu()[torch.arange(2), torch.tensor(TARGETS)]
    assert expected.abs().max() > 0
    assert relative(ours(net, x, "cam", layer).values[:, 0], expected) <= 1e-12


# grad-cam


def grad_cams(
    name: str, net: nn.Module, x: Tensor, layer: str, to_maps: Maps = as_it_is
) -> tuple[Tensor, Tensor, object]:
    """Return what grad-cam recorded, and its explainer, after a full run of its own."""
    peer = pytest.importorskip("pytorch_grad_cam")
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    kinds = {
        "grad-cam++": peer.GradCAMPlusPlus,
        "xgrad-cam": peer.XGradCAM,
        "layer-cam": peer.LayerCAM,
        "hires-cam": peer.HiResCAM,
        "eigen-cam": peer.EigenCAM,
    }
    explainer = kinds[name](
        net, [net.get_submodule(layer)], reshape_transform=None if to_maps is as_it_is else to_maps
    )
    explainer.uses_gradients = True
    explainer(x, [ClassifierOutputTarget(target) for target in TARGETS])
    recorded = explainer.activations_and_grads
    net.zero_grad()
    return recorded.activations[0], recorded.gradients[0], explainer


def raw(explainer: object, a: Tensor, g: Tensor) -> Tensor:
    """Return grad-cam's map before it is cut, scaled and resized."""
    return torch.as_tensor(explainer.get_cam_image(None, None, None, a.numpy(), g.numpy(), False))


PEERS = ["resnet18", "convnext_tiny", "vit", "swin"]


@pytest.mark.parametrize("case", PEERS)
def test_the_maps_are_grad_cams(case: str) -> None:
    build, layer, to_maps = CASES[case]
    net, x = build(), pictures(size=64)
    for method in ("layer-cam", "hires-cam"):
        a, g, explainer = grad_cams(method, net, x, layer, to_maps)
        assert relative(ours(net, x, method, layer).values[:, 0], raw(explainer, a, g)) <= 1e-10, method
    a, g, explainer = grad_cams("eigen-cam", net, x, layer, to_maps)
    found, expected = ours(net, x, "eigen-cam", layer).values[:, 0], raw(explainer, a, g).double()
    for one, theirs in zip(found, expected, strict=True):
        # Its single precision, and any sign.
        assert min(relative(one, theirs), relative(-one, theirs)) <= 1e-5


def test_the_weights_of_xgrad_cam_are_grad_cams_without_what_it_adds_to_the_sum() -> None:
    net, x = published("resnet18"), pictures(size=64)
    a, g, explainer = grad_cams("xgrad-cam", net, x, "layer4")
    theirs = torch.as_tensor(explainer.get_cam_weights(None, None, None, a.numpy(), g.numpy()))
    total = a.sum((2, 3))
    silent = total == 0
    answer = ours(net, x, "xgrad-cam", "layer4")
    mended = torch.where(silent, answer.weights, theirs * (total + 1e-7) / total.clamp(min=1e-300))
    assert relative(answer.weights, mended) <= 1e-10


def test_the_weights_of_grad_cam_plus_plus_are_grad_cams_without_what_it_adds_to_the_denominator() -> None:
    """g^2 is about 1e-6 here itself: with 1e-6 added to the denominator the weights are others."""
    net, x = published("resnet18"), pictures(size=64)
    a, g, explainer = grad_cams("grad-cam++", net, x, "layer4")
    theirs = torch.as_tensor(explainer.get_cam_weights(None, None, None, a.numpy(), g.numpy()))
    assert relative(theirs, plus_plus_weights(a, g, eps=1e-6)) <= 1e-10
    found = ours(net, x, "grad-cam++", "layer4").weights
    assert relative(found, plus_plus_weights(a, g)) <= 1e-10
    small = 1e-3 * g
    weak = torch.as_tensor(explainer.get_cam_weights(None, None, None, a.numpy(), small.numpy()))
    assert relative(weak, plus_plus_weights(a, small)) > 0.5


def test_grad_cams_xgrad_cam_explodes_where_a_channel_s_activation_cancels_out() -> None:
    peer = pytest.importorskip("pytorch_grad_cam")
    layers = {"layer": nn.Identity(), "after": nn.Conv2d(4, 4, 3, padding=1), "head": nn.Linear(4, 5)}
    net = drawn(Lambda(lambda n, x: n.head(n.after(n.layer(x)).sigmoid().mean((2, 3))), **layers), shape=(4, 8, 8))
    x = pictures(channels=4, size=8)
    x[:, 0] -= x[:, 0].mean((1, 2), keepdim=True)
    a, g = tapped(net, x, "layer")
    theirs = torch.as_tensor(peer.XGradCAM(net, [net.layer]).get_cam_weights(None, None, None, a.numpy(), g.numpy()))
    found = ours(net, x, "xgrad-cam", "layer").weights
    largest = g.abs().amax((1, 2, 3))
    assert (theirs[:, 0].abs() > 1e3 * largest).all()
    assert relative(found[:, 0], g[:, 0].mean((1, 2))) <= 1e-12


def bright(seed: int) -> Tensor:
    """Return eight maps of one picture: weak noise, and one object that half of them see."""
    generator = torch.Generator().manual_seed(seed)
    maps = 0.1 * torch.rand(1, 8, 8, 8, generator=generator).double()
    top, left = torch.randint(0, 6, (2,), generator=generator).tolist()
    maps[:, torch.randperm(8, generator=generator)[:4], top : top + 3, left : left + 3] += 1
    return maps


def test_the_object_is_positive_in_eigen_cam_and_not_in_grad_cams() -> None:
    module = pytest.importorskip("pytorch_grad_cam.utils.svd_on_activations")
    net = drawn(Lambda(lambda n, x: n.head(n.layer(x).mean((2, 3))), layer=nn.Identity(), head=nn.Linear(8, 5)),
                shape=(8, 8, 8))  # fmt: skip
    signs = []
    for seed in range(40):
        x = bright(seed)
        seen = x.mean(1)[0] > 0.3
        found = attribute(Classifier(net), x, "eigen-cam", target=1, layer="layer").values[0, 0]
        theirs = torch.as_tensor(module.get_2d_projection(x.numpy()))[0].double()
        assert (found[seen] > 0).all()
        assert min(relative(found, theirs), relative(-found, theirs)) <= 1e-5
        signs.append(bool((theirs[seen] > 0).all()))
    assert not all(signs)


def in_place(inplace: bool) -> nn.Module:
    layers = {"conv": nn.Conv2d(3, 8, 3), "bn": nn.BatchNorm2d(8), "after": nn.Conv2d(8, 8, 3)}
    relu = {"relu": nn.ReLU(inplace), "head": nn.Linear(8, 5)}
    return drawn(Lambda(lambda n, x: n.head(n.after(n.relu(n.bn(n.conv(x)))).mean((2, 3))), **layers, **relu))


@pytest.mark.parametrize("method", ["grad-cam++", "xgrad-cam", "eigen-cam"])
def test_a_layer_before_an_operation_in_place_is_explained_as_it_is_and_not_as_grad_cam_does(method: str) -> None:
    x = pictures()
    plain, working = (grad_cams(method, in_place(inplace), x, "bn") for inplace in (False, True))
    assert torch.equal(plain[1], working[1])
    # On a CPU the rectifier has already cut what grad-cam recorded.
    assert torch.equal(working[0], plain[0].relu())
    assert not torch.equal(working[0], plain[0])
    found = ours(in_place(True), x, method, "bn").values
    assert torch.equal(found, ours(in_place(False), x, method, "bn").values)
    assert relative(found[:, 0], FORMULAS[method](*tapped(in_place(False), x, "bn"))) <= 1e-10


# torch-cam


def test_torch_cams_grad_cam_plus_plus_loses_its_division() -> None:
    gradient = pytest.importorskip("torchcam.methods.gradient")
    net, x = published("resnet18"), pictures(size=64)
    with gradient.GradCAMpp(net, "layer4", input_shape=(3, 64, 64)) as explainer:
        (theirs,) = explainer(TARGETS, net(x), normalized=False)
    a, g = tapped(net, x, "layer4")
    undivided = summed((g**2 * g.relu()).sum((2, 3)), a).relu()
    assert relative(theirs.detach(), undivided) <= 1e-10
    found = ours(net, x, "grad-cam++", "layer4", relu=True).values[:, 0]
    assert relative(found, summed(plus_plus_weights(a, g), a).relu()) <= 1e-10
    assert relative(found / found.max(), undivided / undivided.max()) > 1e-3


def test_the_fused_maps_of_layer_cam_are_torch_cams_but_for_the_last_layer() -> None:
    """torch-cam bends the maps of all layers; only those of shallow ones are weak."""
    gradient = pytest.importorskip("torchcam.methods.gradient")
    net, x = published("resnet18"), pictures(size=64)
    layers = ("layer2", "layer3", "layer4")
    answer = ours(net, x, "layer-cam", layers)
    with gradient.LayerCAM(net, list(layers), input_shape=(3, 64, 64)) as explainer:
        theirs = [cam.detach() for cam in explainer(TARGETS, net(x), normalized=False)]
    for name, cam in zip(layers, theirs, strict=True):
        # ResNet's blocks end in a rectifier, so that nothing was there to be cut.
        assert relative(answer.layers[name][:, 0], cam) <= 1e-10
    shares = [cam / cam.amax((1, 2), keepdim=True) for cam in theirs]
    # The inverse of the bending, put on the last one beforehand.
    shares[-1] = shares[-1].clamp(max=1 - 1e-15).atanh() / 2
    expected = gradient.LayerCAM.fuse_cams(shares)
    assert answer.values.shape == (2, 1, 8, 8)
    assert relative(answer.values[:, 0], expected) <= 1e-10
