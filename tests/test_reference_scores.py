"""What changed pictures' scores are held against: what is told from rounding, and what is rounding."""

import pytest
import torch
import torchvision
from torch import Tensor, nn

from small_nets import Lambda, drawn, pictures
from whence.attribution import NO_EVIDENCE, attribute
from whence.methods import ablation_cam
from whence.models import session
from whence.models.classifier import Classifier
from whence.results import Attribution

MASKING = [
    ("rise", {"samples": 40}),
    ("occlusion", {"window": 8}),
    *(("score-cam", {"variant": variant}) for variant in ("paper", "official", "logit")),
]
ABLATING = ("ablation-cam", {"layer": "conv"})
masking = pytest.mark.parametrize(("method", "options"), MASKING)
changing = pytest.mark.parametrize(("method", "options"), [*MASKING, ABLATING])


class Nearly(nn.Module):
    """1 and ``slope`` times what is seen in a corner, ``rounded`` by the batch's size and the place in it."""

    def __init__(self, slope: float, rounded: float) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.slope, self.rounded = slope, rounded

    def forward(self, x: Tensor) -> Tensor:
        seen = self.conv(x).relu()[:, :, :5, :5].mean((1, 2, 3))
        off = self.rounded * (len(x) + torch.arange(len(x)))
        return torch.stack((1 + self.slope * seen + off, torch.zeros_like(seen)), 1)


def explained(method: str, net: nn.Module, x: Tensor, **options: object) -> Attribution:
    # Each is measured by the number itself: a probability would hide how little it changes.
    return attribute(Classifier(net), x, method, target=lambda output: output[:, 0], **options)


def silent(answer: Attribution) -> list[bool]:
    """Return which maps say that they hold nothing, and do."""
    said = [NO_EVIDENCE in notes for notes in answer.notes]
    assert said == [not bool(values.any()) for values in answer.values]
    return said


@changing
@pytest.mark.parametrize("count", [1, 3])
def test_what_only_batches_of_other_sizes_change_is_no_evidence(
    method: str, options: dict[str, object], count: int
) -> None:
    x = pictures(count, size=16)
    found, sure = (
        explained(method, drawn(Nearly(0.0, rounded), shape=(3, 16, 16)), x, **options) for rounded in (1e-14, 0.0)
    )
    assert all(silent(found))
    assert all(silent(sure))
    assert found.passes.forward + found.passes.partial > sure.passes.forward + sure.passes.partial


@changing
def test_a_model_in_half_precision_rounds_more(method: str, options: dict[str, object]) -> None:
    net = drawn(Nearly(0.0, 1e-2), shape=(3, 16, 16)).bfloat16()
    assert all(silent(explained(method, net, pictures(2, size=16).bfloat16(), **options)))


@changing
def test_an_output_may_have_other_rows_than_the_batch(method: str, options: dict[str, object]) -> None:
    net = drawn(Lambda(lambda net, x: net.conv(x).mean((2, 3)).repeat(2, 1), conv=nn.Conv2d(3, 8, 3)))
    found = attribute(Classifier(net), pictures(3), method, target=lambda output: output.chunk(2)[0][:, 1], **options)
    assert not any(silent(found))


@changing
@pytest.mark.parametrize("rounded", [0.0, 1e-15, 1e-13, -1e-13])
def test_a_change_that_is_hardly_more_than_rounding_is_evidence(
    method: str, options: dict[str, object], rounded: float
) -> None:
    x = pictures(3, size=16)
    net = drawn(Nearly(1e-13, rounded), shape=(3, 16, 16))
    assert not any(silent(explained(method, net, x, **options)))


@pytest.mark.parametrize(("method", "options"), [MASKING[1], ABLATING])
@pytest.mark.parametrize("rounded", [1e-13, -1e-13])
@pytest.mark.parametrize("at_once", [3, 7])
def test_drops_hold_no_rounding_of_batches(
    method: str, options: dict[str, object], rounded: float, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = pictures(2, size=16)
    exact = explained(method, drawn(Nearly(1e-12, 0.0), shape=(3, 16, 16)), x, **options)
    monkeypatch.setattr(session, "_CHUNK_VALUES", at_once * x[0].numel())
    monkeypatch.setattr(ablation_cam, "_MOST_AT_ONCE", at_once)
    found = explained(method, drawn(Nearly(1e-12, rounded), shape=(3, 16, 16)), x, **options)
    # The score is 1, of which a drop of 1e-13 keeps three places.
    assert (found.values - exact.values).abs().max() <= 1e-2 * exact.values.abs().max()


@changing
def test_each_picture_is_asked_for_itself(method: str, options: dict[str, object]) -> None:
    x = pictures(3, size=16)
    x[1] = 0
    net = drawn(Nearly(1e-13, 1e-14), shape=(3, 16, 16))
    with torch.no_grad():
        net.conv.bias.zero_()
    assert silent(explained(method, net, x, **options)) == [False, True, False]


@masking
def test_one_picture_at_once_needs_no_more_memory(
    method: str, options: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    net = drawn(Nearly(1e-13, 0.0), shape=(3, 16, 16))
    sizes, forward = [], net.forward
    monkeypatch.setattr(net, "forward", lambda x: sizes.append(len(x)) or forward(x))
    assert silent(explained(method, net, pictures(1, size=16), batch=1, **options)) == [False]
    # Two are run at once to see how a model is folded.
    assert set(sizes) <= {1, 2}


@masking
@pytest.mark.parametrize("name", ["mobilenet_v2", "densenet121", "regnet_y_400mf", "resnet18"])
def test_a_deep_net_s_rounding_is_no_evidence(name: str, method: str, options: dict[str, object]) -> None:
    """Behind a first convolution of zeros all pictures are one, which large and small batches round differently."""
    net = drawn(torchvision.models.get_model(name), shape=(3, 32, 32)).float()
    with torch.no_grad():
        next(module for module in net.modules() if isinstance(module, nn.Conv2d)).weight.zero_()
    x = pictures(size=32).float()
    low, high = net.eval()(x)[0].sort().indices[500:502].tolist()
    for target in (1, lambda output: output[:, 1].double(), f"label:{high} - label:{low}"):
        found = attribute(Classifier(net, labels=[str(n) for n in range(1000)]), x, method, target=target, **options)
        assert all(silent(found))


@pytest.mark.parametrize("method", ["ablation-cam", "score-cam"])
@pytest.mark.parametrize(
    ("name", "layer", "dead"), [("resnet50", "layer2.0", "layer3.0"), ("resnet18", "layer1.0", "layer2.0")]
)
def test_a_layer_before_a_dead_block_holds_no_evidence(name: str, layer: str, dead: str, method: str) -> None:
    net = drawn(torchvision.models.get_model(name), shape=(3, 32, 32)).float()
    with torch.no_grad():
        for module in net.get_submodule(dead).modules():
            if isinstance(module, nn.Conv2d):
                module.weight.zero_()
    assert all(silent(attribute(Classifier(net), pictures(size=32).float(), method, target=1, layer=layer)))
