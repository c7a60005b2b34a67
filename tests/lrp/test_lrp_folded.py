"""Batch norms folded before the forward pass give what merging them on the way gives."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from lrp_nets import KINDS, lrp, net_of, stirred
from torch import Tensor, nn

from small_nets import pictures, relative
from whence.methods.lrp import Composite, operations, rules
from whence.methods.lrp.operations import Handler
from whence.methods.lrp.propagation import Propagation
from whence.methods.lrp.rules import Rule
from whence.models import running
from whence.models.classifier import Classifier
from whence.models.folding import Folding
from whence.results import Attribution

FORMS = ["preset-b-flat-until-2", "epsilon-alpha2-beta1", "epsilon-gamma-box"]
# How many norms of each net are folded; the others stand alone, or a convolution has other readers.
FOLDED = {
    "residual": 2,
    "in_place": 2,
    "depthwise": 3,
    "squeeze_excitation": 1,
    "concatenation": 1,
    "normalise": 2,
    "functional": 1,
    "twice": 1,
}


def both(kind: str, monkeypatch: pytest.MonkeyPatch, **options: object) -> tuple[Attribution, Attribution, int]:
    """Return the answers with and without folding, and how many norms were folded."""
    model = Classifier(net_of(kind))
    folded = lrp(model, pictures(3), **options)
    count = sum(len(folding.pairs) for folding in model.foldings.values())
    monkeypatch.setattr(running, "folding_of", lambda module, x, run, others: Folding({}, x))
    return folded, lrp(net_of(kind), pictures(3), **options), count


def assert_same(folded: Attribution, merged: Attribution) -> None:
    """See that values and balance are the same to rounding."""
    assert relative(folded.values, merged.values) <= 1e-10
    scale = merged.values.abs().sum()
    for name in ("start", "input", "bias", "constants", "stabiliser"):
        assert (getattr(folded.balance, name) - getattr(merged.balance, name)).abs().max() <= 1e-10 * scale, name
    assert folded.notes == merged.notes


@pytest.mark.parametrize("bias", ["absorb", "ignore", "distribute"])
@pytest.mark.parametrize("kind", KINDS)
def test_folded_norms_are_merged_norms(kind: str, bias: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for composite in FORMS:
        with monkeypatch.context() as patch:
            folded, merged, count = both(kind, patch, composite=composite, bias=bias)
        assert_same(folded, merged)
        assert count == FOLDED.get(kind, 0)


@pytest.mark.parametrize(
    ("where", "rule"), [("block.*", rules.gamma(0.5)), (nn.Conv2d, rules.w_square()), ("stem.0", rules.flat())]
)
def test_a_folded_convolution_keeps_its_name_and_its_module(
    where: str | type[nn.Module], rule: Rule, monkeypatch: pytest.MonkeyPatch
) -> None:
    composite = Composite("here", ((where, rule),))
    folded, merged, count = both("residual", monkeypatch, composite=composite)
    assert_same(folded, merged)
    assert count == 2
    plain = lrp(net_of("residual"), pictures(3), composite="lrp-0")
    assert relative(folded.values, plain.values) > 1e-3


@pytest.mark.parametrize(
    "options",
    [{"layer": "stem.0"}, {"layer": "all"}, {"composite": Composite("own", (("batch-norm", "affine"),))}],
    ids=["layer", "all", "affine"],
)
def test_who_looks_at_layers_or_at_norms_gets_what_is_theirs(options: dict[str, object]) -> None:
    model = Classifier(net_of("residual"))
    lrp(model, pictures(), **options)
    assert not model.foldings


@pytest.mark.parametrize("function", [torch.conv2d, torch.batch_norm, F.batch_norm])
def test_a_handler_of_one_s_own_sees_the_model_as_it_is(function: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def run(run: Propagation, function: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        seen.append(args[0])
        return x.flatten(1)[:, :1, None, None] * function(x, *args, **kwargs).detach()

    model = Classifier(net_of("residual"))
    monkeypatch.setitem(operations._TABLE, function, Handler(run))
    lrp(model, pictures())
    assert not model.foldings
    own = {id(t) for t in model.module.state_dict(keep_vars=True).values()}
    assert seen
    assert all(id(t) in own for t in seen)


def test_clamps_in_place_are_seen() -> None:
    """The folding has clamps of its own, which nobody could see into."""
    net = nn.Sequential(
        *(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU6(inplace=True)),
        *(nn.Conv2d(4, 5, 3), nn.Hardtanh(0, 2, inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
    )
    model = Classifier(stirred(net))
    for composite in ("epsilon-plus", *FORMS):
        assert lrp(model, pictures(), composite=composite, strict=True).residual.max() <= 1e-9
    assert [len(folding.pairs) for folding in model.foldings.values()] == [1]
