"""What holds for Grad-CAM whatever the weights and the picture."""

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
LAYERS = st.sampled_from(["stem", "relu", "block.bn", "block", "down", "relu#1"])
# Square, for the shape of a map of few channels can be read two ways where the input is oblong.
GRIDS = st.integers(2, 9).map(lambda side: (side, side))
TOLERANCE = 1e-9


def grad_cam(net: nn.Module, x: Tensor, target: object, layer: str, **options: object) -> Attribution:
    return attribute(Classifier(net), x, "grad-cam", target=target, layer=layer, **options)


@settings(max_examples=40, deadline=None)
@given(seed=SEEDS, first=CLASSES, second=CLASSES, layer=LAYERS)
def test_a_contrast_is_the_difference_of_two_maps(seed: int, first: int, second: int, layer: str) -> None:
    net, x = drawn(SmallNet(), seed), pictures(seed=seed)
    a, b = grad_cam(net, x, first, layer), grad_cam(net, x, second, layer)
    contrast = grad_cam(net, x, f"{first} - {second}", layer)
    scale = max(a.values.abs().max(), b.values.abs().max())
    assert (contrast.values - (a.values - b.values)).abs().max() <= TOLERANCE * scale
    torch.testing.assert_close(contrast.score, a.score - b.score, rtol=1e-12, atol=1e-12)


@settings(max_examples=40, deadline=None)
@given(seed=SEEDS, weights=st.tuples(*[st.floats(-3, 3)] * 5), layer=LAYERS)
def test_the_map_is_linear_in_the_score(seed: int, weights: tuple[float, ...], layer: str) -> None:
    net, x = drawn(SmallNet(), seed), pictures(seed=seed)
    w = torch.tensor(weights, dtype=torch.float64)
    maps = torch.stack([grad_cam(net, x, k, layer).values for k in range(5)])
    mixed = grad_cam(net, x, lambda output: output @ w + 7, layer).values
    scale = maps.abs().max() * max(1.0, float(w.abs().max()))
    assert (mixed - (w.reshape(5, 1, 1, 1, 1) * maps).sum(0)).abs().max() <= TOLERANCE * scale


def linear_head(seed: int, channels: int, grid: tuple[int, int]) -> tuple[nn.Module, Tensor]:
    """Return a net whose logits are linear in the mean of its last maps, and pictures of the maps' size."""
    layers = {"conv": nn.Conv2d(3, channels, 3, padding=1), "relu": nn.ReLU(), "head": nn.Linear(channels, 5)}
    net = Lambda(lambda n, x: n.head(n.relu(n.conv(x)).mean((2, 3))), **layers)
    return drawn(net, seed, (3, *grid)), pictures(size=grid, seed=seed)


@settings(max_examples=40, deadline=None)
@given(seed=SEEDS, channels=st.integers(1, 9), grid=GRIDS, target=CLASSES)
def test_behind_a_mean_and_a_linear_head_the_map_sums_to_the_logit_without_its_bias(
    seed: int, channels: int, grid: tuple[int, int], target: int
) -> None:
    """dS/dA = w / Z at each of the Z places, so that the sum over places is sum_k w_k mean(A_k) = S - b."""
    net, x = linear_head(seed, channels, grid)
    answer = grad_cam(net, x, target, "relu")
    expected = answer.score - net.head.bias[target].detach()
    torch.testing.assert_close(answer.values.sum((1, 2, 3)), expected, rtol=1e-9, atol=1e-12)


@settings(max_examples=40, deadline=None)
@given(seed=SEEDS, channels=st.integers(1, 9), grid=GRIDS, target=CLASSES)
def test_behind_a_mean_and_a_linear_head_the_map_is_that_of_cam_by_the_number_of_places(
    seed: int, channels: int, grid: tuple[int, int], target: int
) -> None:
    net, x = linear_head(seed, channels, grid)
    maps = net.relu(net.conv(x)).detach()
    cam = torch.einsum("k,bkhw->bhw", net.head.weight[target].detach(), maps) / (grid[0] * grid[1])
    torch.testing.assert_close(grad_cam(net, x, target, "relu").values[:, 0], cam, rtol=1e-9, atol=1e-12)


@settings(max_examples=30, deadline=None)
@given(seed=SEEDS, order=st.permutations(range(8)), target=CLASSES)
def test_the_order_of_the_channels_does_not_matter(seed: int, order: list[int], target: int) -> None:
    net, x = drawn(SmallNet(), seed), pictures(seed=seed)
    straight = grad_cam(net, x, target, "down")
    with torch.no_grad():
        net.down.weight.copy_(net.down.weight[order].clone())
        net.down.bias.copy_(net.down.bias[order].clone())
        net.head.weight.copy_(net.head.weight[:, order].clone())
    permuted = grad_cam(net, x, target, "down")
    scale = straight.values.abs().max()
    assert (permuted.values - straight.values).abs().max() <= TOLERANCE * scale
    torch.testing.assert_close(permuted.weights, straight.weights[:, order], rtol=1e-9, atol=1e-12)


@settings(max_examples=30, deadline=None)
@given(seed=SEEDS, layer=LAYERS, order=st.permutations(range(4)))
def test_the_order_of_the_pictures_does_not_matter(seed: int, layer: str, order: list[int]) -> None:
    net, x = drawn(SmallNet(), seed), pictures(4, seed=seed)
    straight, shuffled = grad_cam(net, x, 1, layer).values, grad_cam(net, x[order], 1, layer).values
    assert relative(shuffled, straight[order]) <= 1e-12


@settings(max_examples=30, deadline=None)
@given(seed=SEEDS, factor=st.floats(0.1, 10), shift=st.floats(-5, 5), layer=LAYERS)
def test_scaling_the_score_scales_the_map_and_shifting_it_changes_nothing(
    seed: int, factor: float, shift: float, layer: str
) -> None:
    net, x = drawn(SmallNet(), seed), pictures(seed=seed)
    plain = grad_cam(net, x, 2, layer).values
    moved = grad_cam(net, x, lambda output: factor * output[:, 2] + shift, layer).values
    assert relative(moved, factor * plain) <= TOLERANCE


@settings(max_examples=30, deadline=None)
@given(seed=SEEDS, target=CLASSES)
def test_a_mirrored_picture_has_the_mirrored_map_where_the_net_does_not_tell_sides(seed: int, target: int) -> None:
    layers = {"conv": nn.Conv2d(3, 8, 1), "relu": nn.ReLU(), "mix": nn.Conv2d(8, 6, 1), "head": nn.Linear(6, 5)}
    net = drawn(Lambda(lambda n, x: n.head(n.mix(n.relu(n.conv(x))).relu().mean((2, 3))), **layers), seed)
    x = pictures(seed=seed)
    straight, mirrored = grad_cam(net, x, target, "relu").values, grad_cam(net, x.flip(3), target, "relu").values
    assert relative(mirrored.flip(3), straight) <= TOLERANCE


@settings(max_examples=30, deadline=None)
@given(seed=SEEDS, target=CLASSES)
def test_the_gradient_is_the_slope_of_the_score(seed: int, target: int) -> None:
    """Against central differences along a random direction."""
    layers = {"conv": nn.Conv2d(3, 8, 3), "head": nn.Linear(8, 5)}
    net = drawn(Lambda(lambda n, x: n.head(n.conv(x).tanh().mean((2, 3))), **layers), seed)
    x, direction, step = pictures(seed=seed), pictures(seed=seed + 1), 1e-5
    gradient = attribute(Classifier(net), x, "gradient", target=target).values
    slope = (net(x + step * direction) - net(x - step * direction))[:, target].detach() / (2 * step)
    torch.testing.assert_close((gradient * direction).sum((1, 2, 3)), slope, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("top", [1, 3, 8, 20])
def test_the_strongest_channels_are_those_of_the_largest_weight(top: int) -> None:
    answer = grad_cam(drawn(SmallNet()), pictures(), 1, "down")
    channels = answer.channels(top)
    count = min(top, 8)
    assert channels.weight.shape == (2, count)
    expected = answer.weights.abs().sort(dim=1, descending=True).values[:, :count]
    assert torch.equal(channels.weight.abs(), expected)
    for row in range(2):
        assert torch.equal(channels.maps[row], answer.activation[row, channels.index[row]])
