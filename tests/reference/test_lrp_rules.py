"""Each rule of LRP for linear operations against its formula, neuron by neuron.

Several small nets work side by side on parts of one input, and their outputs are added. What is explained is the
first output less the last: that of each net starts with its own values.
"""

from collections.abc import Callable
from functools import cache, partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import lrp_loops as loops
from lrp_loops import Array, Formula, array
from small_nets import Lambda, drawn, pictures, relative
from whence import attribute
from whence.methods.lrp import rules
from whence.methods.lrp.composites import Composite
from whence.methods.lrp.rules import Rule
from whence.models.classifier import Classifier
from whence.pictures.preprocess import Preprocess
from whence.results import Attribution

ZERO = loops.zero()
E = 1e-6  # the rules' own stabiliser: the formulas have it, too

RULES: dict[str, tuple[Rule, Formula]] = {
    "zero": (rules.zero(), ZERO),
    "epsilon": (rules.epsilon(0.1), loops.epsilon(0.1, "plain")),
    "epsilon-clip": (rules.epsilon(0.3, "clip"), loops.epsilon(0.3, "clip")),
    "epsilon-rms": (rules.epsilon(0.25, "rms"), loops.epsilon(0.25, "rms")),
    "gamma": (rules.gamma(0.25), loops.gamma(0.25, E)),
    "generalised-gamma": (rules.generalised_gamma(0.25), loops.generalised_gamma(0.25, E)),
    "generalised-gamma-10": (rules.generalised_gamma(10), loops.generalised_gamma(10, E)),
    "alpha2-beta1": (rules.alpha_beta(2, 1), loops.alpha_beta(2, 1, E)),
    "alpha1-beta0": (rules.alpha_beta(1, 0), loops.alpha_beta(1, 0, E)),
    "alpha1.5-beta0.5": (rules.alpha_beta(1.5, 0.5), loops.alpha_beta(1.5, 0.5, E)),
    "alpha2-beta1-fallback": (rules.alpha_beta(2, 1, fallback=True), loops.alpha_beta(2, 1, E, True)),
    "z-plus": (rules.z_plus(), loops.alpha_beta(1, 0, E)),
    "z-plus-fallback": (rules.z_plus(fallback=True), loops.alpha_beta(1, 0, E, True)),
    "w-square": (rules.w_square(), loops.w_square(E)),
    "flat": (rules.flat(), loops.flat(E)),
    "box": (rules.box(), loops.box(E)),
}
# These may give relevance to an input of 0, so that relevance itself is carried to them.
GIVING = ("w-square", "flat", "box")

OPERATIONS = {
    "dense": (lambda: nn.Linear(12, 6), (12,)),
    "convolution": (lambda: nn.Conv2d(4, 6, 3, 2, 1, groups=2), (4, 5, 4)),
    "dilated": (lambda: nn.Conv2d(3, 4, (3, 2), (1, 2), (2, 0), (2, 1), bias=False), (3, 4, 5)),
    "one axis": (lambda: nn.Conv1d(3, 4, 3, stride=2, padding=2, dilation=2), (3, 7)),
    "transposed": (lambda: nn.ConvTranspose2d(4, 6, 3, 2, 1, output_padding=1, groups=2), (4, 3, 2)),
    # Some outputs read no input at all.
    "with gaps": (lambda: nn.ConvTranspose2d(2, 3, 2, stride=3, output_padding=1), (2, 2, 2)),
}
SIGNS = ("all signs", "not negative")


class Branch(nn.Module):
    """An operation and a matrix behind it; an inner one has a matrix before it, and may be rectified."""

    def __init__(self, operation: str, signs: str, inner: bool) -> None:
        super().__init__()
        build, self.shape = OPERATIONS[operation]
        self.op, self.size, self.signs = build(), int(np.prod(self.shape)), signs
        self.before = nn.Linear(self.size, self.size) if inner else None
        self.head = nn.Linear(self.op(torch.zeros(1, *self.shape)).numel(), 3)

    def one_sided(self) -> None:
        """Make one feature's weights and bias negative, one's positive, and one's 0."""
        axis = 1 if getattr(self.op, "transposed", False) else 0
        for parameter in (self.op.weight, self.op.bias):
            if parameter is not None:
                rows = parameter.data.movedim(axis, 0) if parameter.ndim > 1 else parameter.data
                rows[0], rows[1], rows[2] = -rows[0].abs(), rows[1].abs(), 0

    def inner(self, x: Tensor) -> Tensor:
        if self.before is None:
            return x.reshape(len(x), *self.shape)
        h = self.before(x)
        return (h.relu() if self.signs == "not negative" else h).reshape(len(x), *self.shape)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.op(self.inner(x)).flatten(1))


class Net(nn.Module):
    """All operations side by side, each for inputs of all signs and for such that are not negative."""

    def __init__(self, inner: bool) -> None:
        super().__init__()
        self.branches = nn.ModuleDict(
            {f"{operation}, {signs}": Branch(operation, signs, inner) for operation in OPERATIONS for signs in SIGNS}
        )
        self.sizes = [branch.size for branch in self.branches.values()]
        generator = torch.Generator().manual_seed(3)
        for parameter in self.double().parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        for branch in self.branches.values():
            branch.one_sided()

    def forward(self, x: Tensor) -> Tensor:
        parts = x.flatten(1).split(self.sizes, 1)
        return sum(branch(part) for branch, part in zip(self.branches.values(), parts, strict=True))

    def pictures(self) -> Tensor:
        """Return two inputs, of which the parts that are not to be negative have zeros.

        They are such that no branch's score nearly cancels out, by which relevance would make much of rounding.
        """
        x = torch.randn(2, sum(self.sizes), generator=torch.Generator().manual_seed(13), dtype=torch.float64)
        parts = zip(x.split(self.sizes, 1), self.branches.values(), strict=True)
        return torch.cat([part if b.signs == "all signs" else part.clamp(min=0) for part, b in parts], 1)[
            :, :, None, None
        ]


net = cache(Net)


def of_branch(branch: Branch, x: Tensor, formula: Formula, head: Formula, bias: str) -> Array:
    """Return the relevance of a branch's input [B, N], by the formulas for its operation and its last matrix."""
    h = array(branch.inner(x))
    y = loops.values(branch.op, h)
    z = loops.values(branch.head, y)
    r = np.zeros_like(z)
    r[:, 0], r[:, 2] = z[:, 0], -z[:, 2]
    r = loops.relevance(branch.head, y, r, head, bias)
    r = loops.relevance(branch.op, h, r, formula, bias).reshape(len(x), -1)
    return r if branch.before is None else loops.relevance(branch.before, array(x), r, ZERO, bias)


def check(
    net: Net, composite: Composite, formula: Formula, head: Formula = ZERO, bias: str = "absorb"
) -> Attribution:
    """Compare every branch with the formulas."""
    x = net.pictures()
    answer = attribute(
        Classifier(net.eval()), x, "lrp", target=lambda z: z[:, 0] - z[:, 2], composite=composite, bias=bias
    )
    parts = zip(
        net.branches, x.flatten(1).split(net.sizes, 1), answer.values.flatten(1).split(net.sizes, 1), strict=True
    )
    differences = {}
    for name, part, r in parts:
        expected = of_branch(net.branches[name], part, formula, head, bias)
        assert expected.any()
        differences[name] = np.abs(r.numpy() - expected).max() / np.abs(expected).max()
    assert max(differences.values()) <= 1e-12, differences
    assert answer.values.min() < 0 < answer.values.max()
    assert answer.residual.max() <= 1e-12
    return answer


@pytest.mark.parametrize("rule", RULES)
def test_a_first_operation(rule: str) -> None:
    chosen, formula = RULES[rule]
    check(net(False), Composite("first", (("first", chosen),)), formula)


@pytest.mark.parametrize("rule", [name for name in RULES if name not in GIVING])
def test_an_inner_operation_where_relevance_by_value_is_carried(rule: str) -> None:
    chosen, formula = RULES[rule]
    composite = Composite("inner", (("*.op", chosen),))
    assert not composite.relevance_before_first
    check(net(True), composite, formula)


@pytest.mark.parametrize("rule", RULES)
def test_an_inner_operation_where_relevance_itself_is_carried(rule: str) -> None:
    """The w-square rule behind it gives relevance to outputs of 0, too."""
    chosen, formula = RULES[rule]
    composite = Composite("inner", (("*.op", chosen), ("*.head", rules.w_square())))
    assert composite.relevance_everywhere
    check(net(True), composite, formula, loops.w_square(E))


@pytest.mark.parametrize("bias", ["ignore", "distribute"])
@pytest.mark.parametrize(
    "rule", ["zero", "epsilon", "epsilon-rms", "generalised-gamma", "alpha2-beta1", "z-plus-fallback", "flat", "box"]
)
def test_the_share_of_biases(rule: str, bias: str) -> None:
    """Biases left out of all sums, or what they got dealt out evenly to the inputs that an output reads."""
    chosen, formula = RULES[rule]
    answer = check(net(True), Composite("inner", (("*.op", chosen),)), formula, bias=bias)
    if bias == "ignore":
        assert answer.balance.bias.abs().max() == 0


def test_the_box_is_that_of_black_and_white_where_the_model_states_its_preprocessing() -> None:
    mean, std = (0.5, 0.25, 0.75, 0.125), (0.5, 0.25, 0.125, 0.0625)
    op, head = net(False).branches["convolution, all signs"].op, net(False).branches["convolution, all signs"].head
    x = torch.rand(2, 4, 5, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    preprocess = Preprocess(channels=4, mean=mean, std=std)
    x = (x - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    model = Classifier(nn.Sequential(op, nn.Flatten(), head).eval(), preprocess=preprocess)
    answer = attribute(model, x, "lrp", target=1, composite=Composite("box", (("first", rules.box()),)))
    y = loops.values(op, array(x))
    r = y * array(head.weight)[1]
    low, high = (((np.array(p) - mean) / std)[:, None, None] for p in (0.0, 1.0))
    expected = loops.relevance(op, array(x), r, loops.box(E), bounds=(low, high))
    assert np.abs(answer.values.numpy() - expected).max() <= 1e-12 * np.abs(expected).max()


def test_an_output_with_contributions_of_one_sign_is_no_rounding() -> None:
    """In float32 what rounding leaves of the other sign's sum is far larger than the stabiliser, or nothing."""
    op, head = nn.Conv2d(1, 2, 2, bias=False), nn.Linear(18, 2)
    op.weight.data = torch.tensor([[[[1.0, 2], [3, 4]]], [[[1, -2], [3, 4]]]])
    head.weight.data = torch.linspace(-1, 1, 36).reshape(2, 18)
    model = Classifier(nn.Sequential(op, nn.Flatten(), head).eval())
    x = 64 * torch.rand(1, 1, 4, 4, generator=torch.Generator().manual_seed(0)) * torch.eye(4)
    answer = attribute(model, x, "lrp", composite=Composite("first", (("first", rules.alpha_beta(2, 1)),)), target=0)
    y = loops.values(op, array(x).astype(float))
    expected = loops.relevance(op, array(x), y * array(head.weight)[0], loops.alpha_beta(2, 1, E))
    assert np.abs(answer.values.numpy() - expected).max() <= 1e-5 * np.abs(expected).max()
    assert answer.residual.max() <= 1e-5


@pytest.mark.parametrize("rule", [name for name in RULES if name not in GIVING])
def test_a_rectifier_that_works_in_place_changes_nothing(rule: str) -> None:
    """Nor does one that is written as a statement."""
    rectifiers = nn.ReLU(), nn.ReLU(inplace=True), Lambda(lambda _, x: x.relu_())
    answers = []
    for rectifier in rectifiers:
        layers = nn.Conv2d(3, 4, 3), rectifier, nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4), rectifier
        net = drawn(nn.Sequential(*layers, nn.Flatten(), nn.Linear(64, 3)), shape=(3, 8, 8)).eval()
        composite = Composite("all", (("*", RULES[rule][0]),))
        answers.append(attribute(Classifier(net), pictures(2, size=8), "lrp", composite=composite))
    assert relative(answers[1].values, answers[0].values) <= 1e-13
    assert relative(answers[2].values, answers[0].values) <= 1e-13


def shifted(x: Tensor) -> Tensor:
    x[:, :2].sub_(3.0)
    return x


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x - 0.5,
        lambda x: x + (-0.5),
        lambda x: torch.add(x, x.clone(), alpha=-2),
        lambda x: F.avg_pool2d(x, 1).sub_(0.5),
        lambda x: shifted(F.avg_pool2d(x, 1)),
    ],
    ids=["less", "more", "difference", "in place", "through a view"],
)
def test_what_becomes_negative_again_is_seen(change: Callable[[Tensor], Tensor]) -> None:
    """By the rule for inputs of both signs, as where they are hidden behind an operation of unknown signs."""

    def forward(net: nn.Module, x: Tensor, hidden: bool) -> Tensor:
        h = change(net.first(x).relu())
        return net.head((net.op(h.neg().neg() if hidden else h)).flatten(1))

    answers = []
    for hidden in (False, True):
        layers = {"first": nn.Conv2d(3, 4, 3), "op": nn.Conv2d(4, 4, 3), "head": nn.Linear(64, 3)}
        net = drawn(Lambda(partial(forward, hidden=hidden), **layers), shape=(3, 8, 8)).eval()
        composite = Composite("z-plus", (("op", rules.z_plus()),))
        answers.append(attribute(Classifier(net), pictures(2, size=8), "lrp", composite=composite))
    assert relative(answers[1].values, answers[0].values) <= 1e-13
