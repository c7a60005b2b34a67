"""Occlusion against captum's, and against closed forms."""

import pytest
import torch
from captum.attr import Occlusion
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from small_nets import Lambda, SmallNet, drawn, pictures, relative, rounding
from whence import attribute
from whence.errors import OptionError
from whence.models.classifier import Classifier
from whence.models.load import load_model
from whence.pictures.baselines import make_baseline
from whence.pictures.preprocess import Preprocess
from whence.results import Attribution

TARGETS = [1, 3]


def ours(net: nn.Module | Classifier, x: Tensor, target: object = TARGETS, **options: object) -> Attribution:
    model = net if isinstance(net, Classifier) else Classifier(net)
    return attribute(model, x, "occlusion", target=target, **options)


def captums(net: nn.Module, x: Tensor, window: int, stride: int, base: Tensor | float = 0.0) -> Tensor:
    """Return captum's map: the same in all channels, for a window covers them all.

    captum divides in float32 whatever the type of model and picture; here it is made to do so in float64.
    """
    shape, strides = (x.shape[1], window, window), (x.shape[1], stride, stride)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Tensor, "float", Tensor.double)
        made = Occlusion(net.eval()).attribute(
            x, shape, strides=strides, baselines=base, target=TARGETS, perturbations_per_eval=8
        )
    assert torch.equal(made[:, :1].expand_as(made), made)
    return made[:, :1].detach()


# Sides that a stride divides and sides that it does not, where the last window stands out over the border.
CASES = [((16, 16), 4, 4), ((16, 16), 4, 2), ((16, 16), 5, 3), ((16, 12), 4, 3), ((13, 16), 7, 5), ((16, 16), 16, 16)]


@pytest.mark.parametrize(("size", "window", "stride"), CASES)
def test_the_map_is_captum_s(size: tuple[int, int], window: int, stride: int) -> None:
    net, x = drawn(SmallNet()), pictures(size=size)
    answer = ours(net, x, window=window, stride=stride)
    expected = captums(net, x, window, stride)
    assert answer.values.shape == expected.shape
    assert relative(answer.values, expected) <= 1e-10


@pytest.mark.parametrize("name", ["zeros", "blurred", "black"])
def test_the_map_over_a_baseline_is_captum_s(name: str) -> None:
    net, x = drawn(SmallNet()), pictures()
    preprocess = Preprocess(resize=16, crop=16, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4))
    base = make_baseline(name, x, preprocess.pixels)[0]
    answer = attribute(Classifier(net, preprocess), x, "occlusion", target=TARGETS, window=5, stride=3, baseline=name)
    assert relative(answer.values, captums(net, x, 5, 3, base)) <= 1e-10


def test_the_map_of_a_published_net_is_captum_s() -> None:
    net = load_model("torchvision:mobilenet_v2", weights="random").module.double()
    x = pictures(size=48)
    assert relative(ours(net, x, window=20, stride=13).values, captums(net, x, 20, 13)) <= 1e-10


def linear(size: tuple[int, int]) -> tuple[nn.Module, Tensor]:
    """Return a net whose four logits weigh every value of the picture, and the weights [4, 3, H, W]."""
    weight = torch.randn(4, 3, *size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    net = Lambda(lambda n, x: x.flatten(1) @ n.weight.flatten(1).T)
    net.register_buffer("weight", weight)
    return net, weight


@settings(max_examples=40, deadline=None)
@given(
    size=st.tuples(st.integers(4, 12), st.integers(4, 12)),
    window=st.integers(1, 4),
    stride=st.integers(1, 4),
)
def test_under_a_linear_score_a_place_gets_the_mean_of_what_its_windows_hold(
    size: tuple[int, int], window: int, stride: int
) -> None:
    """Written out window by window; so every place is covered, too."""
    stride = min(stride, window)
    net, weight = linear(size)
    x = pictures(size=size)
    share = (weight[TARGETS] * x).sum(1)
    drops, counts = torch.zeros_like(share), torch.zeros(size)
    top = 0
    while True:
        left = 0
        while True:
            part = (slice(None), slice(top, top + window), slice(left, left + window))
            drops[part] += share[part].sum((1, 2), keepdim=True)
            counts[part[1:]] += 1
            if left + window >= size[1]:
                break
            left += stride
        if top + window >= size[0]:
            break
        top += stride
    assert counts.min() >= 1
    assert relative(ours(net, x, window=window, stride=stride).values[:, 0], drops / counts) <= 1e-10


def test_a_window_of_one_pixel_gives_a_linear_score_s_own_shares() -> None:
    net, weight = linear((6, 9))
    x = pictures(size=(6, 9))
    answer = ours(net, x, window=1)
    assert relative(answer.values[:, 0], (weight[TARGETS] * x).sum(1)) <= 1e-10


@pytest.mark.parametrize(("size", "windows"), [((224, 224), 13 * 13), ((448, 448), 13 * 13), ((224, 448), 13 * 27)])
def test_the_window_is_scaled_to_the_picture(size: tuple[int, int], windows: int) -> None:
    """Of 224 pixels 32, in steps of 16."""
    answer = attribute(lambda x: x.mean((2, 3)), pictures(1, size=size).float(), "occlusion", target=1)
    assert answer.passes.forward == 1 + windows


@pytest.mark.parametrize("batch", [1, 7, 1000])
def test_how_many_run_at_once_changes_nothing(batch: int) -> None:
    net, x = drawn(SmallNet()), pictures(3)
    model = Classifier(net)
    expected = ours(model, x, 1)
    seen: list[int] = []
    net.register_forward_pre_hook(lambda _, args: seen.append(len(args[0])))
    answer = ours(model, x, 1, batch=batch)
    assert max(seen[1:]) == min(batch, 3 * 225)
    assert relative(answer.values, expected.values) <= 1e-10
    alone = torch.cat([ours(net, one[None], 1).values for one in x])
    assert relative(alone, expected.values) <= 1e-10


@pytest.mark.parametrize("target", [1, lambda output: output[:, 2]])
def test_a_score_that_only_rounds_differently_gives_no_evidence(target: object) -> None:
    answer = ours(rounding(), pictures().float(), target, batch=7)
    assert (answer.values == 0).all()
    assert all("no evidence" in notes[-1] for notes in answer.notes)


def test_what_stands_under_the_window_is_said() -> None:
    answer = ours(drawn(SmallNet()), pictures(), baseline="blurred")
    assert all("stands the picture, blurred" in note for (note,) in answer.notes)


def test_the_top_class_stays_the_whole_picture_s() -> None:
    net, x = drawn(SmallNet()).eval(), pictures(4)
    top = net(x).argmax(1)
    assert len(set(top.tolist())) > 1
    assert torch.equal(ours(net, x, None).values, ours(net, x, top.tolist()).values)


def test_pictures_lie_in_memory_as_the_batch_does() -> None:
    net = drawn(SmallNet()).float()
    seen: list[Tensor] = []
    net.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    for order in (torch.channels_last, torch.contiguous_format):
        model = Classifier(net)
        model.channels_last[3, 16, 16] = order is torch.channels_last
        seen.clear()
        attribute(model, pictures().float(), "occlusion", batch=8)
        assert len(seen) > 8
        assert all(x.is_contiguous(memory_format=order) for x in seen)


@pytest.mark.parametrize(
    "options", [{"window": 4, "stride": 5}, {"window": 17}, {"window": 0}, {"stride": 0}, {"window": 2, "batch": -1}]
)
def test_windows_that_leave_places_out_are_refused(options: dict[str, int]) -> None:
    with pytest.raises(OptionError, match=r"window must fit|give at least 1"):
        ours(drawn(SmallNet()), pictures(), **options)
