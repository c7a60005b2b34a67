"""Zeros that a call of its own sets around a map, let into the convolution: the same, and no model mistaken."""

from collections.abc import Callable

import pytest
import timm
import torch
import torch.nn.functional as F
from folded_nets import assert_folds, folded, small, there_and_back
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import MobileNetV2Config, MobileNetV2ForImageClassification

from small_nets import Lambda, drawn, pictures, relative
from whence import attribute
from whence.models.classifier import Classifier
from whence.models.padding import Pad

SIDES = st.integers(0, 3)


class Copies(TorchDispatchMode):
    """Counts the maps that are copied to set zeros around them; weights are not."""

    count = 0

    def __torch_dispatch__(self, func: object, types: object, args: tuple = (), kwargs: dict | None = None) -> object:
        self.count += func is torch.ops.aten.constant_pad_nd.default and args[0].shape[1] > 1
        return func(*args, **(kwargs or {}))


def copies(run: Callable[[], object]) -> int:
    """Return how many maps were copied."""
    with Copies() as seen, torch.no_grad():
        run()
    return seen.count


def assert_lets_in(net: nn.Module, before: int, after: int, x: Tensor | None = None, norms: int = 1) -> None:
    """See that so many copies are made without folding, so many with it, and that all stays what it is."""
    x = pictures(3) if x is None else x
    assert_folds(net, norms, x)
    fold = folded(net, x)
    assert copies(lambda: net(x.clone())) == before
    assert copies(lambda: fold.outputs(x.clone(), net)) == after
    assert len(fold.pairs) == norms


# The formula


@given(
    sides=st.tuples(SIDES, SIDES, SIDES, SIDES),
    kernel=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    stride=st.sampled_from([1, 2, (2, 1)]),
    padding=st.sampled_from([0, 1, (2, 0), [1]]),
    dilation=st.sampled_from([1, 2, (1, 2)]),
    groups=st.sampled_from([1, 2, 4]),
    seed=st.integers(0, 2**16),
)
@settings(deadline=None, max_examples=300)
def test_any_sides(sides: tuple[int, ...], kernel: tuple, seed: int, groups: int, **options: object) -> None:
    make = torch.Generator().manual_seed(seed)
    x = torch.randn(2, 4, 9, 10, generator=make, dtype=torch.float64)
    weight = torch.randn(4, 4 // groups, *kernel, generator=make, dtype=torch.float64)
    call = {"weight": weight, "bias": None, "groups": groups, **options}
    pad = Pad.of({"input": x, "pad": sides})
    assert pad is not None
    within = pad.let_into(call)
    left, right, top, bottom = sides
    even = left == right and top == bottom
    near = max(abs(left - right), abs(top - bottom)) <= 1
    assert (within is not None) == (even or (groups == 4 and near and options["dilation"] == 1))
    if within is not None:
        apart = there_and_back(lambda a: F.conv2d(F.pad(a, sides), **call).flatten(1), x)
        for ours, own in zip(there_and_back(lambda a: F.conv2d(a, **within).flatten(1), x), apart, strict=True):
            assert ours.shape == own.shape
            assert relative(ours, own) <= 1e-12


def test_padding_by_name_is_left_alone() -> None:
    call = {"weight": torch.ones(4, 1, 3, 3), "groups": 4, "padding": "same"}
    assert Pad(1, 1, 1, 1).let_into(call) is None


@pytest.mark.parametrize(
    "given",
    [
        {"pad": (1, 1)},
        {"pad": (1, 1, 1, -1)},
        {"pad": (1, 1, 1, 1, 1, 1)},
        {"pad": (1, 1, 1, 1), "mode": "reflect"},
        {"pad": (1, 1, 1, 1), "value": 0.5},
        {"pad": (1, 1, 1, 1), "input": torch.ones(4, 9, 9)},
    ],
)
def test_what_sets_no_zeros_around_maps(given: dict[str, object]) -> None:
    assert Pad.of({"input": torch.ones(2, 4, 9, 9), **given}) is None


# Nets whose zeros are let in


def around(*sides: int) -> Callable[[nn.Module, Tensor], Tensor]:
    """Return what sets zeros around a map, convolves it and normalises."""
    return lambda net, z: net.norm(net.again(F.pad(z, sides)))


def layers(stride: int = 1, groups: int = 8, **more: nn.Module) -> dict[str, nn.Module]:
    """Return a convolution, by default one a channel, and its norm."""
    return {"again": nn.Conv2d(8, 8, 3, stride, groups=groups), "norm": nn.BatchNorm2d(8), **more}


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize(("sides", "stride"), [((1, 1, 1, 1), 1), ((0, 1, 0, 1), 2), ((1, 0, 2, 1), 2)])
def test_a_small_net(sides: tuple[int, ...], stride: int, last: bool) -> None:
    x = pictures(3).contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)
    assert_lets_in(small(around(*sides), **layers(stride)), 1, 0, x)


def test_all_channels_convolved_at_once() -> None:
    assert_lets_in(small(around(1, 1, 1, 1), **layers(groups=1)), 1, 0)
    assert_lets_in(small(around(0, 1, 0, 1), **layers(groups=1)), 1, 1)


def test_a_layer_that_pads() -> None:
    net = small(lambda net, z: net.norm(net.again(net.zeros(z))), **layers(zeros=nn.ZeroPad2d(1)))
    assert_lets_in(net, 1, 0)


def test_a_map_that_others_read_too() -> None:
    def beside(net: nn.Module, z: Tensor) -> Tensor:
        z = torch.relu(z)
        return net.norm(net.again(F.pad(z, (1, 1, 1, 1)))) + z

    assert_lets_in(small(beside, **layers()), 1, 0)


def mobile() -> nn.Module:
    """Return a MobileNetV2 of transformers that returns its logits alone."""
    net = MobileNetV2ForImageClassification(MobileNetV2Config(image_size=64, num_labels=5))
    return Lambda(lambda outer, x: outer.net(x).logits, net=net)


@pytest.mark.parametrize(
    ("make", "before", "norms"),
    [(lambda: timm.create_model("tf_mobilenetv3_small_minimal_100"), 5, 34), (mobile, 52, 52)],
)
def test_nets_in_the_way_of_tensorflow(make: Callable[[], nn.Module], before: int, norms: int) -> None:
    """The first convolution reads all colours, and its zeros are on two sides."""
    assert_lets_in(drawn(make(), shape=(3, 64, 64)), before, 1, pictures(2, size=64), norms)


def test_a_mode_around_sees_them() -> None:
    """LRP's rules are about the convolution as the model has it."""
    net = small(around(0, 1, 0, 1), **layers(2))
    fold = folded(net, pictures())
    assert copies(lambda: fold.outputs(pictures(), net, watched=True)) == 1
    assert fold.pairs


# Nets whose zeros are not


def read_twice(net: nn.Module, z: Tensor) -> Tensor:
    """Read the larger map beside the convolution."""
    z = F.pad(z, (1, 1, 1, 1))
    return net.norm(net.again(z)) + z[:, :, 1:-1, 1:-1]


def measured(net: nn.Module, z: Tensor) -> Tensor:
    """Ask the larger map for its size."""
    z = F.pad(z, (1, 1, 1, 1))
    return net.norm(net.again(z)) / z.shape[-1]


def written(net: nn.Module, z: Tensor) -> Tensor:
    """Change the larger map before the convolution reads it."""
    return net.norm(net.again(F.pad(z, (1, 1, 1, 1)).add_(1)))


def computed(net: nn.Module, z: Tensor) -> Tensor:
    """Convolve with weights that are made anew in every pass."""
    return net.norm(net.again(torch.conv2d(F.pad(z, (1, 1, 1, 1)), net.again.weight / 2, groups=8)))


def as_weights(net: nn.Module, z: Tensor) -> Tensor:
    """Set zeros around a convolution's weights."""
    return net.norm(net.again(torch.conv2d(z, F.pad(net.again.weight, (1, 1, 1, 1)), groups=8)))


@pytest.mark.parametrize("function", [read_twice, measured, written, computed])
def test_what_cannot_be_let_in(function: Callable[..., Tensor]) -> None:
    assert_lets_in(small(function, **layers()), 1, 1)


def test_zeros_around_weights() -> None:
    assert_lets_in(small(as_weights, **layers()), 0, 0)


def test_a_map_that_is_changed_after_the_copy() -> None:
    """What stands in the copy's place would change with it."""

    def changed(net: nn.Module, z: Tensor) -> Tensor:
        z = 2 * z
        larger = F.pad(z, (1, 1, 1, 1))
        z += 1
        return net.norm(net.again(larger)) + z

    assert_folds(small(changed, **layers()), 0)


# Models that take another way later


def for_few(way: Callable[[nn.Module, Tensor], Tensor]) -> nn.Module:
    """Return a net that lets one or two pictures go another way than many."""
    # Weights are drawn for the way of few.
    ways = [around(1, 1, 1, 1)]
    net = small(lambda net, z: ways[-1 if len(z) > 2 else 0](net, z), **layers())
    ways.append(way)
    return net


@pytest.mark.parametrize(
    "way",
    [
        around(2, 2, 2, 2),
        read_twice,
        lambda net, z: F.pad(z, (1, 1, 1, 1)) * 2,
        lambda net, z: F.pad(z, (1, 1, 1, 1)) + torch.ones(16, 16),
        lambda net, z: net.norm(F.conv2d(F.pad(z, (1, 1, 1, 1)), net.again.weight * 2, groups=8)),
        lambda net, z: net.norm(net.again(F.pad(F.pad(z, (1, 1, 1, 1)), (1, 1, 1, 1)))),
    ],
)
def test_a_way_that_depends_on_the_batch(way: Callable[..., Tensor]) -> None:
    net, x = for_few(way), pictures(3)
    fold = folded(net, x)
    assert fold.pairs
    for part in (x[:1], x, x[:1]):
        assert relative(fold.outputs(part.clone(), net), net(part.clone())) <= 1e-12


def test_a_map_that_is_changed_after_the_copy_for_several_pictures() -> None:
    def changed(net: nn.Module, z: Tensor) -> Tensor:
        z = 2 * z
        larger = F.pad(z, (1, 1, 1, 1))
        if len(z) > 2:
            z += 1
        return net.norm(net.again(larger)) + z

    net = small(changed, **layers())
    fold, x = folded(net, pictures()), pictures(3)
    assert fold.pads[0].weight is net.again.weight
    assert relative(fold.outputs(x, net), net(x)) <= 1e-12


def test_an_error_of_the_model_stays_its_own() -> None:
    net = for_few(lambda net, z: F.pad(z, (1, 1, 1, 1)) + torch.ones(7, 7))
    fold = folded(net, pictures())
    with pytest.raises(RuntimeError, match="must match"):
        fold.outputs(pictures(3), net)


def test_methods_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    net, x = small(around(0, 1, 0, 1), **layers(2)), pictures()
    own = {"integrated-gradients": {"steps": 12, "tol": None}, "rise": {"samples": 20}, "lrp": {}}
    model = Classifier(net)
    folding = {method: attribute(model, x, method, **options) for method, options in own.items()}
    assert [padded.weight is net.again.weight for fold in model.foldings.values() for padded in fold.pads] == [True]
    monkeypatch.setattr("whence.models.running.folding_of", lambda module, x, run, others: folded(nn.Flatten(), x))
    for method, options in own.items():
        assert relative(folding[method].values, attribute(Classifier(net), x, method, **options).values) <= 1e-9
