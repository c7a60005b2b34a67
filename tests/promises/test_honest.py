"""Promise 2: never a map that says what is not so."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from small_nets import Lambda, SmallNet, SmallViT, drawn, net_for, pictures, relative, tiny_options
from whence import attribute, methods
from whence.errors import LayerError, ModelError, NotFiniteError, OptionError, PictureError, WhenceError
from whence.methods.lrp import IN_FLOAT32
from whence.models import session
from whence.models.classifier import Classifier
from whence.results import Attribution

METHODS = methods.names()
FACTS = {name: methods.facts(name) for name in METHODS}
BY_CLASS = [name for name in METHODS if not FACTS[name].class_agnostic]
BY_GRADIENT = [name for name in ("gradient", "grad-cam") if name in METHODS]
WITH_LAYER = [name for name in METHODS if FACTS[name].needs == "layer" and "layer" in FACTS[name].options]
# CAM refuses a layer that the head does not pool.
ANY_LAYER = [name for name in WITH_LAYER if name != "cam"]
CONVOLUTIONAL = [name for name in METHODS if FACTS[name].needs != "attention"]


def explain(method: str, net: nn.Module | Classifier, x: Tensor, target: Any = 1, **options: object) -> Attribution:
    model = net if isinstance(net, Classifier) else Classifier(net)
    return attribute(model, x, method, target=target, **{**tiny_options(FACTS[method]), **options})


def small(function: Callable[..., object], seed: int = 0, **layers: nn.Module) -> nn.Module:
    """Return a drawn net: ``function`` over a first convolution, its layers, and a head on the mean of eight maps."""
    net = Lambda(function, conv=nn.Conv2d(3, 8, 3, padding=1), **layers, head=nn.Linear(8, 5))
    return drawn(net, seed)


# NaN and infinity


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("method", METHODS)
def test_a_picture_that_is_not_finite_is_named(method: str, value: float) -> None:
    x = pictures(3)
    x[1, 0, 4, 4] = value
    with pytest.raises(NotFiniteError, match=r"picture 1 of the batch: the input holds NaN or infinity"):
        explain(method, net_for(method), x)


def test_a_table_of_parameters_that_is_exchanged_whole_is_seen():
    model = Classifier(net_for("gradient"))
    explain("gradient", model, pictures())
    head = model.module.head
    head._parameters = {"weight": head.weight, "bias": nn.Parameter(torch.full_like(head.bias, torch.nan))}
    with pytest.raises(NotFiniteError, match=r"'head\.bias' holds NaN"):
        explain("gradient", model, pictures())


@pytest.mark.parametrize("method", METHODS)
def test_a_parameter_that_becomes_nan_after_construction_is_named(method: str) -> None:
    model = Classifier(net_for(method))
    explain(method, model, pictures())
    with torch.no_grad():
        model.module.head.bias[3] = torch.nan
    with pytest.raises(NotFiniteError, match=r"'head\.bias' holds NaN"):
        explain(method, model, pictures())


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_a_parameter_that_is_not_finite_is_refused_at_construction(value: float) -> None:
    net = SmallNet()
    net.down.weight.data[0, 0, 0, 0] = value
    with pytest.raises(NotFiniteError, match=r"'down\.weight'"):
        Classifier(net)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_buffer_that_is_not_finite_is_refused_at_construction(value: float) -> None:
    net = SmallNet()
    net.block.bn.running_mean[0] = value
    with pytest.raises(NotFiniteError, match=r"'block\.bn\.running_mean'"):
        Classifier(net)


class Masked(nn.Module):
    """Attention in which a buffer of minus infinities forbids each patch to see what comes after it."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, 8, 4, stride=4)
        self.head = nn.Linear(8, 5)
        self.register_buffer("mask", torch.full((16, 16), -torch.inf).triu(1))

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patch(x).flatten(2).transpose(1, 2)
        seen = (tokens @ tokens.transpose(1, 2) + self.mask).softmax(2) @ tokens
        return self.head((tokens + seen).mean(1))


@pytest.mark.parametrize("method", BY_GRADIENT)
def test_minus_infinity_in_an_attention_mask_is_legal(method: str) -> None:
    assert explain(method, drawn(Masked()), pictures()).values.abs().max() > 0


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("method", CONVOLUTIONAL)
def test_a_layer_that_returns_nan_for_one_picture_gives_no_map(method: str, value: float) -> None:
    def broken(net: nn.Module, x: Tensor) -> Tensor:
        dark = x.mean((1, 2, 3)) < -5
        maps = net.relu(net.conv(x))
        maps = torch.where(dark[:, None, None, None], value * torch.ones_like(maps), maps)
        return net.head(net.layer(maps).mean((2, 3)))

    net = small(broken, relu=nn.ReLU(), layer=nn.Identity())
    x = pictures(3)
    explain(method, net, x)
    x[2] -= 10
    with pytest.raises(NotFiniteError, match="picture 2 of the batch"):
        explain(method, net, x)


@pytest.mark.parametrize("method", WITH_LAYER)
def test_a_recorded_activation_that_is_not_finite_names_its_layer(method: str) -> None:
    net = small(
        lambda net, x: net.head(net.log(net.conv(x)).nan_to_num().mean((2, 3))), log=Lambda(lambda _, x: x.log())
    )
    with pytest.raises(NotFiniteError, match="picture 0 of the batch: the activation of layer 'log'"):
        explain(method, net, pictures(), layer="log")


@pytest.mark.parametrize(("method", "where"), [("gradient", "input"), ("grad-cam", "conv")])
def test_a_gradient_that_is_not_finite_names_its_layer(method: str, where: str) -> None:
    # Finite logits, and the slope of a square root at 0.
    net = small(lambda net, x: net.head((net.conv(x) * 0).mean((2, 3)).sqrt()))
    layer = {"layer": "conv"} if method == "grad-cam" else {}
    with pytest.raises(NotFiniteError, match=f"picture 0 of the batch: the gradient at '{where}'"):
        explain(method, net, pictures(), **layer)


@pytest.mark.parametrize("method", METHODS)
def test_a_score_that_is_not_finite_gives_no_map(method: str) -> None:
    def target(output: Tensor) -> Tensor:
        return torch.where(torch.arange(len(output)) == len(output) - 1, torch.inf, output[:, 0])

    with pytest.raises(NotFiniteError, match="picture 2 of the batch: the score"):
        explain(method, net_for(method), pictures(3), target)


# No evidence


def assert_no_evidence(answer: Attribution) -> None:
    assert not answer.values.any()
    assert all(any("no evidence" in note for note in notes) for notes in answer.notes)


@pytest.mark.parametrize("method", BY_CLASS)
def test_a_constant_logit_gives_a_zero_map_with_a_note(method: str) -> None:
    net = net_for(method)
    with torch.no_grad():
        net.head.weight[2] = 0
    # These measure a class by its probability, which changes with the other logits too.
    by_probability = method in ("rise", "score-cam") or method.endswith("-perturbation") or method.startswith("igos")
    logit = (lambda output: output[:, 2]) if by_probability else 2
    assert_no_evidence(explain(method, net, pictures(), logit))
    other = explain(method, net, pictures(), 1)
    assert other.values.any()
    assert not any("no evidence" in note for notes in other.notes for note in notes)


@pytest.mark.parametrize("method", BY_CLASS)
def test_a_callable_that_returns_a_constant_gives_a_zero_map_with_a_note(method: str) -> None:
    assert_no_evidence(explain(method, net_for(method), pictures(), lambda output: torch.ones(len(output)).double()))


def test_a_map_cut_to_nothing_is_not_said_to_belong_to_a_score_that_does_not_change() -> None:
    net = small(lambda n, x: n.head(n.conv(x).square().mean((2, 3))))
    with torch.no_grad():
        net.head.weight.fill_(-1)
        net.conv.weight.abs_()
        net.conv.bias.fill_(5)
    x = pictures().abs()
    assert (explain("grad-cam", net, x, layer="conv").values < 0).all()
    answer = explain("grad-cam", net, x, layer="conv", relu=True)
    assert_no_evidence(answer)
    assert not any("change" in note for notes in answer.notes for note in notes)


def test_the_note_stands_with_the_pictures_that_it_is_true_of() -> None:
    net = drawn(SmallNet())
    with torch.no_grad():
        net.head.weight[2] = 0
    notes = explain("gradient", net, pictures(3), [1, 2, 1]).notes
    assert [any("no evidence" in note for note in of_one) for of_one in notes] == [False, True, False]


@pytest.mark.parametrize("method", BY_GRADIENT)
def test_a_model_that_cuts_its_own_gradient_is_refused_and_not_called_no_evidence(method: str) -> None:
    net = small(lambda net, x: net.head(net.conv(x).relu().detach().mean((2, 3))))
    layer = {"layer": "conv"} if method == "grad-cam" else {}
    with pytest.raises(ModelError, match="no gradient flows"):
        explain(method, net, pictures(), **layer)


@pytest.mark.parametrize("method", BY_GRADIENT)
def test_a_target_that_cuts_the_gradient_is_refused(method: str) -> None:
    with pytest.raises(ModelError, match="no gradient flows"):
        explain(method, drawn(SmallNet()), pictures(), lambda output: output[:, 1].detach())


def test_a_layer_beside_the_way_to_the_score_has_no_evidence() -> None:
    def beside(net: nn.Module, x: Tensor) -> Tensor:
        net.side(x)
        return net.head(net.conv(x).relu().mean((2, 3)))

    net = small(beside, side=nn.Conv2d(3, 4, 3, padding=1))
    assert_no_evidence(explain("grad-cam", net, pictures(), layer="side"))


@pytest.mark.parametrize("inside", ["trunk", "trunk.0"])
def test_a_layer_in_a_block_that_runs_without_gradients_gives_the_map_of_a_model_that_does_not(inside: str) -> None:
    def frozen(net: nn.Module, x: Tensor) -> Tensor:
        with torch.no_grad():
            x = net.trunk(x)
        return net.head(net.conv2(x).relu().mean((2, 3)))

    def plain(net: nn.Module, x: Tensor) -> Tensor:
        return net.head(net.conv2(net.trunk(x)).relu().mean((2, 3)))

    def net(function: Callable[..., object]) -> nn.Module:
        trunk = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU())
        return drawn(Lambda(function, trunk=trunk, conv2=nn.Conv2d(6, 8, 3), head=nn.Linear(8, 5)))

    values = explain("grad-cam", net(frozen), pictures(), layer=inside).values
    assert values.any()
    assert torch.equal(values, explain("grad-cam", net(plain), pictures(), layer=inside).values)


# In place


@pytest.mark.parametrize(
    "layer", [None, "stem", "stem.0", "relu", "block.conv", "block.bn", "block", "down", "relu#1"]
)
@pytest.mark.parametrize("method", ANY_LAYER)
def test_a_layer_is_explained_alike_where_what_follows_works_in_place(method: str, layer: str | None) -> None:
    inplace = explain(method, drawn(SmallNet(inplace=True)), pictures(), layer=layer)
    twin = explain(method, drawn(SmallNet(inplace=False)), pictures(), layer=layer)
    assert inplace.layer == twin.layer
    assert torch.equal(inplace.values, twin.values)


@pytest.mark.parametrize("method", CONVOLUTIONAL)
def test_a_model_is_explained_alike_whether_it_works_in_place_or_not(method: str) -> None:
    inplace = explain(method, drawn(SmallNet(inplace=True)), pictures())
    assert torch.equal(inplace.values, explain(method, drawn(SmallNet(inplace=False)), pictures()).values)


def twins(inplace: Callable[[Tensor], Tensor], outplace: Callable[[Tensor], Tensor]) -> list[nn.Module]:
    """Return two nets that differ in what follows the layer."""

    def net(function: Callable[[Tensor], Tensor]) -> nn.Module:
        layers = {"layer": nn.BatchNorm2d(8), "after": nn.Conv2d(8, 8, 3)}
        return small(lambda n, x: n.head(n.after(function(n.layer(n.conv(x)))).relu().mean((2, 3))), **layers)

    return [net(inplace), net(outplace)]


FOLLOWING: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "F.relu": (lambda x: F.relu(x, inplace=True), F.relu),
    "add_": (lambda x: x.add_(1), lambda x: x + 1),
    "mul_": (lambda x: x.mul_(x.sigmoid()), lambda x: x * x.sigmoid()),
    "a part": (lambda x: (x[:, :4].mul_(2), x)[1], lambda x: torch.cat((2 * x[:, :4], x[:, 4:]), dim=1)),
    "hardswish": (lambda x: F.hardswish(x, inplace=True), F.hardswish),
}


@pytest.mark.parametrize("following", FOLLOWING)
@pytest.mark.parametrize("method", ANY_LAYER)
def test_any_operation_in_place_behind_a_layer_leaves_its_map_alone(method: str, following: str) -> None:
    inplace, outplace = (explain(method, net, pictures(), layer="layer") for net in twins(*FOLLOWING[following]))
    assert torch.equal(inplace.values, outplace.values)
    if inplace.activation is not None and outplace.activation is not None:
        assert torch.equal(inplace.activation, outplace.activation)


@pytest.mark.parametrize("alias", [nn.Identity(), nn.Dropout(0.5), nn.Sequential()], ids=lambda m: type(m).__name__)
@pytest.mark.parametrize("method", ANY_LAYER)
def test_a_module_that_returns_its_input_is_a_layer_like_any_other(method: str, alias: nn.Module) -> None:
    def forward(net: nn.Module, x: Tensor) -> Tensor:
        y = net.alias(net.conv(x))
        y += 1
        return net.head(y.relu_().mean((2, 3)))

    def plain(net: nn.Module, x: Tensor) -> Tensor:
        return net.head((net.conv(x) + 1).relu().mean((2, 3)))

    answer = explain(method, small(forward, alias=alias), pictures(), layer="alias")
    assert torch.equal(answer.values, explain(method, small(plain), pictures(), layer="conv").values)


def test_several_layers_of_which_one_returns_the_input_that_is_changed_later() -> None:
    def forward(net: nn.Module, x: Tensor) -> Tensor:
        y = net.conv2(net.conv(x))
        z = net.alias(y)
        y += 1
        return net.head((y.relu() + z.exp()).mean((2, 3)))

    def plain(net: nn.Module, x: Tensor) -> Tensor:
        y = net.conv2(net.conv(x))
        return net.head(((y + 1).relu() + net.alias(y).exp()).mean((2, 3)))

    layers = {"conv2": nn.Conv2d(8, 8, 3), "alias": nn.Identity()}
    asked = ("conv", "alias")
    found, expected = (explain("grad-cam", small(f, **layers), pictures(), layer=asked) for f in (forward, plain))
    for name in asked:
        assert torch.equal(found.layers[name], expected.layers[name])


# Batches


def tolerance(method: str) -> float:
    """Return how far rounding may carry: searches and optimisers enlarge it."""
    return 1e-8 if FACTS[method].family == "perturbation" else 1e-12


@pytest.mark.parametrize("method", METHODS)
def test_a_batch_gives_what_single_pictures_give(method: str) -> None:
    model, x = Classifier(net_for(method)), pictures(4)
    together = explain(method, model, x, None)
    alone = [explain(method, model, x[i : i + 1], None) for i in range(4)]
    assert relative(together.values, torch.cat([a.values for a in alone])) <= tolerance(method)
    assert relative(together.score, torch.cat([a.score for a in alone])) <= 1e-12
    assert torch.equal(together.target, torch.cat([a.target for a in alone]))


@pytest.mark.parametrize("method", METHODS)
def test_the_order_of_a_batch_does_not_matter(method: str) -> None:
    model, x, order = Classifier(net_for(method)), pictures(4), torch.tensor([2, 0, 3, 1])
    straight, shuffled = explain(method, model, x, [0, 1, 2, 3]), explain(method, model, x[order], order)
    assert relative(shuffled.values, straight.values[order]) <= tolerance(method)
    assert torch.equal(shuffled.target, order)


@pytest.mark.parametrize("method", METHODS)
def test_a_batch_that_is_cut_into_chunks_gives_the_same(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, x, targets = Classifier(net_for(method)), pictures(5), [4, 3, 2, 1, 0]
    whole = explain(method, model, x, targets)
    monkeypatch.setattr(session, "_CHUNK_VALUES", 2 * x[0].numel())
    chunked = explain(method, model, x, targets)
    assert relative(chunked.values, whole.values) <= tolerance(method)
    assert torch.equal(chunked.target, whole.target)
    assert len(chunked.notes) == 5


@pytest.mark.parametrize("method", METHODS)
def test_the_same_call_gives_the_same_bits(method: str) -> None:
    first, second = (explain(method, net_for(method), pictures()) for _ in range(2))
    assert torch.equal(first.values, second.values)


@pytest.mark.parametrize("method", METHODS)
def test_a_model_in_train_mode_gives_the_map_of_eval_mode(method: str) -> None:
    net = net_for(method)
    expected = explain(method, net, pictures()).values
    assert torch.equal(explain(method, net.train(), pictures()).values, expected)


@pytest.mark.parametrize("method", METHODS)
def test_a_model_that_draws_numbers_gives_the_same_map_each_time(method: str) -> None:
    class Drawing(nn.Module):
        def __init__(self, net: nn.Module) -> None:
            super().__init__()
            self.net = net

        def forward(self, x: Tensor) -> Tensor:
            return self.net(x + 0.1 * torch.rand(1, 1, 1, 1, dtype=x.dtype))

    model = Classifier(Drawing(net_for(method)))
    first = explain(method, model, pictures()).values
    torch.rand(3)
    assert torch.equal(explain(method, model, pictures()).values, first)


# Kinds of inputs, models and outputs


@dataclass
class Output:
    """What many libraries return."""

    logits: Tensor
    hidden: Tensor | None = None


@pytest.mark.parametrize(
    "wrap",
    [
        lambda logits: (logits, logits + 1),
        lambda logits: [logits],
        lambda logits: {"logits": logits},
        lambda logits: {"out": logits, "aux": 2 * logits},
        lambda logits: {"aux": -logits, "logits": logits},
        lambda logits: Output(logits),
        lambda logits: SimpleNamespace(logits=logits),
    ],
    ids=["tuple", "list", "dict", "dict of out", "dict with aux", "dataclass", "namespace"],
)
@pytest.mark.parametrize("method", METHODS)
def test_logits_are_found_in_whatever_a_model_returns(method: str, wrap: Callable[[Tensor], object]) -> None:
    net = net_for(method)
    wrapped = Lambda(lambda self, x: wrap(self.net(x)), net=net)
    # The layer has another name inside the wrapper.
    assert torch.equal(explain(method, wrapped, pictures()).values, explain(method, net, pictures()).values)


@pytest.mark.parametrize("method", BY_GRADIENT)
def test_an_output_without_logits_asks_for_a_callable(method: str) -> None:
    net = small(lambda net, x: net.conv(x).relu())
    with pytest.raises(ModelError, match="give target= a function"):
        explain(method, net, pictures())


@pytest.mark.parametrize("method", METHODS)
def test_a_backbone_without_a_head_is_explained_by_a_callable(method: str) -> None:
    net = net_for(method)
    net.head = nn.Identity()
    # CAM takes linear scores only.
    power = 1 if method == "cam" else 2
    answer = explain(method, net, pictures(3), lambda features: features.pow(power).sum(1))
    assert answer.values.any()
    assert answer.target.tolist() == [-1, -1, -1]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("method", METHODS)
def test_a_model_of_a_shorter_type_gives_nearly_the_same_map(method: str, dtype: torch.dtype) -> None:
    net = net_for(method)
    exact = explain(method, net, pictures()).heatmap()
    answer = explain(method, net.to(dtype), pictures())
    assert answer.values.dtype == torch.float32
    limit = 1e-3 if dtype == torch.float32 else 0.3
    if FACTS[method].family != "perturbation":  # a search may end elsewhere
        assert relative(answer.heatmap().double(), exact) < limit


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
@pytest.mark.parametrize("method", METHODS)
def test_a_stated_precision_runs_the_model_under_autocast(method: str, precision: str) -> None:
    net = net_for(method).float()
    exact = explain(method, net, pictures())
    answer = explain(method, Classifier(net, precision=precision), pictures())
    assert answer.values.dtype == torch.float32
    if any(IN_FLOAT32 in notes for notes in answer.notes):
        assert torch.equal(answer.values, exact.values)
        return
    assert not torch.equal(answer.score, exact.score)
    assert relative(answer.score, exact.score) < 0.2


@pytest.mark.parametrize("method", METHODS)
def test_the_memory_layout_of_the_input_does_not_matter(method: str) -> None:
    net, x = net_for(method), pictures()
    expected = explain(method, net, x).values
    strided = torch.stack((x, x), dim=-1)[..., 0]
    assert relative(explain(method, net, strided).values, expected) <= tolerance(method)
    last = x.to(memory_format=torch.channels_last)
    assert relative(explain(method, net, last).values, expected) <= tolerance(method)
    assert relative(explain(method, net.to(memory_format=torch.channels_last), last).values, expected) <= 1e-8


@pytest.mark.parametrize("channels", [1, 4])
@pytest.mark.parametrize("method", METHODS)
def test_models_of_one_and_of_four_channels_work(method: str, channels: int) -> None:
    kind = SmallViT if FACTS[method].needs == "attention" else SmallNet
    net = drawn(kind(channels=channels), shape=(channels, 16, 16))
    answer = explain(method, net, pictures(channels=channels))
    # Of a net with drawn weights, the baseline alone may be enough.
    assert answer.values.any() or any("with every patch taken away" in note for note in answer.notes[0])
    assert answer.heatmap().shape == (2, 16, 16)


@pytest.mark.parametrize("method", METHODS)
def test_one_logit_is_refused_under_a_softmax_and_explained_under_a_sigmoid(method: str) -> None:
    net = net_for(method, classes=1)
    with pytest.raises(ModelError, match="activation='sigmoid'"):
        explain(method, net, pictures(), 0)
    model = Classifier(net, activation="sigmoid")
    answer = explain(method, model, pictures(), 0)
    # Attention is computed by the formula, norms are folded into convolutions, and both so rounded otherwise.
    if FACTS[method].needs == "attention" or model.foldings:
        assert relative(answer.score, net(pictures())[:, 0].detach()) <= 1e-12
    else:
        assert torch.equal(answer.score, net(pictures())[:, 0])


def test_a_probability_is_a_sigmoid_where_the_model_says_so() -> None:
    net, x = drawn(SmallNet()), pictures()
    sigmoid = explain("gradient", Classifier(net, activation="sigmoid"), x, "probability:1")
    softmax = explain("gradient", Classifier(net), x, "probability:1")
    torch.testing.assert_close(sigmoid.score, net(x).sigmoid()[:, 1], rtol=1e-12, atol=0)
    torch.testing.assert_close(softmax.score, net(x).softmax(1)[:, 1], rtol=1e-12, atol=0)


def test_the_gradient_of_a_one_pixel_picture() -> None:
    net = drawn(Lambda(lambda net, x: net.head(x.flatten(1)), head=nn.Linear(3, 5)), shape=(3, 1, 1))
    x = pictures(size=1)
    torch.testing.assert_close(explain("gradient", net, x, 2).values[:, :, 0, 0], net.head.weight[2].expand(2, 3))


@pytest.mark.parametrize("method", METHODS)
def test_a_long_and_narrow_picture_works_or_gives_a_typed_error(method: str) -> None:
    try:
        assert explain(method, net_for(method), pictures(1, size=(4, 64))).heatmap().shape == (1, 4, 64)
    except WhenceError:
        assert FACTS[method].needs != "gradients"


@pytest.mark.parametrize("method", METHODS)
def test_an_empty_batch_is_refused(method: str) -> None:
    with pytest.raises(PictureError, match="at least one picture"):
        explain(method, net_for(method), torch.zeros(0, 3, 16, 16).double())


@pytest.mark.parametrize("method", METHODS)
def test_an_input_of_other_channels_than_the_model_takes_is_refused_with_its_shape(method: str) -> None:
    with pytest.raises(ModelError, match=r"\[2, 4, 16, 16\]"):
        explain(method, net_for(method), pictures(channels=4))


def test_what_is_no_batch_of_pictures_is_refused_with_what_it_is() -> None:
    # In a process of its own, where signatures are not checked before the function itself sees its arguments.
    code = """
import torch
from whence import attribute, Classifier
from whence.errors import PictureError
model = Classifier(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 2)))
for x in (torch.zeros(3, 2, 2), torch.zeros(1, 1, 3, 2, 2), torch.zeros(1, 3, 2, 2, dtype=torch.uint8), [1.0], None):
    try:
        attribute(model, x, "gradient")
    except PictureError as error:
        print(error)
"""
    said = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    ends = ["not [3, 2, 2]", "not [1, 1, 3, 2, 2]", "torch.uint8", "list", "NoneType"]
    assert len(said) == len(ends)
    assert all(end in line for line, end in zip(said, ends, strict=True))


# Options


@pytest.mark.parametrize("method", WITH_LAYER)
@pytest.mark.parametrize("layer", [[], ()])
def test_no_layer_at_all_is_no_value_for_a_layer(method: str, layer: object) -> None:
    with pytest.raises(OptionError, match="layer="):
        explain(method, net_for(method), pictures(), layer=layer)


def test_a_list_of_layers_is_as_good_as_a_tuple() -> None:
    net = drawn(SmallNet())
    as_list, as_tuple = (explain("grad-cam", net, pictures(), layer=kind(["stem", "down"])) for kind in (list, tuple))
    assert list(as_list.layers) == ["stem", "down"]
    assert torch.equal(as_list.values, as_tuple.values)
    assert torch.equal(as_list.values, as_list.layers["down"])


@pytest.mark.parametrize("method", WITH_LAYER)
def test_an_unknown_layer_is_named_with_what_is_near(method: str) -> None:
    with pytest.raises(LayerError, match=r"'block\.bm'.*'block\.bn'"):
        explain(method, drawn(SmallNet()), pictures(), layer="block.bm")


@pytest.mark.parametrize("method", METHODS)
def test_an_unknown_option_is_refused(method: str) -> None:
    with pytest.raises(OptionError, match="no option 'lair'"):
        explain(method, net_for(method), pictures(), lair=3)
