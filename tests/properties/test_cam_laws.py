"""What holds for the class activation maps whatever the weights and the picture."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from small_nets import Lambda, SmallNet, SmallViT, drawn, pictures, relative
from whence import attribute
from whence.errors import UnsupportedError
from whence.models.classifier import Classifier
from whence.results import Attribution

SEEDS = st.integers(0, 10_000)
CLASSES = st.integers(0, 4)
LAYERS = st.sampled_from(["stem", "relu", "block", "down", "relu#1"])
POOLED = st.sampled_from(["down", "relu#1"])
BY_GRADIENT = ["grad-cam++", "xgrad-cam", "layer-cam", "hires-cam"]
ALL = [*BY_GRADIENT, "eigen-cam"]
TOLERANCE = 1e-9


def explain(net: nn.Module, x: Tensor, method: str, target: object = 1, **options: object) -> Attribution:
    return attribute(Classifier(net), x, method, target=target, **options)


def small(function: Callable[..., object], seed: int = 0, **layers: nn.Module) -> nn.Module:
    """Return a drawn net: ``function`` over a first convolution, its layers, and a head on eight numbers."""
    return drawn(Lambda(function, conv=nn.Conv2d(3, 8, 3, padding=1), **layers, head=nn.Linear(8, 5)), seed)


# CAM


@settings(max_examples=15, deadline=None)
@given(seed=SEEDS, target=CLASSES, layer=POOLED)
def test_the_mean_of_cam_is_the_logit_without_its_bias(seed: int, target: int, layer: str) -> None:
    """``down`` stands before a rectifier, which belongs to the map."""
    net, x = drawn(SmallNet(), seed), pictures(seed=seed)
    answer = explain(net, x, "cam", target, layer=layer)
    expected = answer.score - net.head.bias[target].detach()
    torch.testing.assert_close(answer.values.mean((1, 2, 3)), expected, rtol=1e-10, atol=1e-12)


@settings(max_examples=15, deadline=None)
@given(seed=SEEDS, targets=st.tuples(CLASSES, CLASSES))
def test_cam_is_grad_cam_times_the_number_of_places_on_a_pooled_linear_head(
    seed: int, targets: tuple[int, int]
) -> None:
    net, x = drawn(SmallNet(), seed), pictures(seed=seed)
    answer = explain(net, x, "cam", list(targets), layer="relu#1")
    assert relative(answer.values, 64 * explain(net, x, "grad-cam", list(targets), layer="relu#1").values) <= 1e-12
    assert relative(answer.weights, net.head.weight[list(targets)].detach()) <= 1e-12


def test_the_weights_of_a_contrast_are_the_difference_of_two_classes() -> None:
    net, x = drawn(SmallNet()), pictures()
    weight = net.head.weight.detach()
    answer = explain(net, x, "cam", "1 - 3", layer="relu#1")
    assert relative(answer.weights, (weight[1] - weight[3]).expand(2, -1)) <= 1e-12
    mixed = explain(net, x, "cam", lambda output: 2 * output[:, 1] + output[:, 4], layer="relu#1")
    assert relative(mixed.weights, (2 * weight[1] + weight[4]).expand(2, -1)) <= 1e-12


ACCEPTED: dict[str, Callable[[nn.Module, Tensor], Tensor]] = {
    "mean": lambda n, x: n.head(n.conv(x).mean((2, 3))),
    "pool, flatten, dropout": lambda n, x: n.head(n.drop(F.adaptive_avg_pool2d(n.conv(x), 1).flatten(1))),
    "rectified": lambda n, x: n.head(n.conv(x).relu().mean((2, 3))),
    "rectified in place": lambda n, x: n.head(n.conv(x).relu_().mean((2, 3))),
    "linear map of classes, then the mean": lambda n, x: n.head(n.conv(x).movedim(1, 3)).mean((1, 2)),
    "two linear layers": lambda n, x: n.head(n.mix(n.conv(x)).mean((2, 3))),
}
REFUSED: dict[str, Callable[[nn.Module, Tensor], Tensor]] = {
    "maximum": lambda n, x: n.head(n.conv(x).amax((2, 3))),
    "norm of the means": lambda n, x: n.head(F.layer_norm(n.conv(x).mean((2, 3)), (8,))),
    "rectified means": lambda n, x: n.head(n.mix(n.conv(x)).mean((2, 3)).relu()),
    "hardswish of the means": lambda n, x: n.head(F.hardswish(n.conv(x).mean((2, 3)))),
    "rectified class maps": lambda n, x: n.head(n.conv(x).movedim(1, 3)).relu().mean((1, 2)),
    "a smooth rectifier": lambda n, x: n.head(F.silu(n.conv(x)).mean((2, 3))),
    "a corner": lambda n, x: n.head(n.conv(x)[:, :, :8].mean((2, 3))),
    "places weighed": lambda n, x: n.head((n.conv(x) * torch.arange(16.0).to(x)).mean((2, 3))),
    "norm over the places": lambda n, x: n.head(F.instance_norm(n.conv(x)).square().mean((2, 3))),
}


@pytest.mark.parametrize("head", ACCEPTED)
def test_cam_knows_a_pooled_linear_head_by_what_it_does(head: str) -> None:
    net = small(ACCEPTED[head], drop=nn.Dropout(0.5), mix=nn.Conv2d(8, 8, 1, bias=False))
    answer = explain(net, pictures(), "cam", [1, 3], layer="conv")
    expected = answer.score - net.head.bias[[1, 3]].detach()
    assert relative(answer.values.mean((1, 2, 3)), expected) <= 1e-10


@pytest.mark.parametrize("head", REFUSED)
def test_cam_refuses_any_other_head_and_names_grad_cam(head: str) -> None:
    net = small(REFUSED[head], mix=nn.Conv2d(8, 8, 1))
    with pytest.raises(UnsupportedError, match=r"layer 'conv'.*use grad-cam"):
        explain(net, pictures(), "cam", [1, 3], layer="conv")


@pytest.mark.parametrize("target", ["probability:1", "log-probability:1", lambda output: output[:, 1] ** 2])
def test_cam_refuses_a_score_that_is_not_linear_in_the_logits(target: object) -> None:
    with pytest.raises(UnsupportedError, match="a class or a contrast"):
        explain(drawn(SmallNet()), pictures(), "cam", target)


def test_cam_refuses_a_class_token_and_takes_the_mean_of_the_patches() -> None:
    with pytest.raises(UnsupportedError, match="use grad-cam"):
        explain(drawn(SmallViT()), pictures(), "cam", layer="norm")
    net = drawn(SmallViT(token=False))
    answer = explain(net, pictures(), "cam", layer="norm")
    assert relative(answer.values.mean((1, 2, 3)), answer.score - net.head.bias[1].detach()) <= 1e-10


# Sums


@settings(max_examples=15, deadline=None)
@given(seed=SEEDS, target=CLASSES)
def test_hires_cam_sums_to_the_logit_without_its_bias_where_all_behind_the_layer_is_linear(
    seed: int, target: int
) -> None:
    """Behind an average over quarters the places have weights of their own, so that Grad-CAM does not."""
    layers = {"conv": nn.Conv2d(3, 4, 3, padding=1), "head": nn.Linear(16, 5)}
    net = drawn(Lambda(lambda n, x: n.head(F.adaptive_avg_pool2d(n.conv(x), 2).flatten(1)), **layers), seed)
    answer = explain(net, pictures(seed=seed), "hires-cam", target, layer="conv")
    expected = answer.score - net.head.bias[target].detach()
    torch.testing.assert_close(answer.values.sum((1, 2, 3)), expected, rtol=1e-9, atol=1e-12)


@settings(max_examples=15, deadline=None)
@given(seed=SEEDS, target=CLASSES)
def test_xgrad_cam_sums_to_the_logit_where_what_follows_is_piecewise_linear_without_biases(
    seed: int, target: int
) -> None:
    layers = {"conv": nn.Conv2d(3, 8, 3), "mix": nn.Conv2d(8, 8, 3, bias=False), "head": nn.Linear(8, 5)}
    net = drawn(
        Lambda(lambda n, x: n.head(n.mix(n.relu(n.conv(x))).relu().mean((2, 3))), relu=nn.ReLU(), **layers), seed
    )
    answer = explain(net, pictures(seed=seed), "xgrad-cam", target, layer="relu")
    expected = answer.score - net.head.bias[target].detach()
    torch.testing.assert_close(answer.values.sum((1, 2, 3)), expected, rtol=1e-9, atol=1e-12)


@settings(max_examples=8, deadline=None)
@given(seed=SEEDS, target=CLASSES, method=st.sampled_from(["xgrad-cam", "hires-cam"]))
def test_on_a_pooled_linear_head_all_are_grad_cam(seed: int, target: int, method: str) -> None:
    net, x = drawn(SmallNet(), seed), pictures(seed=seed)
    expected = explain(net, x, "grad-cam", target, layer="relu#1").values
    assert relative(explain(net, x, method, target, layer="relu#1").values, expected) <= TOLERANCE


# What all share


@settings(max_examples=15, deadline=None)
@given(
    seed=SEEDS,
    factor=st.floats(0.1, 10),
    shift=st.floats(-5, 5),
    layer=LAYERS,
    method=st.sampled_from(["xgrad-cam", "layer-cam", "hires-cam"]),
)
def test_scaling_the_score_scales_the_map_and_shifting_it_changes_nothing(
    seed: int, factor: float, shift: float, layer: str, method: str
) -> None:
    net, x = drawn(SmallNet(), seed), pictures(seed=seed)
    plain = explain(net, x, method, 2, layer=layer).values
    moved = explain(net, x, method, lambda output: factor * output[:, 2] + shift, layer=layer).values
    assert relative(moved, factor * plain) <= TOLERANCE


@settings(max_examples=15, deadline=None)
@given(seed=SEEDS, layer=LAYERS, method=st.sampled_from(ALL))
def test_a_batch_gives_what_single_pictures_give(seed: int, layer: str, method: str) -> None:
    net, x = drawn(SmallNet(), seed), pictures(3, seed=seed)
    together = explain(net, x, method, [0, 4, 2], layer=layer).values
    alone = [explain(net, x[i : i + 1], method, t, layer=layer).values for i, t in enumerate([0, 4, 2])]
    assert relative(together, torch.cat(alone)) <= 1e-10


@settings(max_examples=8, deadline=None)
@given(seed=SEEDS, method=st.sampled_from([*ALL, "cam"]))
def test_several_layers_give_what_each_gives_alone(seed: int, method: str) -> None:
    net, x = drawn(SmallNet(), seed), pictures(seed=seed)
    asked = ("down", "relu#1") if method == "cam" else ("stem", "block", "relu#1")
    answer = explain(net, x, method, [1, 3], layer=asked)
    assert tuple(answer.layers) == asked
    for name in asked:
        assert relative(answer.layers[name], explain(net, x, method, [1, 3], layer=name).values) <= 1e-12
    if method != "layer-cam":
        assert torch.equal(answer.values, answer.layers["relu#1"])


# Grad-CAM++


def by_brute_force(a: Tensor, phi: Callable[[Tensor], Tensor]) -> Tensor:
    """Return the weights by equation 10: each activation's own three derivatives of phi, [K, h, w] -> number."""
    unit = torch.eye(a.numel()).to(a).reshape(-1, *a.shape)

    def derivatives(step: Tensor) -> tuple[Tensor, ...]:
        d1 = torch.func.grad(lambda t: phi(a + t * step))
        d2 = torch.func.grad(d1)
        zero = torch.zeros(()).to(a)
        return d1(zero), d2(zero), torch.func.grad(d2)(zero)

    first, second, third = (torch.stack(d).reshape(a.shape) for d in zip(*map(derivatives, unit), strict=True))
    alpha = second / (2 * second + a.sum((1, 2), keepdim=True) * third)
    return (torch.where(second == 0, 0.0, alpha) * first.relu()).sum((1, 2))


def tiny(classes: int, seed: int = 0) -> nn.Module:
    """Return a net that is piecewise linear behind ``layer``, which hands on its two maps of 3 x 3."""
    layers = {"layer": nn.Identity(), "mix": nn.Conv2d(2, 3, 2), "head": nn.Linear(3, classes)}
    return drawn(Lambda(lambda n, x: n.head(n.mix(n.layer(x)).relu().mean((2, 3))), **layers), seed, (2, 3, 3))


@settings(max_examples=4, deadline=None)
@given(seed=st.integers(0, 100))
def test_the_closed_form_and_autograd_of_a_logit_are_the_derivatives_of_its_exponential(seed: int) -> None:
    net, x = tiny(5, seed), pictures(channels=2, size=3, seed=seed).abs()
    for variant in ("closed-form", "autograd"):
        answer = explain(net, x, "grad-cam++", 1, layer="layer", variant=variant)
        for row in range(2):
            score = answer.score[row]
            expected = by_brute_force(x[row], lambda a, score=score: (net(a[None])[0, 1] - score).exp())
            assert (answer.weights[row] - expected).abs().max() <= 1e-10 * max(1.0, float(expected.abs().max()))


MEASURED: dict[str, tuple[int, str, Callable[[Tensor], Tensor]]] = {
    "probability:1, sigmoid": (5, "sigmoid", lambda z: z[1].sigmoid()),
    "log-probability:1, sigmoid": (5, "sigmoid", lambda z: F.logsigmoid(z[1])),
    "probability:1, softmax": (2, "softmax", lambda z: z.softmax(0)[1]),
    "log-probability:1, softmax": (2, "softmax", lambda z: z.log_softmax(0)[1]),
}


@pytest.mark.parametrize("measured", MEASURED)
def test_autograd_of_a_probability_is_by_its_own_derivatives(measured: str) -> None:
    """Exact where the log-odds are piecewise linear: a sigmoid, and a softmax of two classes."""
    classes, activation, phi = MEASURED[measured]
    net, x = tiny(classes), pictures(channels=2, size=3).abs()
    model, target = Classifier(net, activation=activation), measured.partition(",")[0]
    answer = attribute(model, x, "grad-cam++", target=target, layer="layer", variant="autograd")
    closed = attribute(model, x, "grad-cam++", target=target, layer="layer")
    expected = torch.stack([by_brute_force(a, lambda a: phi(net(a[None])[0])) for a in x])
    assert expected.abs().max() > 0
    assert relative(answer.weights, expected) <= 1e-10
    assert relative(closed.weights, expected) > 1e-3
    assert torch.equal(answer.score, closed.score)
    assert answer.target.tolist() == [1, 1]


def test_autograd_of_one_of_many_probabilities_takes_the_log_odds_for_linear() -> None:
    """With them replaced by their tangent the derivatives are exact again."""
    net, x = tiny(5), pictures(channels=2, size=3).abs()

    def log_odds(a: Tensor) -> Tensor:
        z = net(a[None])[0]
        return z[1] - z[[0, 2, 3, 4]].logsumexp(0)

    def tangent(at: Tensor) -> Callable[[Tensor], Tensor]:
        s, slope = log_odds(at).detach(), torch.func.grad(log_odds)(at).detach()
        return lambda a: (s + ((a - at) * slope).sum()).sigmoid()

    answer = explain(net, x, "grad-cam++", "probability:1", layer="layer", variant="autograd")
    expected = torch.stack([by_brute_force(a, tangent(a)) for a in x])
    assert relative(answer.weights, expected) <= 1e-10
    curved = torch.stack([by_brute_force(a, lambda a: net(a[None])[0].softmax(0)[1]) for a in x])
    assert relative(answer.weights, curved) > 1e-10


def test_a_probability_that_rounds_to_one_still_has_a_map() -> None:
    net, x = tiny(5), pictures(channels=2, size=3).abs()
    with torch.no_grad():
        net.head.bias[1] += 30
    options = {"target": "probability:1", "layer": "layer", "variant": "autograd"}
    answer = attribute(Classifier(net.float()), x.float(), "grad-cam++", **options)
    assert (answer.score == 1).all()
    assert answer.values.any()


# XGrad-CAM's guard


def test_a_channel_that_cancels_out_is_weighed_by_its_mean_gradient() -> None:
    layers = {"layer": nn.Identity(), "head": nn.Linear(4, 5)}
    net = drawn(Lambda(lambda n, x: n.head(n.layer(x).tanh().mean((2, 3))), **layers), shape=(4, 8, 8))
    x = pictures(channels=4, size=8)
    x[:, 0] -= x[:, 0].mean((1, 2), keepdim=True)
    x[:, 1] = 0
    answer = explain(net, x, "xgrad-cam", layer="layer")
    g = net.head.weight[1].detach()[:, None, None] * (1 - x.tanh() ** 2) / 64
    expected = (g * x).sum((2, 3)) / x.sum((2, 3))
    expected[:, :2] = g[:, :2].mean((2, 3))
    assert relative(answer.weights, expected) <= 1e-10


# LayerCAM's fusion


@pytest.mark.parametrize("gamma", [2.0, 5])
def test_the_fusion_is_the_maximum_of_the_scaled_maps_on_the_largest_grid(gamma: float) -> None:
    net, x = drawn(SmallNet()), pictures()
    answer = explain(net, x, "layer-cam", layer=("block", "down", "relu#1"), gamma=gamma)
    shallow, middle, deep = (m / m.abs().amax((2, 3), keepdim=True) for m in answer.layers.values())
    up = torch.nn.Upsample(size=(16, 16), mode="bilinear")
    expected = torch.maximum(torch.maximum((gamma * shallow).tanh(), up((gamma * middle).tanh())), up(deep))
    assert relative(answer.values, expected) <= 1e-12
    assert all(any("fused" in note for note in notes) for notes in answer.notes)


# Eigen-CAM


def eigen(a: Tensor, **options: object) -> Attribution:
    """Return the map of an activation that is the input itself."""
    layers = {"layer": nn.Identity(), "head": nn.Linear(a.shape[1], 5)}
    net = drawn(Lambda(lambda n, x: n.head(n.layer(x).mean((2, 3))), **layers), shape=tuple(a.shape[1:])).to(a)
    return explain(net, a, "eigen-cam", layer="layer", **options)


@settings(max_examples=15, deadline=None)
@given(seed=SEEDS, channels=st.integers(2, 40), side=st.integers(2, 6), factor=st.floats(0.01, 100))
def test_eigen_cam_is_the_first_singular_vector_and_grows_with_the_length(
    seed: int, channels: int, side: int, factor: float
) -> None:
    """More channels than places and fewer: the two Gram matrices."""
    a = pictures(channels=channels, size=side, seed=seed).abs()
    answer = eigen(a)
    lengths = a.norm(dim=1).flatten(1)
    found = answer.values.flatten(1)
    assert ((found * (lengths - lengths.mean(1, keepdim=True))).sum(1) > 0).all()
    o = (a - a.mean((2, 3), keepdim=True)).flatten(2).mT
    u, s, _ = torch.linalg.svd(o, full_matrices=False)
    # The direction is as sure as the gap between the two largest singular values is wide.
    gap = float((1 - (s[:, 1] / s[:, 0]) ** 2).min()) if s.shape[1] > 1 else 1.0
    assert relative(found.norm(dim=1), s[:, 0]) <= 1e-10
    assert relative((found * u[:, :, 0]).sum(1).abs(), s[:, 0]) <= 1e-10 / gap
    assert relative(eigen(factor * a).values, factor * answer.values) <= 1e-10 / gap
    assert (
        relative((answer.weights[:, :, None, None] * answer.activation).sum(1, keepdim=True), answer.values) <= 1e-12
    )


def test_eigen_cam_of_a_flat_activation_is_zero_with_a_note() -> None:
    flat = torch.full((2, 4, 5, 5), 0.1).double() * torch.tensor([1.0, 3.0]).reshape(2, 1, 1, 1).double()
    for a in (flat, 0 * flat, pictures(channels=4, size=1)):
        answer = eigen(a)
        assert not answer.values.any()
        assert all(any("no evidence" in note for note in notes) for notes in answer.notes)


def test_eigen_cam_of_activations_in_single_precision_whose_squares_are_none() -> None:
    a = pictures(channels=4, size=5).float()
    for factor in (1e-25, 1e25):
        assert relative(eigen(factor * a).values / factor, eigen(a).values) <= 1e-5


def test_eigen_cam_of_two_equal_components_is_the_same_each_time() -> None:
    a = torch.zeros(1, 2, 3, 3).double()
    a[0, 0, 0, 0] = a[0, 1, 2, 2] = 1
    assert torch.equal(eigen(a).values, eigen(a.clone()).values)


def test_eigen_cam_takes_no_backward_pass_and_is_the_same_for_all_classes() -> None:
    net, x = drawn(SmallNet()), pictures()
    answer = explain(net, x, "eigen-cam", 1)
    assert (answer.passes.forward, answer.passes.backward, answer.passes.partial) == (2, 0, 0)
    assert torch.equal(answer.values, explain(net, x, "eigen-cam", 3).values)
    assert all(any("every class" in note for note in notes) for notes in answer.notes)
