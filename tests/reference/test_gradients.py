"""The gradient methods against captum, and where captum and grad-cam are wrong, against the formula."""

import warnings
from collections.abc import Callable, Iterator

import pytest
import torch
import torch.nn.functional as F
from captum.attr import GuidedBackprop, GuidedGradCam, InputXGradient, NoiseTunnel, Saliency
from torch import Tensor, nn
from torchvision.models import vgg16

from small_nets import Lambda, SmallNet, SmallViT, drawn, pictures, relative
from whence import attribute
from whence.errors import UnsupportedError
from whence.methods.guided_backprop import NO_RECTIFIER
from whence.models.classifier import Classifier
from whence.models.load import load_model
from whence.results import Attribution

TARGETS = [1, 3]


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Captum warns of the hooks that it sets."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        yield


def published(name: str) -> nn.Module:
    if name == "vgg16":  # without its classifier of 120 million weights
        with torch.device("meta"):
            net = vgg16(init_weights=False)
        net.classifier = nn.Linear(512 * 7 * 7, 10)
        return drawn(net.to_empty(device="cpu").eval(), shape=(3, 64, 64))
    return load_model(f"torchvision:{name}", weights="random").module.double()


def ours(net: nn.Module, x: Tensor, method: str, **options: object) -> Attribution:
    return attribute(Classifier(net), x, method, target=TARGETS, **options)


def captums(explainer: object, x: Tensor, **arguments: object) -> Tensor:
    return explainer.attribute(x.clone(), target=TARGETS, **arguments).detach()


def functional(rectify: Callable[[Tensor], Tensor] | None = None) -> nn.Module:
    """Return a net whose rectifiers are a function, or, without one, modules."""

    def forward(n: nn.Module, x: Tensor) -> Tensor:
        rectified = rectify or n.relu
        return n.head(rectified(n.second(rectified(n.first(x)))).mean((2, 3)))

    layers = {"first": nn.Conv2d(3, 6, 3), "second": nn.Conv2d(6, 8, 3), "relu": nn.ReLU(), "head": nn.Linear(8, 5)}
    return drawn(Lambda(forward, **layers))


# Input x gradient


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "convnext_tiny"])
def test_input_x_gradient_is_captums(name: str) -> None:
    net, x = published(name), pictures(size=64)
    expected = captums(InputXGradient(net), x)
    assert expected.abs().max() > 0
    assert relative(ours(net, x, "input-x-gradient").values, expected) <= 1e-10


# Guided backpropagation


@pytest.mark.parametrize("name", ["resnet18", "vgg16", "shufflenet_v2_x1_0"])
def test_guided_backprop_is_captums_where_every_rectifier_is_a_relu_module(name: str) -> None:
    net, x = published(name), pictures(size=64)
    expected = captums(GuidedBackprop(net), x)
    assert expected.abs().max() > 0
    answer = ours(net, x, "guided-backprop")
    assert relative(answer.values, expected) <= 1e-10
    assert relative(answer.values, ours(net, x, "gradient").values) > 0.1
    assert answer.notes == ((), ())


@pytest.mark.parametrize("inplace", [False, True])
def test_guided_backprop_is_captums_where_a_rectifier_is_used_twice(inplace: bool) -> None:
    net, x = drawn(SmallNet(inplace=inplace)), pictures()
    assert relative(ours(net, x, "guided-backprop").values, captums(GuidedBackprop(net), x)) <= 1e-10


@pytest.mark.parametrize("rectify", [F.relu, torch.relu, Tensor.relu, lambda x: x.clamp(min=0)])
def test_captum_ignores_functions_and_we_do_not(rectify: Callable[[Tensor], Tensor]) -> None:
    net, twin, x = functional(rectify), functional(), pictures()
    answer = ours(net, x, "guided-backprop").values
    assert relative(answer, captums(GuidedBackprop(twin), x)) <= 1e-10
    assert relative(captums(GuidedBackprop(net), x), ours(net, x, "gradient").values) <= 1e-12
    assert relative(answer, ours(net, x, "gradient").values) > 0.1


def test_captum_ignores_the_bounded_rectifiers_of_mobilenet_and_we_do_not() -> None:
    net, x = published("mobilenet_v2"), pictures(size=64)
    plain = ours(net, x, "gradient").values
    assert relative(captums(GuidedBackprop(net), x), plain) <= 1e-10
    leaf = x.clone().requires_grad_()
    handles = [
        layer.register_full_backward_hook(lambda _, into, __: (into[0].clamp(min=0),))
        for layer in net.modules()
        if isinstance(layer, nn.ReLU6)
    ]
    for layer in net.modules():
        if isinstance(layer, nn.ReLU6):
            layer.inplace = False
    (expected,) = torch.autograd.grad(net(leaf)[[0, 1], TARGETS].sum(), leaf)
    for handle in handles:
        handle.remove()
    assert len(handles) == 35
    answer = ours(net, x, "guided-backprop").values
    assert relative(answer, expected) <= 1e-10
    assert relative(answer, plain) > 0.1


def test_grad_cam_s_guided_backprop_gives_our_map_and_leaves_the_model_changed() -> None:
    """Its float32 map of the first picture is right; all rectifiers are afterwards one and the same new module."""
    peer = pytest.importorskip("pytorch_grad_cam")
    net, x = drawn(SmallNet(inplace=True)), pictures(1)
    net.relu, first, second = nn.ReLU(inplace=True), net.relu, net.block.relu
    expected = ours(net, x[[0, 0]], "guided-backprop").values[:1]
    theirs = torch.from_numpy(peer.GuidedBackpropReLUModel(net)(x, TARGETS[0])).permute(2, 0, 1)[None]
    assert relative(theirs, expected) <= 1e-10
    assert first is not second
    assert net.relu is net.block.relu
    assert net.relu is not first
    assert not net.relu.inplace


@pytest.mark.parametrize("name", ["convnext_tiny", "vit"])
def test_without_a_rectifier_guided_backprop_is_the_gradient_and_says_so(name: str) -> None:
    net, size = (drawn(SmallViT()), 16) if name == "vit" else (published(name), 64)
    x = pictures(size=size)
    answer = ours(net, x, "guided-backprop")
    assert torch.equal(answer.values, ours(net, x, "gradient").values)
    assert answer.notes == ((NO_RECTIFIER,), (NO_RECTIFIER,))


def test_several_targets_share_the_guided_pass() -> None:
    from whence.attribution import attribute_all

    net, x = drawn(SmallNet()), pictures()
    both = attribute_all(Classifier(net), x, "guided-backprop", [1, 3], {})
    assert [answer.passes.forward for answer in both] == [2, 0]
    for answer, target in zip(both, (1, 3), strict=True):
        alone = attribute(Classifier(net), x, "guided-backprop", target=target)
        assert torch.equal(answer.values, alone.values)
        assert answer.notes == alone.notes == ((), ())


@pytest.mark.parametrize("rectifier", [nn.ReLU, nn.ReLU6])
@pytest.mark.parametrize("method", ["guided-backprop", "guided-grad-cam"])
def test_scripts_are_refused_with_the_reason(method: str, rectifier: type[nn.Module]) -> None:
    net, x = drawn(SmallNet()), pictures()
    net.block.relu = rectifier()
    net.block = torch.jit.trace(net.block, net.stem(x))
    for _ in range(2):
        with pytest.raises(UnsupportedError, match="script or a compiled function"):
            attribute(Classifier(net), x, method, target=1, **({"layer": "down"} if "cam" in method else {}))


# Guided Grad-CAM


@pytest.mark.parametrize("layer", ["layer4", "layer3.0.bn1", None])
def test_guided_grad_cam_is_captums(layer: str | None) -> None:
    net, x = published("resnet18"), pictures(size=(64, 96))
    answer = ours(net, x, "guided-grad-cam", layer=layer)
    peer = GuidedGradCam(net, net.get_submodule(answer.layer))
    expected = captums(peer, x, interpolate_mode="bilinear")
    assert expected.abs().max() > 0
    assert relative(answer.values, expected) <= 1e-10
    assert relative(captums(peer, x), expected) > 0.1  # its default repeats the nearest cell


# SmoothGrad, against captum's noise tunnel with our noise fed in


def noise(x: Tensor, samples: int, sigma: float, seed: int) -> Tensor:
    """Return what is added, [B, samples, C, H, W]."""
    generator = torch.Generator().manual_seed(seed)
    drawn_ = torch.stack([torch.randn(x.shape[1:], generator=generator) for _ in range(samples)]).double()
    spans = torch.tensor([sigma * float(picture.max() - picture.min()) for picture in x], dtype=torch.float64)
    return spans.reshape(-1, 1, 1, 1, 1) * drawn_


@pytest.mark.parametrize(
    ("variant", "theirs"), [("mean", "smoothgrad"), ("square", "smoothgrad_sq"), ("variance", "vargrad")]
)
def test_smoothgrad_is_captums(variant: str, theirs: str, monkeypatch: pytest.MonkeyPatch) -> None:
    net, x, samples = published("resnet18"), pictures(size=48), 3
    added = noise(x, samples, 0.2, seed=7)
    monkeypatch.setattr(
        NoiseTunnel, "_add_noise_to_input", staticmethod(lambda t, stdev, n: (t[:, None] + added).flatten(0, 1))
    )
    expected = captums(NoiseTunnel(Saliency(net)), x, nt_type=theirs, nt_samples=samples, stdevs=1.0, abs=False)
    assert expected.abs().max() > 0
    answer = ours(net, x, "smoothgrad", samples=samples, sigma=0.2, variant=variant, seed=7)
    assert relative(answer.values, expected) <= 1e-10


def test_captum_s_variance_cancels_in_float32_and_ours_does_not() -> None:
    """For a linear net the variance is exactly 0 under any noise; the mean square less the squared mean is not."""
    net = drawn(nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 5))).float()
    x = pictures().float()
    theirs = captums(NoiseTunnel(Saliency(net)), x, nt_type="vargrad", nt_samples=7, stdevs=0.5, abs=False)
    assert theirs.min() < 0 < theirs.max()
    assert ours(net, x, "smoothgrad", samples=7, variant="variance").values.abs().max() == 0


def test_without_noise_smoothgrad_is_the_gradient() -> None:
    net, x = published("resnet18"), pictures(size=64)
    gradient = ours(net, x, "gradient")
    answer = ours(net, x, "smoothgrad", samples=3, sigma=0.0)
    assert relative(answer.values, gradient.values) <= 1e-12
    assert torch.equal(answer.score, gradient.score)
    assert ours(net, x, "smoothgrad", samples=3, sigma=0, variant="variance").values.abs().max() <= 1e-20
