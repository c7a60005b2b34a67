"""LRP against zennit and captum: equal where they are right, and where they are not, by how much they differ.

Zennit stabilises sums and average pools, too, which are exact here: there its stabiliser is made as good as none.
"""

import copy
from functools import cache

import pytest
import torch
from captum.attr import LRP
from torch import Tensor, nn
from torchvision.models import alexnet, resnet18, resnet50, vgg16, vgg16_bn

from small_nets import Lambda, drawn, pictures, relative
from whence import attribute
from whence.methods.lrp import named, rules
from whence.methods.lrp.composites import Composite
from whence.models.classifier import Classifier
from whence.results import Attribution

pytest.importorskip("zennit")

from zennit import composites as theirs
from zennit.canonizers import SequentialMergeBatchNorm
from zennit.core import Composite as Zennits
from zennit.rules import Epsilon, Norm
from zennit.torchvision import ResNetCanonizer, VGGCanonizer
from zennit.types import AvgPool

E = 1e-12
NETS = {"alexnet": alexnet, "resnet18": resnet18, "resnet50": resnet50, "vgg16": vgg16, "vgg16_bn": vgg16_bn}
COMPOSITES = {
    "epsilon-plus": theirs.EpsilonPlus,
    "epsilon-plus-flat": theirs.EpsilonPlusFlat,
    "epsilon-alpha2-beta1": theirs.EpsilonAlpha2Beta1,
    "epsilon-alpha2-beta1-flat": theirs.EpsilonAlpha2Beta1Flat,
    "epsilon-gamma-box": theirs.EpsilonGammaBox,
    "excitation-backprop": theirs.ExcitationBackprop,
}


@cache
def published(name: str, eps: float = 0.0) -> nn.Module:
    """Return a net of torchvision in float64, its biases and statistics drawn, with scales of both signs."""
    net = NETS[name](weights=None, num_classes=10, **({"init_weights": False} if "vgg" in name else {}))
    width = {"vgg16": 512 * 7 * 7, "vgg16_bn": 512 * 7 * 7, "alexnet": 256 * 6 * 6}.get(name)
    if width:  # without dense layers of many million weights
        net.classifier = nn.Sequential(nn.Linear(width, 32), nn.ReLU(), nn.Dropout(), nn.Linear(32, 10))
    generator = torch.Generator().manual_seed(1)

    def normal(like: Tensor, scale: float) -> Tensor:
        return scale * torch.randn(like.shape, generator=generator)

    for layer in net.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            layer.weight.data = normal(layer.weight, (2 / layer.weight[0].numel()) ** 0.5)
        if isinstance(layer, nn.BatchNorm2d):
            layer.eps = eps
            layer.running_mean, layer.running_var = normal(layer.bias, 0.1), normal(layer.bias, 0.2).exp()
            layer.weight.data = normal(layer.weight, 0.2).exp() * normal(layer.weight, 1.0).add(1).sign()
        if getattr(layer, "bias", None) is not None:
            layer.bias.data = normal(layer.bias, 0.1)
    return net.double().eval()


def by_zennit(net: nn.Module, composite: Zennits, x: Tensor) -> Tensor:
    """Return what zennit finds for the top class, whose relevance is its score."""
    x = x.clone().requires_grad_()
    with composite.context(copy.deepcopy(net)) as changed:
        output = changed(x)
        score, top = output.max(1)
        start = torch.zeros_like(output).scatter_(1, top[:, None], score.detach()[:, None])
        (r,) = torch.autograd.grad(output, x, start)
    return r


def zennits(name: str, composite: str, x: Tensor, canonizers: list[object], norm: float = 1e-40) -> Zennits:
    options = {} if composite == "excitation-backprop" else {"epsilon": E}
    if composite == "epsilon-gamma-box":
        options = {**options, "low": x.amin((2, 3), True).expand_as(x), "high": x.amax((2, 3), True).expand_as(x)}
    exact = [((theirs.Sum, AvgPool), Norm(norm))]
    return COMPOSITES[composite](canonizers=canonizers, stabilizer=E, layer_map=exact, **options)


def ours(net: nn.Module, composite: str | Composite, x: Tensor) -> Attribution:
    chosen = named.NAMED[composite](E) if isinstance(composite, str) else composite
    return attribute(Classifier(net), x, "lrp", composite=chosen)


@pytest.mark.parametrize("composite", COMPOSITES)
@pytest.mark.parametrize("name", ["resnet18", "resnet50", "vgg16", "vgg16_bn"])
def test_the_map_is_zennits(name: str, composite: str) -> None:
    net, x = published(name), pictures(1, size=48 if name == "resnet18" else 32)
    canonizer = ResNetCanonizer() if "resnet" in name else VGGCanonizer()
    expected = by_zennit(net, zennits(name, composite, x, [canonizer]), x)
    answer = ours(net, composite, x)
    assert expected.std() > 0.1 * expected.abs().mean() > 0
    assert relative(answer.values, expected) <= 1e-12
    assert answer.residual.max() <= 1e-12


def test_zennits_stabilisers_in_sums_and_pools_are_all_that_differs_where_they_are_larger() -> None:
    net, x = published("resnet18"), pictures(1, size=48)
    answer = ours(net, "epsilon-plus", x)
    differences = [
        relative(answer.values, by_zennit(net, zennits("resnet18", "epsilon-plus", x, [ResNetCanonizer()], by), x))
        for by in (1e-6, 1e-9)
    ]
    assert differences[0] >= 1e-8
    assert differences[1] <= differences[0] / 100


def test_merging_a_batch_norm_changes_zennits_forward_pass_and_not_ours() -> None:
    """The batch norm that is left scales by 1 / sqrt(1 + eps)."""
    net, x = published("vgg16_bn", eps=1e-5), pictures(1, size=32)
    plain = net(x).detach().max(1).values
    with theirs.EpsilonPlus(canonizers=[VGGCanonizer()]).context(copy.deepcopy(net)) as changed:
        merged = changed(x).detach().max(1).values
    assert relative(merged, plain) >= 1e-6
    assert relative(ours(net, "epsilon-plus", x).score, plain) <= 1e-14


def residual() -> nn.Module:
    """Return a net without biases with one sum, written as a function."""

    def forward(net: nn.Module, x: Tensor) -> Tensor:
        h = net.first(x)
        return net.head((h + net.second(h)).flatten(1))

    layers = {"first": nn.Conv2d(3, 4, 3, bias=False), "second": nn.Conv2d(4, 4, 1, bias=False)}
    return drawn(Lambda(forward, **layers, head=nn.Linear(4 * 36, 5, bias=False)), shape=(3, 8, 8))


def test_a_sum_written_as_a_function_doubles_zennits_relevance_and_not_ours() -> None:
    net, x = residual(), pictures(2, size=8)
    score = net(x).detach().max(1).values
    composite = theirs.LayerMapComposite([((nn.Conv2d, nn.Linear), Epsilon(E))])
    assert relative(by_zennit(net, composite, x).sum((1, 2, 3)), 2 * score) <= 1e-10
    assert relative(ours(net, "epsilon", x).values.sum((1, 2, 3)), score) <= 1e-10


def test_zennit_writes_to_the_model_while_it_explains_and_whence_does_not() -> None:
    net = drawn(nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 2)))
    x = pictures(2, size=8)
    before = copy.deepcopy(net.eval().state_dict())

    def changed() -> set[str]:
        now = net.state_dict()
        return {name for name in {**now, **before} if name not in before or not torch.equal(now[name], before[name])}

    with theirs.EpsilonPlus(canonizers=[SequentialMergeBatchNorm()]).context(net):
        assert {"0.bias", "0.weight", "1.running_var", "1.running_mean"} <= changed()
    assert not changed()
    seen = []

    def watched(output: Tensor) -> Tensor:
        seen.append(changed())
        return output[:, 0]

    attribute(net, x, "lrp", composite=named.epsilon_plus(E), target=watched)
    assert seen
    assert not any(seen)


def captums(net: nn.Module, x: Tensor) -> Tensor:
    return LRP(copy.deepcopy(net)).attribute(x.clone().requires_grad_(), target=net(x).argmax(1)).detach()


@pytest.mark.parametrize("name", ["alexnet", "vgg16"])
def test_the_map_is_captums_where_a_net_is_one_chain(name: str) -> None:
    """Its rule adds 1e-9 to denominators, also to those of pools."""
    net, x = published(name), pictures(2, size=96 if name == "alexnet" else 32)
    expected = captums(net, x)
    epsilon = Composite("epsilon", (("*", rules.epsilon(1e-9)),))
    assert relative(ours(net, epsilon, x).values, expected) <= 1e-6
    assert relative(ours(net, named.lrp_0(), x).values, expected) <= 1e-4


def test_captum_hands_back_another_score_than_that_of_a_residual_net() -> None:
    """What comes to a sum written as a function is taken for a gradient."""
    net, x = published("resnet18"), pictures(1, size=48)
    score = net(x).detach().max(1).values
    mine = ours(net, named.lrp_0(), x)
    assert (captums(net, x).sum() / score).abs() > 100
    assert relative(mine.balance.input + mine.balance.bias, score) <= 1e-12
