"""I-GOS, I-GOS+ and I-GOS++: the repository's formulas and the papers', written out as loops, in float64."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import whence
from small_nets import SmallNet, classifier, drawn, pictures, relative
from whence.pictures.baselines import make_baseline

SIDE, STEPS, ITERATIONS, SEED = 5, 3, 4, 3
L1, TV = 0.05, 0.5
NAMES = ("igos", "igos+", "igos++")


@pytest.fixture(scope="module")
def net():
    net = drawn(SmallNet())
    with torch.no_grad():
        net.head.weight *= 10  # so that masks change the probability by much
    return net


@pytest.fixture(scope="module")
def x() -> Tensor:
    return pictures(2)


def up(mask: Tensor, x: Tensor, aligned: bool) -> Tensor:
    return F.interpolate(mask[None, None], size=x.shape[1:], mode="bilinear", align_corners=aligned)[0]


class Loops:
    """One picture's objective and search, one picture, term and point of the path at a time."""

    def __init__(self, net, x: Tensor, name: str, reference: bool, unit: float = 1.0) -> None:
        self.net, self.x, self.name, self.reference = net, x, name, reference
        self.base = make_baseline("blurred", x[None], None)[0, 0]
        with torch.no_grad():
            self.label = int(net(x[None]).argmax())
        self.generator = torch.Generator().manual_seed(SEED)
        self.sigma = 0.2 if reference else 0.2 * 0.225 * unit
        self.noise: list[Tensor] = []
        self.evaluated = 0

    def draw(self) -> Tensor:
        return torch.randn(STEPS, *self.x.shape, generator=self.generator, dtype=self.x.dtype)

    def p(self, picture: Tensor) -> Tensor:
        return self.net(picture[None]).softmax(1)[0, self.label]

    def path(self, start: Tensor, other: Tensor, masks: list[Tensor], noise: Tensor | None, end: bool) -> Tensor:
        """P(A, B, M) = 1/S sum_k p(A k/S M + B (1 - k/S M) + noise), from B to the masked A."""
        whole = torch.stack([up(mask, self.x, self.reference) for mask in masks]).prod(0)
        total = torch.zeros((), dtype=self.x.dtype)
        points = [STEPS] if end else range(1, STEPS + 1)
        for number, k in enumerate(points):
            part = k / STEPS * whole
            blend = start * part + other * (1 - part)
            total = total + self.p(blend if noise is None else blend + self.sigma * noise[number])
        return total / len(points)

    def smooth(self, mask: Tensor) -> Tensor:
        tv = mask.diff(dim=0).pow(2).mean() + mask.diff(dim=1).pow(2).mean()
        if self.name == "igos":
            return tv
        whole, picture = up(mask, self.x, self.reference)[0], self.x
        unit = 1.0 if self.reference else 0.225**2
        across = picture.diff(dim=2)
        w_v = torch.exp(-(picture.diff(dim=1).mean(0) ** 2) / (0.01 * unit))
        if self.reference:
            w_h = torch.exp(-(across**2) / 0.01).mean(0)
        else:
            w_h = torch.exp(-(across.mean(0) ** 2) / (0.01 * unit))
        edges = (w_v * whole.diff(dim=0) ** 2).mean() + (w_h * whole.diff(dim=1) ** 2).mean()
        return (tv + edges) / 2

    def penalty(self, masks: Tensor) -> Tensor:
        joint = masks.prod(0)
        missing = (1 - joint).abs() if self.reference else 1 - joint
        return L1 * missing.mean() + TV * self.smooth(joint)

    def terms(self, masks: Tensor) -> list[tuple[int, Tensor, Tensor, list[Tensor]]]:
        """(sign, A, B, masks) of P(A, B, M); where it inserts, the mask keeps the base picture."""
        x, base = self.x, self.base
        if self.name == "igos":
            return [(1, x, base, [masks[0]])]
        if self.name == "igos+":
            return [(1, x, base, [masks[0]]), (-1, base, x, [masks[0]])]
        both = [masks[0], masks[1]]
        return [(1, x, base, [masks[0]]), (-1, base, x, [masks[1]]), (1, x, base, both), (-1, base, x, both)]

    def draws(self, order: range | list[int], new: bool = True) -> list[Tensor]:
        if self.reference:
            found = {term: self.draw() for term in order}
            return [found[term] for term in range(len(found))]
        if new:
            # As whence draws it: one draw a step, in float32, for all terms.
            one = torch.randn(1, STEPS, *self.x.shape, generator=self.generator)[0].to(self.x)
            self.noise = [one] * len(order)
        return self.noise

    def value(self, masks: Tensor, end: bool) -> Tensor:
        terms = self.terms(masks)
        noise = [None] * len(terms) if end else self.draws(range(len(terms)), new=False)
        scores = sum(s * self.path(a, b, m, n, end) for (s, a, b, m), n in zip(terms, noise, strict=True))
        self.evaluated += 1
        return (scores + self.penalty(masks)).detach()

    def direction(self, masks: Tensor, plain: bool) -> Tensor:
        leaf = masks.detach().clone().requires_grad_()
        terms = self.terms(leaf)
        noise = self.draws([2, 3, 0, 1] if len(terms) == 4 else range(len(terms)))
        half = 0.5 if self.reference and len(terms) == 4 else 1.0
        scores = sum(s * half * self.path(a, b, m, n, plain) for (s, a, b, m), n in zip(terms, noise, strict=True))
        (g,) = torch.autograd.grad(scores + self.penalty(leaf), leaf)
        return g

    def run(self, search: str, rate: float, plain: bool = False) -> Tensor:
        count = 2 if self.name == "igos++" else 1
        m = torch.ones(count, SIDE, SIDE, dtype=self.x.dtype)
        previous = torch.zeros_like(m)
        for t in range(ITERATIONS):
            g = self.direction(m, plain)
            if search == "nag":
                ahead = m - rate * g
                m = (ahead + t / (t + 3) * (ahead - previous)).clamp(0, 1)
                previous = ahead
                continue
            before, alpha = self.value(m, search == "point"), rate
            while True:
                candidate = (m - alpha * g).clamp(0, 1)
                if self.value(candidate, search == "point") <= before - 1e-4 * alpha * (g**2).sum():
                    m = candidate
                    break
                alpha *= 0.2
                if alpha < 1e-5:
                    m = candidate if self.reference else m
                    break
        return 1 - m.prod(0)


@pytest.mark.parametrize("name", NAMES)
def test_the_repository_s_formulas(name, net, x):
    found = whence.attribute(
        classifier(net), x, name, variant="igos-pp", mask=SIDE, steps=STEPS, iterations=ITERATIONS, seed=SEED,
        l1=L1, tv=TV,
    )  # fmt: skip
    for row in range(len(x)):
        expected = Loops(net, x[row], name, True).run("path", 1000)
        assert (found.values[row, 0] - expected).abs().max() < 1e-9
    assert found.values.std() > 1e-4


@pytest.mark.parametrize("direction", ["integrated", "gradient"])
@pytest.mark.parametrize(("search", "rate"), [("path", 1000), ("point", 1000), ("nag", 0.5)])
@pytest.mark.parametrize("name", NAMES)
def test_the_papers_formulas(name, search, rate, direction, net, x):
    if search == "nag" and direction == "gradient":
        pytest.skip("the same code")
    found = whence.attribute(
        classifier(net), x, name, variant="paper", mask=SIDE, steps=STEPS, iterations=ITERATIONS, seed=SEED,
        search=search, rate=rate, direction=direction, l1=L1, tv=TV,
    )  # fmt: skip
    for row in range(len(x)):
        expected = Loops(net, x[row], name, False).run(search, rate, direction == "gradient")
        assert (found.values[row, 0] - expected).abs().max() < 1e-9
    assert found.values.std() > 1e-4


def test_parts_are_the_masks_and_their_product(net, x):
    for variant in ("paper", "igos-pp"):
        found = whence.attribute(classifier(net), x, "igos++", variant=variant, mask=SIDE, iterations=3, l1=L1, tv=TV)
        deletion, insertion = 1 - found.parts["deletion"], 1 - found.parts["insertion"]
        assert relative(1 - deletion * insertion, found.parts["combined"]) < 1e-12
        assert torch.equal(found.values, found.parts["combined"])
    area = whence.attribute(classifier(net), x, "igos++", mask=SIDE, iterations=2)
    assert relative(area.parts["deletion"] + area.parts["insertion"], area.values) < 1e-12
