"""Laws of the gradient methods: closed forms of linear nets and of one hidden layer, twins, symmetry."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from small_nets import Lambda, SmallNet, drawn, pictures, relative
from whence import attribute
from whence.models.classifier import Classifier
from whence.results import Attribution

SEEDS = st.integers(0, 10_000)
CLASSES = st.integers(0, 4)
METHODS = ["gradient", "input-x-gradient", "guided-backprop", "guided-grad-cam", "smoothgrad", "noise.grad-cam"]
TOLERANCE = 1e-10


def explain(method: str, net: nn.Module, x: Tensor, target: object = 1, **options: object) -> Attribution:
    if method in ("smoothgrad", "noise.grad-cam"):
        options = {"samples": 3, **options}
    return attribute(Classifier(net), x, method, target=target, **options)


def linear(seed: int, bias: bool = True) -> nn.Module:
    return drawn(Lambda(lambda n, x: n.head(x.flatten(1)), head=nn.Linear(3 * 6 * 6, 5, bias=bias)), seed)


def hidden(seed: int, bias: bool = True) -> nn.Module:
    layers = {"first": nn.Linear(3 * 6 * 6, 20, bias=bias), "relu": nn.ReLU(), "head": nn.Linear(20, 5, bias=bias)}
    return drawn(Lambda(lambda n, x: n.head(n.relu(n.first(x.flatten(1)))), **layers), seed)


@settings(max_examples=25, deadline=None)
@given(seed=SEEDS, target=CLASSES, sigma=st.floats(0, 2))
def test_of_a_linear_net_all_are_its_weights(seed: int, target: int, sigma: float) -> None:
    net, x = linear(seed), pictures(size=6, seed=seed)
    w = net.head.weight[target].detach().reshape(1, 3, 6, 6).expand_as(x)
    for method in ("gradient", "guided-backprop"):
        assert relative(explain(method, net, x, target).values, w) <= TOLERANCE
    product = explain("input-x-gradient", net, x, target)
    assert relative(product.values, w * x) <= TOLERANCE
    torch.testing.assert_close(product.values.sum((1, 2, 3)), product.score - net.head.bias[target].detach())
    for variant, expected in (("mean", w), ("square", w**2), ("variance", 0 * w)):
        values = explain("smoothgrad", net, x, target, sigma=sigma, variant=variant).values
        assert (values - expected).abs().max() <= TOLERANCE * w.abs().max()


@settings(max_examples=25, deadline=None)
@given(seed=SEEDS, target=CLASSES)
def test_of_one_hidden_layer_guided_backprop_is_its_closed_form(seed: int, target: int) -> None:
    """Sum over the units that are on and whose weight to the class is positive: w_k W_k."""
    net, x = hidden(seed), pictures(size=6, seed=seed)
    on = (net.first(x.flatten(1)) > 0).double()
    w = net.head.weight[target]
    expected = ((on * w.clamp(min=0)) @ net.first.weight).detach().reshape(x.shape)
    plain = ((on * w) @ net.first.weight).detach().reshape(x.shape)
    assert relative(explain("guided-backprop", net, x, target).values, expected) <= TOLERANCE
    assert relative(explain("gradient", net, x, target).values, plain) <= TOLERANCE


@settings(max_examples=25, deadline=None)
@given(seed=SEEDS, target=CLASSES)
def test_without_biases_input_x_gradient_sums_to_the_score(seed: int, target: int) -> None:
    """The net is homogeneous of degree one (Euler)."""
    answer = explain("input-x-gradient", hidden(seed, bias=False), pictures(size=6, seed=seed), target)
    torch.testing.assert_close(answer.values.sum((1, 2, 3)), answer.score, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("method", METHODS)
@settings(max_examples=8, deadline=None)
@given(seed=SEEDS)
def test_a_batch_gives_what_single_pictures_give(method: str, seed: int) -> None:
    net, x = drawn(SmallNet(), seed), pictures(3, seed=seed)
    together = explain(method, net, x, None).values
    singles = torch.cat([explain(method, net, x[i : i + 1], None).values for i in range(3)])
    assert (together - singles).abs().max() <= TOLERANCE * singles.abs().max()


@pytest.mark.parametrize("method", METHODS)
@settings(max_examples=8, deadline=None)
@given(seed=SEEDS, target=CLASSES)
def test_a_net_that_works_in_place_gives_what_its_twin_gives(method: str, seed: int, target: int) -> None:
    inside, twin, x = drawn(SmallNet(inplace=True), seed), drawn(SmallNet(inplace=False), seed), pictures(seed=seed)
    a, b = explain(method, inside, x, target).values, explain(method, twin, x, target).values
    assert (a - b).abs().max() <= TOLERANCE * b.abs().max()


@pytest.mark.parametrize("method", METHODS)
@settings(max_examples=8, deadline=None)
@given(seed=SEEDS, target=CLASSES)
def test_a_rectifier_used_twice_gives_what_two_rectifiers_give(method: str, seed: int, target: int) -> None:
    layers = {"first": nn.Conv2d(3, 6, 3), "second": nn.Conv2d(6, 8, 3), "head": nn.Linear(8, 5)}

    def once(n: nn.Module, x: Tensor) -> Tensor:
        return n.head(n.second_relu(n.second(n.relu(n.first(x)))).mean((2, 3)))

    def twice(n: nn.Module, x: Tensor) -> Tensor:
        return n.head(n.relu(n.second(n.relu(n.first(x)))).mean((2, 3)))

    net = drawn(Lambda(twice, **layers, relu=nn.ReLU(inplace=True)), seed)
    twin = Lambda(once, **layers, relu=nn.ReLU(), second_relu=nn.ReLU())
    x = pictures(seed=seed)
    options = {"layer": "second"} if "cam" in method else {}
    a, b = explain(method, net, x, target, **options).values, explain(method, twin, x, target, **options).values
    assert (a - b).abs().max() <= TOLERANCE * b.abs().max()


@settings(max_examples=15, deadline=None)
@given(seed=SEEDS, target=CLASSES, factor=st.floats(0.1, 10))
def test_guided_backprop_scales_with_a_positive_factor_and_not_with_the_sign(
    seed: int, target: int, factor: float
) -> None:
    """It is no linear map of the score: that of -S is not the negative of that of S."""
    net, x = drawn(SmallNet(), seed), pictures(seed=seed)
    plain = explain("guided-backprop", net, x, target).values
    scaled = explain("guided-backprop", net, x, lambda output: factor * output[:, target]).values
    assert (scaled - factor * plain).abs().max() <= TOLERANCE * factor * plain.abs().max()
    turned = explain("guided-backprop", net, x, lambda output: -output[:, target]).values
    scale = torch.maximum(plain.abs().max(), turned.abs().max())
    assert scale == 0 or (turned + plain).abs().max() > 1e-3 * scale


@settings(max_examples=15, deadline=None)
@given(seed=SEEDS, target=CLASSES)
def test_guided_grad_cam_is_zero_where_grad_cam_speaks_against_the_class(seed: int, target: int) -> None:
    net, x = drawn(SmallNet(), seed), pictures(seed=seed)
    cam = attribute(Classifier(net), x, "grad-cam", target=target, layer="block", relu=True).heatmap()[:, None]
    answer = explain("guided-grad-cam", net, x, target, layer="block").values
    assert bool((answer[(cam == 0).expand_as(answer)] == 0).all())
    guided = explain("guided-backprop", net, x, target).values
    assert (answer - cam * guided).abs().max() <= TOLERANCE * max(float((cam * guided).abs().max()), 1e-300)


@settings(max_examples=15, deadline=None)
@given(seed=SEEDS, samples=st.integers(1, 12), sigma=st.floats(0.01, 1))
def test_the_moments_belong_together(seed: int, samples: int, sigma: float) -> None:
    """The variance is the mean square less the square of the mean, so that its divisor is n."""
    net, x = drawn(SmallNet(), seed), pictures(seed=seed)
    mean, square, variance = (
        explain("smoothgrad", net, x, samples=samples, sigma=sigma, variant=variant, seed=seed).values
        for variant in ("mean", "square", "variance")
    )
    assert (variance - (square - mean**2)).abs().max() <= 1e-9 * square.abs().max()
    assert bool((variance >= 0).all())
    if samples == 1:
        assert variance.abs().max() == 0
