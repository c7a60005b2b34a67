"""With which relevance the pass back starts: every start against its formula, written out on a net of two layers."""

from collections.abc import Callable, Sequence
from typing import get_args

import pytest
import torch
from lrp_nets import net_of
from torch import Tensor, nn

from small_nets import Lambda, pictures, relative
from whence import attribute
from whence.attribution import attribute_all
from whence.errors import OptionError, UnsupportedError
from whence.methods.lrp import named
from whence.methods.lrp.composites import Composite
from whence.methods.lrp.start import Start
from whence.models.classifier import Classifier
from whence.results import Attribution

TOLERANCE = 1e-10
EPSILON = 0.01
CLASSES = 4
CONTRASTING = [start for start in get_args(Start) if start != "one-hot"]
COMPOSITES = {"epsilon": named.epsilon_everywhere(EPSILON), "z+": named.excitation_backprop(EPSILON)}


class Two(nn.Module):
    """Two linear layers and a rectifier.

    Class 3 sets two hidden units against each other that see the two upper pixels. These are alike in all pictures,
    so that its logit is exactly 0, of contributions that are not zero.
    """

    def __init__(self) -> None:
        super().__init__()
        self.first, self.head = nn.Linear(12, 7).double(), nn.Linear(7, CLASSES).double()
        generator = torch.Generator().manual_seed(3)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator))
            self.first.weight[0] = (8 * self.first.weight[0]).round() / 8
            self.first.weight[1] = self.first.weight[0].reshape(3, 2, 2).flip(2).flatten()
            self.first.weight[:2].reshape(2, 3, 2, 2)[:, :, 1] = 0
            self.first.bias[:2] = 3.0
            self.head.weight[3], self.head.bias[3] = torch.tensor([1.0, -1.0, 0, 0, 0, 0, 0]), 0.0

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.first(x.flatten(1)).relu())


NET, X = Two().requires_grad_(False), (8 * pictures(3, size=2, seed=5)).round() / 8
X[:, :, 0, 1] = X[:, :, 0, 0]
Z = NET(X)


def test_the_net_has_logits_of_each_sign_and_of_zero() -> None:
    assert (Z[:, 3] == 0).all()
    assert (NET.first(X.flatten(1))[:, 0] > 0.1).all()
    assert (Z[:, :3] > 0).any()
    assert (Z[:, :3] < 0).any()


def dealt(
    a: Tensor, layer: nn.Linear, relevance: Sequence[float], rule: str, sign: Sequence[int] = ()
) -> list[float]:
    """Return what a layer's inputs get, neuron by neuron; those of sign -1 have their weights and bias negated."""
    got = [0.0] * len(a)
    epsilon = 1e-6 if rule == "z+ in the place of epsilon" else EPSILON
    for k, r in enumerate(relevance):
        s = sign[k] if sign else 1
        terms = [s * float(a[j] * layer.weight[k, j]) for j in range(len(a))]
        bias = s * float(layer.bias[k])
        if rule != "epsilon":
            terms, bias = [max(term, 0.0) for term in terms], max(bias, 0.0)
        z = sum(terms) + bias
        for j, term in enumerate(terms):
            got[j] += term / (z + (epsilon if z >= 0 else -epsilon)) * r
    return got


def handed_back(relevance: Tensor, rule: str, last: str = "", negated: Sequence[int] | None = None) -> Tensor:
    """Return the map of each picture for relevance [B, K] of the logits, ``negated`` holding one class a picture."""
    maps = []
    for i, x in enumerate(X.flatten(1)):
        hidden = NET.first(x).relu()
        sign = [] if negated is None else [-1 if k == negated[i] else 1 for k in range(CLASSES)]
        inner = dealt(hidden, NET.head, relevance[i].tolist(), last or rule, sign)
        maps.append(torch.tensor(dealt(x, NET.first, inner, rule), dtype=torch.float64))
    return torch.stack(maps).reshape(X.shape)


def by_formula(start: str, rule: str, targets: Sequence[int]) -> Tensor:
    """Return the map of a start that sets a class against the others."""
    t = torch.tensor(targets)[:, None]
    own = torch.zeros_like(Z).scatter(1, t, 1.0)
    p = Z.softmax(1)
    p_t, z_t = p.gather(1, t), Z.gather(1, t)

    def sums(r: Tensor) -> Tensor:
        return r.sum((1, 2, 3), keepdim=True)

    if start == "sglrp":
        return handed_back(torch.where(own == 1, p_t * (1 - p_t), -p_t * p), rule)
    if start == "sglrp-two-pass":
        mine, dual = handed_back(own * p_t * (1 - p_t), rule), handed_back((1 - own) * p_t * p, rule)
        return mine - dual * sums(mine) / sums(dual)
    if start == "clrp1":
        mine, dual = handed_back(own * z_t, rule), handed_back((1 - own) * z_t / (CLASSES - 1), rule)
        return (mine - dual).clamp(min=0)
    if start == "clrp1-code":
        mine, dual = handed_back(own * z_t, rule), handed_back((1 - own) * Z.abs(), rule)
        # A map of zeros stays one.
        return ((mine / sums(mine)).nan_to_num() - (dual / sums(dual)).nan_to_num()).clamp(min=0)
    last = "z+ in the place of epsilon" if rule == "epsilon" else rule
    return (handed_back(own * z_t, rule, last) - handed_back(own * z_t, rule, last, targets)).clamp(min=0)


def explain(target: object, net: nn.Module = NET, **options: object) -> Attribution:
    return attribute(Classifier(net), X, "lrp", target=target, **options)


@pytest.mark.parametrize("targets", [[0, 1, 2], [2, 0, 0], [1, 1, 1]])
@pytest.mark.parametrize("rule", COMPOSITES)
@pytest.mark.parametrize("start", CONTRASTING)
def test_a_start_is_its_formula(start: str, rule: str, targets: list[int]) -> None:
    found = explain(targets, composite=COMPOSITES[rule], start=start)
    assert relative(found.values, by_formula(start, rule, targets)) <= TOLERANCE
    b = found.balance
    got = b.input + b.bias + b.stabiliser + sum(b.other.values(), torch.zeros(3).double())
    scale = torch.stack([b.start, b.input, b.bias, b.stabiliser]).abs().amax(0).clamp(min=1e-3)
    assert ((b.start - got).abs() <= TOLERANCE * scale).all()


@pytest.mark.parametrize("start", CONTRASTING)
def test_a_logit_of_zero_can_be_the_target(start: str) -> None:
    """For the starts that hand back z_t there is nothing then; SGLRP hands back from a logit of zero, too."""
    found = explain(3, composite=COMPOSITES["epsilon"], start=start)
    if start in ("sglrp", "sglrp-two-pass"):
        assert relative(found.values, by_formula(start, "epsilon", [3, 3, 3])) <= TOLERANCE
        assert (found.values != 0).any()
    elif start != "clrp1-code":
        assert (found.values == 0).all()
        assert all(any("no evidence" in note for note in notes) for notes in found.notes)


def test_what_comes_through_a_logit_of_zero_is_in_the_map() -> None:
    """Its share is R / epsilon times contributions that cancel out: a form R / value alone would lose it."""
    found = explain(0, composite=COMPOSITES["epsilon"], start="sglrp").values
    p = Z.softmax(1)
    without = torch.where(torch.arange(CLASSES) == 3, 0, -p[:, :1] * p)
    without[:, 0] = p[:, 0] * (1 - p[:, 0])
    assert relative(handed_back(without, "epsilon"), found) > 0.01


@pytest.mark.parametrize("rule", COMPOSITES)
@pytest.mark.parametrize("target", range(3))
def test_one_hot_hands_back_the_logit(rule: str, target: int) -> None:
    found = explain(target, composite=COMPOSITES[rule])
    r = torch.zeros_like(Z)
    r[:, target] = Z[:, target]
    assert relative(found.values, handed_back(r, rule)) <= TOLERANCE
    torch.testing.assert_close(found.balance.start, Z[:, target], rtol=1e-14, atol=0)


def contrast(z: Tensor) -> Tensor:
    return z[:, 1] - z[:, 2]


def probability(z: Tensor) -> Tensor:
    return z.exp()[:, 1] / z.exp().sum(1)


def log_probability(z: Tensor) -> Tensor:
    return probability(z).log()


def log_odds(z: Tensor) -> Tensor:
    return z[:, 1] - z[:, [0, 2, 3]].exp().sum(1).log()


def squares(z: Tensor) -> Tensor:
    return z.square().sum(1)


@pytest.mark.parametrize(
    ("target", "score"),
    [
        ("1 - 2", contrast),
        ("probability:1", probability),
        ("log-probability:1", log_probability),
        ("log-odds:1", log_odds),
        (squares, squares),
    ],
    ids=lambda value: value if isinstance(value, str) else value.__name__,
)
@pytest.mark.parametrize("rule", COMPOSITES)
def test_other_targets_hand_back_each_logit_times_the_score_s_derivative(
    rule: str, target: object, score: Callable[[Tensor], Tensor]
) -> None:
    leaf = Z.clone().requires_grad_()
    (g,) = torch.autograd.grad(score(leaf).sum(), leaf)
    found = explain(target, composite=COMPOSITES[rule])
    assert relative(found.values, handed_back(Z * g, rule)) <= TOLERANCE
    torch.testing.assert_close(found.score, score(Z), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found.balance.start, (Z * g).sum(1), rtol=1e-10, atol=1e-12)


def test_the_start_of_log_odds_is_the_logit_less_the_others_weighed_by_their_softmax() -> None:
    others = Z[:, [0, 2, 3]]
    expected = Z[:, 1] - (others.softmax(1) * others).sum(1)
    torch.testing.assert_close(explain("log-odds:1").balance.start, expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("start", CONTRASTING)
def test_the_relevance_at_the_last_layer_is_what_was_started_with(start: str) -> None:
    found = explain([0, 1, 2], composite=COMPOSITES["z+"], start=start, layer="head")
    if start == "sglrp":
        p, rows = Z.softmax(1), torch.arange(3)
        expected = -p[rows, rows, None] * p
        expected[rows, rows] += p[rows, rows]
        assert relative(found.values, expected) <= 1e-14
    if start not in ("clrp1", "clrp1-code", "clrp2"):
        torch.testing.assert_close(found.balance.layers["head"], found.balance.start, rtol=1e-12, atol=1e-15)
    torch.testing.assert_close(found.balance.layers["head"], found.values.sum(1), rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("start", get_args(Start))
def test_several_targets_share_one_forward_pass(start: str) -> None:
    model, options = Classifier(NET), {"composite": COMPOSITES["z+"], "start": start}
    answers = attribute_all(model, X, "lrp", [0, 1, [2, 1, 0]], options)
    assert [answer.passes.forward for answer in answers] == [3, 0, 0]
    assert all(answer.passes.backward >= 3 for answer in answers)
    for answer, target in zip(answers, ([0] * 3, [1] * 3, [2, 1, 0]), strict=True):
        alone = explain(target, **options)
        assert torch.equal(answer.values, alone.values)
        assert torch.equal(answer.balance.start, alone.balance.start)
        assert alone.passes.forward == 3


@pytest.mark.parametrize("start", CONTRASTING)
def test_what_stands_behind_the_last_linear_layer_hands_the_start_on(start: str) -> None:
    behind = Lambda(lambda net, x: net.two(x) * 2 / 2, two=NET)
    options: dict[str, object] = {"composite": Composite("z+", (("linear", COMPOSITES["z+"].entries[0][1]),))}
    if start == "clrp2":
        with pytest.raises(UnsupportedError, match=r"start=clrp2 negates weights of the last linear layer.*clrp1"):
            explain(0, behind, start=start, **options)
        return
    direct, through = explain(1, start=start, **options), explain(1, behind, start=start, **options)
    # A logit of zero has no R / value that could be carried on: what it was to get is nobody's, and shows.
    assert direct.residual.max() <= TOLERANCE
    assert (through.residual > 1e-6).all() == (start != "clrp1-code")
    if start == "clrp1-code":
        assert relative(through.values, direct.values) <= TOLERANCE


@pytest.mark.parametrize("start", CONTRASTING)
@pytest.mark.parametrize("target", ["0 - 1", "probability:1", "log-odds:1", lambda z: z[:, 0], [0, 1, "0 - 2"]])
def test_a_start_for_a_class_refuses_what_is_none(start: str, target: object) -> None:
    with pytest.raises(OptionError, match=f"start={start} starts at a class: give a class as the target"):
        explain(target, start=start)


@pytest.mark.parametrize("start", CONTRASTING)
@pytest.mark.parametrize("classes", [1, 5])
def test_a_start_against_the_others_refuses_a_model_without_others(start: str, classes: int) -> None:
    net = Lambda(lambda net, x: net.two(x)[:, :classes], two=net_of("residual"))
    model = Classifier(net, activation="sigmoid")
    with pytest.raises(OptionError, match=f"start={start} sets a class against the others"):
        attribute(model, pictures(), "lrp", target=0, start=start)
    assert attribute(model, pictures(), "lrp", target=0).residual.max() <= TOLERANCE


def test_an_unknown_start_is_refused_with_those_there_are() -> None:
    with pytest.raises(OptionError, match="sglrp-two-pass"):
        explain(0, start="softmax")
