"""What an answer says of its pictures, for every method: the model's logits, with which score and class agree."""

from typing import Any

import pytest
import torch
from torch import Tensor

from small_nets import SmallNet, drawn, net_for, pictures, relative, tiny_options
from whence import attribute, methods
from whence.attribution import attribute_all
from whence.models import session
from whence.models.classifier import Classifier
from whence.models.targets import score
from whence.registry import COMBINATORS
from whence.results import Attribution

METHODS = methods.names()
# CAM explains nothing that is no weighed sum of pooled maps.
ANY_TARGET = [name for name in METHODS if name != "cam"]
TARGETS = [None, 1, "second", "0 - 3", "probability:2", "log-probability:top", "log-odds:2"]
LABELS = ("0", "1", "2", "3", "4")


def explained(method: str, model: Classifier, x: Tensor, target: Any = None, **options: Any) -> Attribution:
    return attribute(model, x, method, target=target, **{**tiny_options(methods.facts(method)), **options})


def agrees(answer: Attribution, model: Classifier, x: Tensor, targets: list[Any]) -> None:
    """Assert that the logits are those of the whole pictures, and that score and class are read from them."""
    assert answer.logits is not None
    whole = model.module(x).detach()
    assert not answer.logits.requires_grad
    assert answer.logits.shape == whole.shape
    assert relative(answer.logits, whole) <= 1e-10
    for row, target in enumerate(targets):
        own = score(answer.logits[row : row + 1], lambda output: output, target, model.scale)
        assert int(own.index) == int(answer.target[row])
        torch.testing.assert_close(own.value[0], answer.score[row].double(), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("method", METHODS)
def test_the_logits_are_those_of_the_whole_pictures(method: str) -> None:
    model, x = Classifier(net_for(method), labels=LABELS), pictures(3)
    agrees(explained(method, model, x), model, x, [None] * 3)


@pytest.mark.parametrize("method", ANY_TARGET)
def test_the_logits_are_the_same_for_targets_of_every_kind(method: str) -> None:
    model = Classifier(net_for(method), labels=LABELS)
    x = pictures(len(TARGETS))
    agrees(explained(method, model, x, TARGETS), model, x, TARGETS)


@pytest.mark.parametrize("target", TARGETS)
def test_the_logits_are_the_same_for_one_target_of_all_pictures(target: Any) -> None:
    model, x = Classifier(net_for("gradient"), labels=LABELS), pictures(3)
    agrees(explained("gradient", model, x, target), model, x, [target] * 3)


@pytest.mark.parametrize("method", METHODS)
def test_pieces_of_a_batch_have_the_logits_of_their_own_pictures(
    method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, x = Classifier(net_for(method), labels=LABELS), pictures(3)
    monkeypatch.setattr(session, "_CHUNK_VALUES", 2 * x[0].numel())
    answer = explained(method, model, x)
    agrees(answer, model, x, [None] * 3)
    agrees(answer.picture(2), model, x[2:], [None])
    agrees(answer.cpu(), model, x, [None] * 3)


@pytest.mark.parametrize("combinator", COMBINATORS.names())
def test_combined_methods_tell_the_logits_of_the_unchanged_pictures(combinator: str) -> None:
    targets = [None, "second", "log-odds:2"]
    model, x = Classifier(drawn(SmallNet()), labels=LABELS), pictures(3)
    inner = "integrated-gradients" if COMBINATORS.facts(combinator).sets else "grad-cam"
    options = {"baselines": ("zeros", "blurred"), "steps": 3} if inner != "grad-cam" else {}
    for name in (f"{combinator}.{inner}", f"flips.{combinator}.{inner}"):
        agrees(attribute(model, x, name, target=targets, **options), model, x, targets)


@pytest.mark.parametrize("method", ANY_TARGET)
def test_a_function_of_the_output_leaves_no_logits(method: str) -> None:
    answer = explained(method, Classifier(net_for(method)), pictures(), lambda output: output[:, 1])
    assert answer.logits is None
    assert answer.target.tolist() == [-1, -1]
    assert answer.picture(1).logits is None


def test_beside_a_function_the_other_targets_keep_their_logits():
    model, x = Classifier(net_for("gradient")), pictures()
    answer = explained("gradient", model, x, [lambda output: output[:, 1], 2])
    assert answer.logits is not None
    assert relative(answer.logits, model.module(x).detach()) <= 1e-12
    assert answer.target.tolist() == [-1, 2]


def test_several_targets_that_share_a_pass_have_the_same_logits():
    model, x = Classifier(net_for("grad-cam"), labels=LABELS), pictures()
    wanted = [None, "probability:1"]
    for target, answer in zip(wanted, attribute_all(model, x, "grad-cam", wanted, {}), strict=True):
        agrees(answer, model, x, [target] * 2)


def test_logits_are_those_of_a_model_that_returns_a_table():
    net, x = net_for("gradient"), pictures()

    class Table(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def forward(self, x: Tensor) -> dict[str, Tensor]:
            return {"features": x, "logits": self.net(x)}

    answer = attribute(Classifier(Table()), x, "gradient")
    assert answer.logits is not None
    assert torch.equal(answer.logits, net(x).detach())
