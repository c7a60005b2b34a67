"""The published search for sufficient sets: its loop written out on masks, every set evaluated each time anew."""

from collections.abc import Callable, Sequence
from itertools import product

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from small_nets import Lambda, SmallNet, classifier, drawn, pictures, relative
from whence.graphs.graph import Verdict
from whence.graphs.patches import PatchGrid, bits
from whence.methods.sag import reference
from whence.methods.sag.oracle import Asking, Memo
from whence.models.session import opened
from whence.models.targets import Fixed
from whence.pictures.baselines import make_baseline

# Masks are as in the paper's code: 0 where a patch is shown, 1 where it is taken away.
Mask = np.ndarray
Probability = Callable[[Mask], float]
KINDS = ("smooth", "tangled", "coarse")
LABELS = [2, 1]


def toy(side: int, kind: str, seed: int) -> tuple[Probability, np.ndarray]:
    """Return a probability of masks, and a guide most of which is exactly 1.

    Some concepts of a few patches each make the class, the more of one is shown the better; every patch adds a
    little. ``tangled``: some patches do harm. ``coarse``: many sets have the same probability.
    """
    draw = np.random.default_rng(seed)
    patches = side**2
    concepts = [draw.choice(patches, draw.integers(1, 5), replace=False) for _ in range(draw.integers(2, 7))]
    strengths = draw.uniform(0.8, 0.95, len(concepts))
    little, harm = draw.uniform(0, 0.05 / patches, patches), draw.choice(patches, 2, replace=False)

    def p(mask: Mask) -> float:
        shown = 1 - mask.ravel()
        value = max(s * shown[c].mean() for s, c in zip(strengths, concepts, strict=True)) + little @ shown
        if kind == "tangled":
            value *= 1 - 0.15 * shown[harm].sum()
        return float(np.round(value, 1) if kind == "coarse" else value)

    guide = np.where(draw.random(patches) < 0.6, 1, np.round(draw.random(patches), 1)).astype(np.float32)
    return p, guide.reshape(side, side)


class Plain:
    """The algorithm as published, one mask at a time; ``seen`` lists the masks evaluated, repetitions included."""

    def __init__(self, p: Probability, guide: np.ndarray) -> None:
        self.p, self.guide, self.side = p, guide, len(guide)
        self.full = p(np.zeros((self.side, self.side)))
        self.seen: list[int] = []

    def value(self, mask: Mask) -> float:
        self.seen.append(number(mask))
        return self.p(mask)

    def suffices(self, value: float) -> bool:
        return value > 0.9 * self.full

    def with_one_more(self, mask: Mask) -> list[Mask]:
        guide = self.guide.copy()
        guide[mask == 0] = 2
        found = []
        for place in np.argsort(guide.ravel())[:15]:
            more = mask.copy()
            more.ravel()[place] = 0
            if mask.ravel()[place] == 1:
                found.append(more)
        return found

    def minimal(self, mask: Mask) -> Mask:
        dropped = True
        while dropped:
            dropped = False
            for row, column in zip(*np.where(mask == 0), strict=True):
                less = mask.copy()
                less[row, column] = 1
                if self.suffices(self.value(less)):
                    mask, dropped = less, True
        return mask

    def roots(self) -> list[Mask]:
        beam, roots = [np.ones((self.side, self.side))], []
        for _ in range(self.side**2):
            pairs = [(more, self.value(more)) for mask in beam for more in self.with_one_more(mask)]
            if not pairs:
                break
            beam = []
            for mask, value in sorted(pairs, key=lambda pair: pair[1], reverse=True):
                if self.suffices(value):
                    least = self.minimal(mask)
                    if not any((least == root).all() for root in roots):
                        roots.append(least)
                else:
                    beam.append(mask)
                    if len(beam) == 4:
                        break
            if len(roots) > 10:
                break
        return roots

    def node(self, patches: list[int], nodes: set[int]) -> None:
        """Walk the patch deletion tree from here, but for the paths that meet again."""
        if bits(patches) in nodes:
            return
        mask = np.ones(self.side**2)
        mask[patches] = 0
        nodes.add(bits(patches))
        if len(patches) > 1 and int(np.around(self.p(mask) / self.full, 3) * 100) > 40:
            for gone in patches[:3]:
                self.node([patch for patch in patches if patch != gone], nodes)


def number(mask: Mask) -> int:
    return bits(np.flatnonzero(mask.ravel() == 0).tolist())


def largest(roots: Sequence[int], chosen: list[int], overlap: int) -> list[int]:
    """Return the first largest choice of places in ``roots`` that begins with ``chosen``, by depth-first search."""
    best = chosen
    for place in range(chosen[-1] + 1 if chosen else 0, len(roots)):
        if all((roots[place] & roots[other]).bit_count() <= overlap for other in chosen):
            further = largest(roots, [*chosen, place], overlap)
            best = further if len(further) > len(best) else best
    return best


def empty_memo(p: Probability, side: int) -> Memo:
    """Return a memo that knows the whole picture alone."""
    full = p(np.zeros((side, side)))
    places = PatchGrid(side, (8 * side, 8 * side))
    return Memo(places, lambda verdict: verdict.value > 0.9 * full, known={places.whole: Verdict(full, True)})


def answered(search: Asking, memo: Memo, p: Probability) -> tuple[object, list[list[int]]]:
    """Return what a search finds, and what it asked, call by call."""
    calls: list[list[int]] = []
    while True:
        try:
            calls.append(next(search))
        except StopIteration as end:
            return end.value, calls
        for one in calls[-1]:
            mask = np.array([1 - (one >> patch & 1) for patch in range(memo.places.count)])
            memo.known[one] = Verdict(p(mask), True)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("side", range(3, 8))
def test_roots_choice_and_tree_are_those_of_the_plain_loop(side: int, kind: str, seed: int) -> None:
    p, guide = toy(side, kind, seed)
    plain, memo = Plain(p, guide), empty_memo(p, side)
    expected = [number(mask) for mask in plain.roots()]
    found, calls = answered(reference.search(memo, torch.from_numpy(guide)), memo, p)
    assert found == expected

    asked = [one for call in calls for one in call]
    assert len(asked) == len(set(asked))
    assert set(asked) | {memo.places.whole} == set(plain.seen) | {memo.places.whole}

    few = found[:11]
    for overlap in range(3):
        whole = [few[place] for place in largest(few, [], overlap)]
        assert reference.shown(few, overlap, len(few)) == whole
        assert reference.shown(few, overlap, 3) == whole[:3]

    nodes: set[int] = set()
    for root in found[:3]:
        plain.node([patch for patch in range(side**2) if root >> patch & 1], nodes)
    fresh = empty_memo(p, side)
    _, calls = answered(reference.tree(fresh, found[:3]), fresh, p)
    asked = [one for call in calls for one in call]
    assert len(asked) == len(set(asked))
    assert {*asked, memo.places.whole} == {*nodes, memo.places.whole}


def test_the_toys_have_what_the_comparison_needs() -> None:
    found = []
    for side, kind, seed in product((4, 5), KINDS, range(2)):
        plain = Plain(*toy(side, kind, seed))
        roots = [number(mask) for mask in plain.roots()]
        found.append((len(roots), len(reference.shown(roots, 1, 9)), len(plain.seen) / len(set(plain.seen))))
    counts, compatible, repeated = np.array(found).T
    assert (counts < 11).any()
    assert (counts > 10).any()
    assert (compatible > 3).any()
    assert np.median(repeated) > 1.5


def test_a_level_is_asked_at_once_and_minimised_side_by_side() -> None:
    # Two pairs suffice: both are found on the second level, and minimised together.
    pairs = (bits((0, 1)), bits((7, 8)))

    def p(mask: Mask) -> float:
        kept = number(mask)
        return (
            0.9 if any(kept & pair == pair for pair in pairs) else 0.1 * (kept.bit_count() == 1 and kept in (1, 128))
        )

    memo = empty_memo(p, 3)
    found, calls = answered(reference.search(memo, torch.ones(3, 3)), memo, p)
    assert sorted(found) == sorted(pairs)
    assert [len(call) for call in calls[:2]] == [9, len(set(calls[1]))]
    assert all(one.bit_count() == 2 for one in calls[1])


def test_an_empty_set_that_suffices_is_the_one_root() -> None:
    memo = empty_memo(lambda mask: 0.5, 3)
    found, _ = answered(reference.search(memo, torch.ones(3, 3)), memo, lambda mask: 0.5)
    assert found == [0]
    assert reference.shown(found, 1, 3) == [0]
    assert reference.children(0) == []


def test_the_first_largest_choice_is_shown_and_not_the_smallest_roots() -> None:
    wide, small, other = bits((0, 1, 2, 3)), bits((2, 3)), bits((0, 1))
    assert reference.shown([wide, small, other], 1, 3) == [small, other]
    assert reference.shown([wide, small], 1, 3) == [wide]
    assert reference.shown([wide, small], 2, 3) == [wide, small]
    assert reference.shown([], 1, 3) == []


@pytest.mark.parametrize(("share", "stands"), [(0.4094, False), (0.4105, True), (0.40, False), (0.41, True)])
def test_children_stand_above_forty_whole_per_cent(share: float, stands: bool) -> None:
    memo = empty_memo(lambda mask: 1.0, 3)
    memo.known[3] = Verdict(share, False)
    assert reference.expanded(memo, 3) == stands


# The guide.


def lively(channels: int = 3) -> nn.Module:
    """Return a drawn net whose probabilities change much with the picture."""
    body = SmallNet(channels=channels)
    return drawn(Lambda(lambda net, x: 40 * net.body(x), body=body), shape=(channels, 16, 16)).eval()


@pytest.fixture(scope="module")
def net() -> nn.Module:
    return lively()


@pytest.fixture(scope="module")
def x() -> Tensor:
    """Two pictures whose first classes are lost when they are taken away."""
    return torch.cat([pictures(1, seed=1), pictures(1, seed=2)])


def ours(net: nn.Module, x: Tensor, labels: Sequence[int] = LABELS, side: int = 5, seed: int = 0) -> Tensor:
    measured = [Fixed("probability", (label,)) for label in labels]
    with opened(classifier(net)) as session:
        return reference.guides(session, x, make_baseline("zeros", x, None)[0], measured, side, 8, seed)


def loop(net: nn.Module, picture: Tensor, label: int, side: int, seed: int) -> Tensor:
    """Return the mask of one picture before a base of zeros, one point of the path at a time."""
    generator = torch.Generator().manual_seed(seed)
    spread = [0.4, 0, 0] if len(picture) == 3 else [0.2] * len(picture)
    m = torch.ones(side, side).double()

    def p(mask: Tensor, k: int = 20, noise: Tensor | float = 0.0) -> Tensor:
        up = F.interpolate(mask[None, None], size=picture.shape[1:], mode="bilinear", align_corners=True)[0]
        return net((k / 20 * up * picture + noise)[None]).softmax(1)[0, label]

    def penalty(mask: Tensor) -> Tensor:
        tv = mask.diff(dim=0).pow(2).mean() + mask.diff(dim=1).pow(2).mean()
        return (1 - mask).abs().mean() + 20 * tv

    for _ in range(2):
        drawn_noise = torch.randn(20, *picture.shape, generator=generator)
        m.requires_grad_()
        total = penalty(m)
        for k in range(1, 21):
            noise = torch.stack([s * n for s, n in zip(spread, drawn_noise[k - 1], strict=True)]).double()
            total = total + p(m, k, noise) / 20
        (slope,) = torch.autograd.grad(total, m)
        m, step = m.detach(), 200.0
        with torch.no_grad():
            before = p(m) + penalty(m)
            while True:
                tried = (m - step * slope).clamp(0, 1)
                enough = p(tried) + penalty(tried) <= before - 1e-4 * step * (slope**2).sum()
                if enough or step < 1e-5:
                    break
                step *= 0.2
        m = tried
    return m


@pytest.mark.parametrize("side", [4, 7])
def test_guides_are_the_loops(net: nn.Module, x: Tensor, side: int) -> None:
    expected = torch.stack([loop(net, one, label, side, seed=3) for one, label in zip(x, LABELS, strict=True)])
    assert bool(((1 - expected).amax((1, 2)) > 0.02).all())
    assert relative(1 - ours(net, x, side=side, seed=3), 1 - expected) < 1e-6


def test_guides_of_other_channels_have_the_plain_noise() -> None:
    # No step is good enough here: the shortest one shows the direction, and with it the noise.
    net, x = lively(channels=1), pictures(1, channels=1)
    expected = loop(net, x[0], 0, 4, seed=3)[None]
    assert 1e-7 < float((1 - expected).max()) < 1e-4
    assert relative(1 - ours(net, x, [0], side=4, seed=3), 1 - expected) < 1e-6


def test_guides_cost_most_where_no_step_is_good_enough(net: nn.Module) -> None:
    x = pictures(1, seed=0)
    with opened(classifier(net)) as session:
        guide = reference.guides(session, x, torch.zeros_like(x), [Fixed("probability", (2,))], 5, 8, 3)
        assert session.passes == reference.COST
    assert float(1 - guide.min()) < 1e-6


def test_guides_come_from_the_seed_and_not_from_the_batch(net: nn.Module, x: Tensor) -> None:
    guides = ours(net, x)
    assert guides.shape == (2, 5, 5)
    assert float(guides.min()) >= 0
    assert float(guides.max()) <= 1
    assert torch.equal(guides, ours(net, x))
    assert torch.equal(guides, torch.cat([ours(net, x[i : i + 1], LABELS[i : i + 1]) for i in range(2)]))
    assert not torch.equal(guides, ours(net, x, seed=1))
