"""Layouts, cut nodes, and which layer is chosen."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from small_nets import Lambda, SmallNet, SmallViT, drawn, pictures
from whence import attribute
from whence.errors import LayerError
from whence.models.classifier import Classifier
from whence.models.layers import Catalogue, Layout, cut_nodes, find_layout, layout_of, survey
from whence.models.load import load_model
from whence.models.session import opened

# Layouts

SIZES = st.tuples(st.integers(2, 20), st.integers(2, 20))
STRIDES = st.sampled_from([1, 2, 4, 8, 14, 16, 32])
PREFIXES = st.sampled_from([0, 1, 2, 4, 5, 8])


def numbered(grid: tuple[int, int], channels: int, batch: int) -> Tensor:
    """Return maps [B, K, h, w] in which every value is another."""
    return torch.arange(batch * channels * grid[0] * grid[1]).reshape(batch, channels, *grid).float()


@settings(max_examples=200, deadline=None)
@given(grid=SIZES, stride=STRIDES, channels=st.integers(1, 64), batch=st.integers(1, 5))
def test_channels_first_is_read_wherever_the_grid_has_the_aspect_of_the_input(
    grid: tuple[int, int], stride: int, channels: int, batch: int
) -> None:
    maps = numbered(grid, channels, batch)
    size = (stride * grid[0], stride * grid[1])
    # Where channels and height have the aspect of the input too, the shape alone does not tell.
    assume(channels * size[1] != grid[0] * size[0] or channels >= grid[1])
    layout = find_layout(maps.shape, batch, size)
    assert layout == Layout("channels-first", grid)
    assert torch.equal(layout.to_maps(maps), maps)
    assert layout.channels(maps.shape) == channels


@settings(max_examples=200, deadline=None)
@given(grid=SIZES, stride=STRIDES, channels=st.integers(512, 520), batch=st.integers(1, 5))
def test_channels_last_is_read_where_the_channels_are_no_side_of_the_input(
    grid: tuple[int, int], stride: int, channels: int, batch: int
) -> None:
    maps = numbered(grid, channels, batch)
    last = maps.movedim(1, -1)
    layout = find_layout(last.shape, batch, (stride * grid[0], stride * grid[1]))
    assert layout == Layout("channels-last", grid)
    assert torch.equal(layout.to_maps(last), maps)
    assert layout.channels(last.shape) == channels


@settings(max_examples=300, deadline=None)
@given(grid=SIZES, stride=STRIDES, prefix=PREFIXES, sequence_first=st.booleans(), batch=st.integers(1, 3))
def test_tokens_are_laid_out_on_a_grid_of_the_inputs_aspect(
    grid: tuple[int, int], stride: int, prefix: int, sequence_first: bool, batch: int
) -> None:
    maps = numbered(grid, 7, batch)
    tokens = torch.cat((-torch.ones(batch, prefix, 7), maps.flatten(2).transpose(1, 2)), dim=1)
    tokens = tokens.transpose(0, 1) if sequence_first else tokens
    assume(tokens.shape[0] != tokens.shape[1])
    layout = find_layout(tokens.shape, batch, (stride * grid[0], stride * grid[1]))
    assert layout is not None
    assert (layout.kind, layout.sequence_first) == ("tokens", sequence_first)
    assert layout.channels(tokens.shape) == 7
    if layout.prefix == prefix:
        assert layout.grid == grid
        assert torch.equal(layout.to_maps(tokens), maps)
    else:  # fewer tokens before the patches leave a grid of nearly the same aspect as well
        assert layout.prefix < prefix


@pytest.mark.parametrize("prefix", [0, 1, 2, 4, 5, 8])
@pytest.mark.parametrize(
    ("side", "patch"), [(224, 16), (224, 14), (224, 32), (384, 16), (518, 14), (256, 16), (32, 4)]
)
def test_the_prefix_of_published_transformers_is_found(side: int, patch: int, prefix: int) -> None:
    grid = side // patch
    layout = find_layout((2, prefix + grid * grid, 192), 2, (side, side))
    assert layout == Layout("tokens", (grid, grid), prefix)


@pytest.mark.parametrize(
    "shape", [(2, 5), (2, 0, 4, 4), (3, 8, 4, 4), (2, 3, 4, 4, 4), (2, 23, 8), (5, 17, 8), (2, 8, 1, 40)]
)
def test_what_has_no_map_is_refused_with_its_shape(shape: tuple[int, ...]) -> None:
    assert find_layout(shape, 2, (32, 32)) is None
    with pytest.raises(LayerError, match=r"layer 'x' returns \[.*\] for 2 inputs of 32 x 32"):
        layout_of("x", shape, 2, (32, 32))


def test_as_many_tokens_as_pictures_are_read_like_any_other_number() -> None:
    """[N, B, C] with N = B: the shape does not tell which axis is the batch."""
    turned = Lambda(lambda _, x: x.flatten(2).permute(2, 0, 1))
    layers = {"patch": nn.Conv2d(3, 8, 4, 4), "turned": turned, "mix": nn.Linear(8, 8), "head": nn.Linear(8, 5)}
    net = drawn(Lambda(lambda n, x: n.head(n.mix(n.turned(n.patch(x))).relu().mean(0)), **layers))
    x = pictures(16)
    together = attribute(Classifier(net), x, "grad-cam", target=1, layer="mix").values
    alone = torch.cat([attribute(Classifier(net), one[None], "grad-cam", target=1, layer="mix").values for one in x])
    torch.testing.assert_close(together, alone, rtol=1e-10, atol=1e-14)


# Cut nodes


def ancestors(root: Any, without: Any = None) -> set[Any]:
    """Return all nodes that can be reached from the root without passing one of them."""
    reached, stack = set(), [root] if root is not without else []
    while stack:
        node = stack.pop()
        if node not in reached:
            reached.add(node)
            stack += [n for n, _ in node.next_functions if n is not None and n is not without]
    return reached


def brute_force_cuts(root: Any, leaf: Tensor) -> set[Any]:
    """Return the nodes without which the leaf cannot be reached, each found by leaving it out."""
    nodes = ancestors(root)
    ends = {node for node in nodes if getattr(node, "variable", None) is leaf}
    return {node for node in nodes - ends if ends and not ends & ancestors(root, node)}


@settings(max_examples=200, deadline=None)
@given(
    steps=st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30), st.booleans()), min_size=1, max_size=14),
    other=st.booleans(),
)
def test_cut_nodes_are_those_without_which_the_input_cannot_be_reached(
    steps: list[tuple[int, int, bool]], other: bool
) -> None:
    leaf, parameter = torch.ones(2, requires_grad=True), torch.ones(2, requires_grad=True)
    tensors = [leaf, parameter] if other else [leaf]
    for first, second, single in steps:
        a, b = tensors[first % len(tensors)], tensors[second % len(tensors)]
        tensors.append(a.sin() if single else a * b)
    root = tensors[-1].grad_fn
    assert cut_nodes(root, leaf) == brute_force_cuts(root, leaf)


def test_a_shortcut_leaves_only_its_two_ends_as_cuts() -> None:
    leaf = torch.ones(2, requires_grad=True)
    before = leaf.exp()
    inside = before.sin().cos()
    after = before + inside
    score = after.sum()
    assert cut_nodes(score.grad_fn, leaf) == {before.grad_fn, after.grad_fn, score.grad_fn}
    assert inside.grad_fn not in cut_nodes(score.grad_fn, leaf)


def test_a_score_that_does_not_come_from_the_input_has_no_cuts() -> None:
    leaf, other = torch.ones(2, requires_grad=True), torch.ones(2, requires_grad=True)
    assert cut_nodes(other.exp().grad_fn, leaf) == set()


# The choice


def catalogue(net: nn.Module, x: Tensor | None = None) -> Catalogue:
    with opened(Classifier(net)) as session:
        return session.catalogue(pictures() if x is None else x)


def names(found: Catalogue) -> list[str]:
    return [candidate.name for candidate in found.candidates]


@pytest.mark.parametrize("inplace", [True, False])
def test_the_last_stage_of_a_convolutional_net_is_chosen(inplace: bool) -> None:
    found = catalogue(drawn(SmallNet(inplace=inplace)))
    assert found.chosen == "relu#1"
    assert found.candidates[-1].shape == (8, 8, 8)
    assert not found.dead


def test_the_layers_are_listed_in_the_order_in_which_they_run_with_their_cuts() -> None:
    found = catalogue(drawn(SmallNet(inplace=False)))
    cuts = {candidate.name: candidate.cut for candidate in found.candidates}
    assert list(cuts) == ["stem.0", "stem", "relu", "block.conv", "block.bn", "block", "down", "relu#1"]
    assert [name for name, cut in cuts.items() if not cut] == ["block.conv", "block.bn"]
    assert all(candidate.coverage >= 0.5 for candidate in found.candidates)


@pytest.mark.parametrize("pool", [nn.AdaptiveAvgPool2d(1), nn.AdaptiveAvgPool2d(2), nn.AdaptiveMaxPool2d(2)])
def test_the_pool_before_the_head_is_no_layer(pool: nn.Module) -> None:
    layers = {"conv": nn.Conv2d(3, 8, 3), "relu": nn.ReLU(), "pool": pool}
    head = nn.Linear(8 * len(pool(torch.zeros(1, 1, 4, 4)).flatten()), 5)
    net = drawn(Lambda(lambda n, x: n.head(n.pool(n.relu(n.conv(x))).flatten(1)), **layers, head=head))
    found = catalogue(net)
    assert found.chosen == "relu"
    assert "pool" not in names(found)


def test_what_reaches_the_class_token_alone_is_refused() -> None:
    found = catalogue(drawn(SmallViT(token=True)))
    assert "norm" not in names(found)
    assert "blocks" not in names(found)
    assert "blocks.1" not in names(found)
    assert found.chosen == "blocks.0"
    assert found.candidates[-1].layout.prefix == 1


def test_a_transformer_that_averages_its_patches_is_explained_at_its_last_norm() -> None:
    assert catalogue(drawn(SmallViT(token=False))).chosen == "norm"


@pytest.mark.parametrize("classes", [5, 9])
def test_maps_that_are_the_classes_themselves_step_back_to_the_features(classes: int) -> None:
    layers = {"features": nn.Conv2d(3, 8, 3), "relu": nn.ReLU(), "classes": nn.Conv2d(8, classes, 1)}
    net = drawn(Lambda(lambda n, x: n.classes(n.relu(n.features(x))).mean((2, 3)), **layers))
    found = catalogue(net)
    assert found.chosen == "relu"
    assert names(found)[-1] == "classes"


def test_a_dead_head_is_said_and_a_layer_is_chosen_nonetheless() -> None:
    net = drawn(SmallNet())
    with torch.no_grad():
        net.head.weight.zero_()
    found = catalogue(net)
    assert found.dead
    assert found.chosen == "relu#1"


def test_containers_are_unwrapped_to_the_module_that_returns_the_bare_tensor() -> None:
    inner = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU())
    body = Lambda(lambda n, x: {"maps": n.inner(x), "size": 3}, inner=inner)
    net = drawn(Lambda(lambda n, x: n.head(n.body(x)["maps"].mean((2, 3))), body=body, head=nn.Linear(8, 5)))
    found = catalogue(net)
    assert found.chosen == "body.inner"
    assert "body" not in names(found)


def test_the_outermost_of_nested_modules_that_return_one_tensor_stands_for_it() -> None:
    body = nn.Sequential(nn.Sequential(nn.Conv2d(3, 8, 3), nn.Sequential(nn.ReLU())))
    found = catalogue(drawn(Lambda(lambda n, x: n.head(n.body(x).mean((2, 3))), body=body, head=nn.Linear(8, 5))))
    assert names(found) == ["body.0.0", "body"]


def test_a_dead_branch_is_not_chosen() -> None:
    def forward(net: nn.Module, x: Tensor) -> Tensor:
        maps = net.conv(x)
        return net.head(maps.relu().mean((2, 3))) + 0 * net.side(maps).sum()

    layers = {"conv": nn.Conv2d(3, 8, 3), "side": nn.Conv2d(8, 8, 3), "head": nn.Linear(8, 5)}
    found = catalogue(drawn(Lambda(forward, **layers)))
    assert names(found) == ["conv"]


def test_branches_that_never_meet_on_a_map_are_all_listed_and_the_last_one_is_chosen() -> None:
    def forward(net: nn.Module, x: Tensor) -> Tensor:
        return net.head(torch.cat((net.left(x).relu().mean((2, 3)), net.right(x).relu().mean((2, 3))), dim=1))

    layers = {name: nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)) for name in ("left", "right")}
    found = catalogue(drawn(Lambda(forward, **layers, head=nn.Linear(8, 5))))
    assert names(found) == ["left.0", "left", "right.0", "right"]
    assert not any(candidate.cut for candidate in found.candidates)
    assert found.chosen == "right"


@pytest.mark.parametrize("size", [(16, 16), (16, 32), (48, 16), (20, 28)])
def test_rectangular_inputs_have_rectangular_grids(size: tuple[int, int]) -> None:
    for net, stride in ((drawn(SmallNet()), 2), (drawn(SmallViT(token=False)), 4)):
        found = catalogue(net, pictures(size=size))
        chosen = next(candidate for candidate in found.candidates if candidate.name == found.chosen)
        assert chosen.layout.grid == (size[0] // stride, size[1] // stride)


def test_a_picture_too_small_for_any_map_is_refused_with_its_size() -> None:
    layers = {"conv": nn.Conv2d(3, 8, 4, stride=4), "head": nn.Linear(8, 5)}
    net = drawn(Lambda(lambda n, x: n.head(n.conv(x).flatten(1)), **layers), shape=(3, 4, 4))
    with pytest.raises(LayerError, match="no layer has a spatial map for inputs of 4 x 4"):
        catalogue(net, pictures(size=4))


def test_a_model_without_a_gradient_asks_for_a_layer() -> None:
    layers = {"conv": nn.Conv2d(3, 8, 3), "head": nn.Linear(8, 5)}
    net = drawn(Lambda(lambda n, x: n.head(n.conv(x).detach().mean((2, 3))), **layers))
    with pytest.raises(LayerError, match="name a layer yourself"):
        catalogue(net.requires_grad_(False))


@pytest.mark.parametrize("kind", [SmallNet, SmallViT])
def test_the_choice_is_the_same_each_time_whatever_was_drawn_before(kind: Callable[[], nn.Module]) -> None:
    found = []
    with torch.random.fork_rng():
        for seed in range(3):
            torch.manual_seed(seed)
            found.append(catalogue(drawn(kind())))
            assert torch.initial_seed() == seed
    assert found[0] == found[1] == found[2]


def test_the_choice_does_not_depend_on_the_batch_or_on_frozen_weights() -> None:
    expected = catalogue(drawn(SmallNet()))
    assert catalogue(drawn(SmallNet()), pictures(1, seed=4)) == expected
    assert catalogue(drawn(SmallNet()), pictures(7)) == expected
    assert catalogue(drawn(SmallNet()).requires_grad_(False)) == expected
    assert catalogue(drawn(SmallNet()).train()) == expected


def test_a_model_is_surveyed_once_an_input_size(monkeypatch: pytest.MonkeyPatch) -> None:
    surveyed = []

    def counted(*args: Any) -> Catalogue:
        surveyed.append(args[1].shape)
        return survey(*args)

    monkeypatch.setattr("whence.models.session.survey", counted)
    model = Classifier(drawn(SmallNet()))
    for size in (16, 16, 24, 16, 24):
        attribute(model, pictures(size=size), "grad-cam")
    assert [shape[2] for shape in surveyed] == [16, 24]


def test_a_head_that_comes_to_life_is_surveyed_anew() -> None:
    net = drawn(SmallNet())
    weight = net.head.weight.detach().clone()
    model = Classifier(net)
    for values, dead in ((torch.zeros_like(weight), True), (weight, False)):
        with torch.no_grad():
            net.head.weight.copy_(values)
        with opened(model) as session:
            assert session.catalogue(pictures()).dead is dead


PUBLISHED = [
    ("torchvision:resnet18", 64, "layer4"),
    ("torchvision:squeezenet1_1", 64, "features"),
    ("torchvision:mobilenet_v3_small", 64, "features"),
    ("torchvision:googlenet", 64, "inception5b"),
]


@pytest.mark.parametrize(("spec", "side", "layer"), PUBLISHED)
def test_the_choice_on_published_architectures(spec: str, side: int, layer: str) -> None:
    net = load_model(spec, weights="random").module
    assert catalogue(net, pictures(size=side).float()).chosen == layer
