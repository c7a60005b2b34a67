"""What a Classifier knows of its module."""

import re
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import nn

from small_nets import SmallNet, drawn, pictures, relative, tiny_options
from whence import attribute, methods
from whence.errors import ModelError, NotFiniteError, UnsupportedError
from whence.models import classifier as module_under_test
from whence.models.classifier import Classifier
from whence.pictures.preprocess import Preprocess


def fingerprint(net: nn.Module) -> str:
    return Classifier(net).fingerprint


# The fingerprint


def test_equal_models_have_equal_fingerprints() -> None:
    first = fingerprint(drawn(SmallNet()))
    assert first == fingerprint(drawn(SmallNet()))
    assert len(first) == 64


CHANGES: dict[str, Callable[[SmallNet], object]] = {
    "one weight": lambda net: net.down.weight.data[0, 0, 0, 0].add_(1e-12),
    "a bias": lambda net: net.head.bias.data[4].neg_(),
    "a buffer": lambda net: net.block.bn.running_var.mul_(2),
    "a counter": lambda net: net.block.bn.num_batches_tracked.add_(1),
    "the type": lambda net: net.float(),
    "an activation": lambda net: setattr(net, "relu", nn.GELU()),
    "an option": lambda net: setattr(net.down, "stride", (1, 1)),
    "the order of channels": lambda net: net.head.weight.data.copy_(net.head.weight.data.flip(0)),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_fingerprint_changes_with(change: str) -> None:
    net = drawn(SmallNet())
    CHANGES[change](net)
    assert fingerprint(net) != fingerprint(drawn(SmallNet()))


NO_CHANGES: dict[str, Callable[[SmallNet], object]] = {
    "train mode": lambda net: net.train(),
    "frozen parameters": lambda net: net.requires_grad_(False),
    "the memory layout": lambda net: net.to(memory_format=torch.channels_last),
    "hooks": lambda net: net.register_forward_hook(lambda *_: None),
    "a run": lambda net: net(pictures()),
    "an explanation": lambda net: attribute(Classifier(net), pictures(), "grad-cam"),
}


@pytest.mark.parametrize("change", NO_CHANGES)
def test_a_fingerprint_does_not_change_with(change: str) -> None:
    net = drawn(SmallNet())
    before = fingerprint(net)
    NO_CHANGES[change](net)
    assert fingerprint(net) == before


def counted_hashes(monkeypatch: pytest.MonkeyPatch) -> list[nn.Module]:
    original, hashed = module_under_test._sha256, []

    def sha256(net: nn.Module) -> str:
        hashed.append(net)
        return original(net)

    monkeypatch.setattr(module_under_test, "_sha256", sha256)
    return hashed


def test_a_fingerprint_is_made_once_while_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    hashed = counted_hashes(monkeypatch)
    model = Classifier(drawn(SmallNet()))
    assert hashed == []
    first = model.fingerprint
    attribute(model, pictures(), "grad-cam")
    model.module.train()
    assert model.fingerprint == first
    assert len(hashed) == 1


@pytest.mark.parametrize(
    "change",
    [
        lambda net: net.down.weight.mul_(2),
        lambda net: net.block.bn.running_mean.add_(1),
        lambda net: net.load_state_dict(drawn(SmallNet(), seed=1).state_dict()),
        lambda net: setattr(net, "down", drawn(SmallNet(), seed=1).down),
        lambda net: setattr(net, "relu", nn.GELU()),
    ],
    ids=["a weight", "a buffer", "all weights", "a module with weights", "a module without weights"],
)
def test_a_fingerprint_is_made_anew_when_a_living_model_changes(change: Callable[[nn.Module], object]) -> None:
    model = Classifier(drawn(SmallNet()))
    before = model.fingerprint
    with torch.no_grad():
        change(model.module)
    assert model.fingerprint != before
    assert model.fingerprint == fingerprint(model.module)


# The weights are checked


def test_weights_are_checked_again_only_when_they_change(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Classifier(drawn(SmallNet()))
    checked = []
    original = torch.Tensor.isfinite
    monkeypatch.setattr(torch.Tensor, "isfinite", lambda t: checked.append(t) or original(t))
    model.check_weights()
    assert checked == []
    with torch.no_grad():
        model.module.down.bias.add_(1)
    model.check_weights()
    assert len(checked) == len(list(model.module.parameters()))


@pytest.mark.parametrize("name", ["down.weight", "head.bias", "block.bn.running_var"])
def test_damage_done_in_place_is_found(name: str) -> None:
    model = Classifier(drawn(SmallNet()))
    with torch.no_grad():
        model.module.state_dict()[name].view(-1)[0] = torch.nan
    with pytest.raises(NotFiniteError, match=name.replace(".", r"\.")):
        model.check_weights()


def test_a_model_that_was_repaired_can_be_used_again() -> None:
    model = Classifier(drawn(SmallNet()))
    expected = attribute(model, pictures(), "gradient").values
    with torch.no_grad():
        old = float(model.module.head.bias[0])
        model.module.head.bias[0] = torch.inf
        with pytest.raises(NotFiniteError):
            attribute(model, pictures(), "gradient")
        model.module.head.bias[0] = old
    assert torch.equal(attribute(model, pictures(), "gradient").values, expected)


def test_the_check_leaves_no_graph_behind() -> None:
    net = drawn(SmallNet())
    with torch.inference_mode():
        inference = drawn(SmallNet())
    for model in (Classifier(net), Classifier(inference)):
        model.check_weights()
        assert model.fingerprint == fingerprint(net)


# What it is made of


@pytest.mark.parametrize(
    ("module", "found"),
    [(SmallNet, "not of the class SmallNet"), (None, "not of NoneType"), ("resnet18", "not of str")],
    ids=["class", "None", "text"],
)
def test_a_classifier_is_made_of_a_module_or_a_function(module: object, found: str) -> None:
    with pytest.raises(ModelError, match=rf"made of a torch\.nn\.Module, or of a function .*{found}"):
        Classifier.__init__.__wrapped__(Classifier.__new__(Classifier), module)


# Black boxes

BLACK_BOXES = {
    "a function": lambda net: lambda x: net(x.double()),
    "numpy": lambda net: lambda x: net(torch.from_numpy(x.numpy()).double()).numpy(),
    "a partial": lambda net: partial(lambda factor, x: factor * net(x.double()), 1),
    "a tuple": lambda net: lambda x: (net(x.double()), None),
}


@pytest.mark.parametrize("box", BLACK_BOXES)
@pytest.mark.parametrize("method", ["rise", "occlusion"])
def test_a_function_is_explained_as_the_module_behind_it(method: str, box: str) -> None:
    net, x = drawn(SmallNet()).eval(), pictures()
    options = tiny_options(methods.facts(method))
    expected = attribute(net, x.float().double(), method, **options)
    for model in (BLACK_BOXES[box](net), Classifier(BLACK_BOXES[box](net))):
        answer = attribute(model, x, method, **options)
        assert relative(answer.values.double(), expected.values) <= 1e-5
        assert torch.equal(answer.target, expected.target)
        assert answer.passes == expected.passes


LOOK_INSIDE = [name for name in methods.names() if methods.facts(name).needs != "scores"]


@pytest.mark.parametrize("method", LOOK_INSIDE)
def test_a_method_that_looks_inside_refuses_a_function(method: str) -> None:
    net, calls = drawn(SmallNet()), []
    with pytest.raises(UnsupportedError, match=rf"^{re.escape(method)} needs .* take .* occlusion or rise"):
        attribute(lambda x: calls.append(x) or net(x.double()), pictures(), method)
    assert calls == []


def test_a_function_may_work_on_its_input() -> None:
    net, x = drawn(SmallNet()).eval(), pictures()
    before = x.clone()
    attribute(lambda t: net(t.mul_(2).double()), x, "occlusion")
    assert torch.equal(x, before)


def named(x: torch.Tensor) -> torch.Tensor:
    return x.mean((2, 3))


def test_a_black_box_is_known_by_the_name_of_its_function() -> None:
    first, second = Classifier(named), Classifier(lambda x: x.mean((2, 3)))
    assert first.name == "named"
    assert first.spec == f"python:{__name__}.named"
    assert first.fingerprint == Classifier(named).fingerprint != second.fingerprint
    assert Classifier(partial(named)).name == "partial"


def test_a_function_that_returns_no_logits_is_told_so() -> None:
    with pytest.raises(ModelError, match=r"returned \[2, 3, 16, 16\] where logits"):
        attribute(lambda x: x.numpy(), pictures(), "occlusion")
    with pytest.raises(ModelError, match="<lambda> cannot take an input of shape"):
        attribute(lambda x: x.reshape(7), pictures(), "occlusion")


def test_an_unknown_activation_or_precision_is_refused() -> None:
    with pytest.raises(ModelError, match="give 'softmax' or 'sigmoid'"):
        Classifier.__init__.__wrapped__(Classifier.__new__(Classifier), SmallNet(), activation="relu")
    model = Classifier(SmallNet())
    with pytest.raises(ModelError, match="give float32 or bfloat16 or float16"):
        type(model).precision.fset.__wrapped__(model, "int8")


def test_labels_are_texts_and_may_be_any_sequence() -> None:
    assert Classifier(SmallNet(), labels=("a", "b")).labels == ("a", "b")
    assert Classifier(SmallNet()).labels is None


def test_a_name_is_the_class_unless_it_is_given() -> None:
    assert Classifier(SmallNet()).name == "SmallNet"
    model = Classifier(SmallNet(), name="mine", labels=list("abcde"))
    assert repr(model).startswith("Classifier('mine', python:")
    assert "5 labels" in repr(model)


def test_the_input_is_what_the_preprocessing_states() -> None:
    assert Classifier(SmallNet(), Preprocess(resize=20, crop=16)).input == (3, 16, 16)
    assert Classifier(SmallNet()).input is None
    assert Classifier(SmallNet()).pixels is None


def test_the_module_behind_a_wrapper_is_used() -> None:
    net = SmallNet()
    for wrapped in (net, nn.DataParallel(net), torch.compile(net), torch.compile(nn.DataParallel(net))):
        assert Classifier(wrapped).module is net


def test_a_wrapped_model_gives_the_same_map() -> None:
    net, x = drawn(SmallNet()), pictures()
    expected = attribute(Classifier(net), x, "grad-cam").values
    assert torch.equal(attribute(Classifier(nn.DataParallel(net)), x, "grad-cam").values, expected)


def test_inputs_are_moved_to_the_type_of_the_model() -> None:
    assert Classifier(SmallNet().double()).like.dtype == torch.float64
    assert Classifier(nn.Flatten()).like.dtype == torch.float32
    x = pictures()
    expected = attribute(Classifier(SmallNetFloat()), x.float(), "gradient").values
    assert torch.equal(attribute(Classifier(SmallNetFloat()), x, "gradient").values, expected)


def SmallNetFloat() -> nn.Module:
    return drawn(SmallNet()).float()
