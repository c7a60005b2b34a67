"""Operations that move values, put constants in some places, or take their arguments by name."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import whence
from small_nets import Lambda, drawn, pictures
from whence.methods.lrp import named

MASK = torch.zeros(16, 16, dtype=torch.bool)
MASK[:, :5] = True
OPTIONS = (
    {"composite": "lrp-0"},
    {"composite": "lrp-0", "bias": "distribute"},
    {"composite": "preset-b-flat-until-2"},
    {},
)


def pooled(t: Tensor) -> Tensor:
    return t.mean((2, 3))


def folded(net: nn.Module, x: Tensor) -> Tensor:
    return F.fold(F.unfold(net.a(x).relu(), 3, padding=1), (16, 16), 3, padding=1)


def unwritten(net: nn.Module, x: Tensor) -> Tensor:
    """Return a product of matrices to which memory of any contents is added no times."""
    a, b = net.a(x).flatten(2), net.b(x).flatten(2).transpose(1, 2)
    return torch.baddbmm(torch.full((len(x), 4, 4), torch.nan).to(x), a, b, beta=0)[:, :, None]


WAYS: dict[str, Callable[[nn.Module, Tensor], Tensor]] = {
    "fold": folded,
    "where": lambda net, x: torch.where(MASK, net.a(x).relu(), 3.0),
    "masked_fill": lambda net, x: net.a(x).relu().masked_fill(MASK, 3.0),
    "matmul by name": lambda net, x: torch.matmul(net.a(x), other=net.b(x)),
    "baddbmm without its summand": unwritten,
    "cat with constants": lambda net, x: torch.cat([net.a(x).relu(), torch.ones_like(x)[:, :1]], 1)[:, 1:],
    "instance norm with running statistics": lambda net, x: net.norm(net.a(x)),
}


def net_of(way: str) -> nn.Module:
    layers: dict[str, Any] = {
        "a": nn.Conv2d(3, 4, 3, padding=1),
        "b": nn.Conv2d(3, 4, 3, padding=1),
        "norm": nn.InstanceNorm2d(4, affine=True, track_running_stats=True),
        "head": nn.Linear(4, 5),
    }
    return drawn(Lambda(lambda net, x: net.head(pooled(WAYS[way](net, x))), **layers)).eval()


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("way", WAYS)
def test_all_is_accounted_for(way: str, options: dict[str, Any]) -> None:
    net, x = net_of(way), pictures()
    answer = whence.attribute(net, x, "lrp", **options)
    assert answer.residual.max() <= 1e-8
    assert torch.equal(answer.score, net(x).amax(1).detach())
    assert not any("without a rule" in note for notes in answer.notes for note in notes)


def test_a_batch_norm_on_another_axis_than_the_features_is_not_merged() -> None:
    layers = {
        "a": nn.Conv2d(3, 4, 4, 4),
        "mix": nn.Linear(4, 16),
        "norm": nn.BatchNorm1d(16),
        "head": nn.Linear(16, 5),
    }
    net = drawn(Lambda(lambda n, x: n.head(n.norm(n.mix(n.a(x).flatten(2).transpose(1, 2))).mean(1)), **layers))
    assert whence.attribute(net, pictures(), "lrp", composite="epsilon").residual.max() <= 1e-10


def test_a_layer_read_by_its_norm_and_by_others_is_seen_whole() -> None:
    layers = {"a": nn.Conv2d(3, 4, 3, bias=False), "norm": nn.BatchNorm2d(4), "head": nn.Linear(4, 5, bias=False)}

    def forward(net: nn.Module, x: Tensor) -> Tensor:
        h = net.a(x)
        return net.head(pooled(net.norm(h) + h))

    net = drawn(Lambda(forward, **layers))
    seen = whence.attribute(net, pictures(), "lrp", composite="lrp-0", layer="a")
    # With what the merged norm's bias takes of it.
    assert (seen.values.sum((1, 2, 3)) - seen.balance.start).abs().max() <= 1e-10 * seen.balance.start.abs().max()


def test_a_relevance_of_zero_takes_no_share_of_minus_infinity() -> None:
    forbidden = torch.zeros(16, 16, dtype=torch.float64).masked_fill(MASK, -torch.inf)

    def forward(net: nn.Module, x: Tensor) -> Tensor:
        q = net.a(x).flatten(2)[..., :16].transpose(1, 2)
        return net.head((((q @ q.transpose(1, 2)) + forbidden).softmax(-1) @ q).mean(1))

    net = drawn(Lambda(forward, a=nn.Conv2d(3, 4, 3), head=nn.Linear(4, 5)))
    assert whence.attribute(net, pictures(), "lrp", composite="attn-lrp").values.isfinite().all()


def test_clrp2_says_something_where_the_last_rule_sees_no_signs() -> None:
    net = drawn(Lambda(lambda n, x: n.head(pooled(n.a(x).relu())), a=nn.Conv2d(3, 4, 3), head=nn.Linear(4, 5)))
    for composite in ("cp-lrp", "epsilon", "epsilon-plus"):
        assert whence.attribute(net, pictures(), "lrp", composite=composite, start="clrp2").values.any()


def test_a_function_for_the_composite_may_return_a_name_and_nothing_else() -> None:
    net, x = net_of("where"), pictures()
    by_name = whence.attribute(net, x, "lrp", composite=lambda seen: "epsilon-plus")
    assert torch.allclose(by_name.values, whence.attribute(net, x, "lrp", composite="epsilon-plus").values)
    with pytest.raises(whence.errors.OptionError, match="let it return a Composite or a name"):
        whence.attribute(net, x, "lrp", composite=lambda seen: None)
    with pytest.raises(whence.errors.OptionError, match="after the forward pass"):
        whence.attribute(net, x, "lrp", composite=lambda seen: named.by_depth())


def test_channels_to_keep_may_come_from_torch() -> None:
    net, x = net_of("where"), pictures()
    kept = whence.attribute(net, x, "lrp", keep={"a": torch.tensor([0, 2])})
    assert torch.equal(kept.values, whence.attribute(net, x, "lrp", keep={"a": [0, 2]}).values)
