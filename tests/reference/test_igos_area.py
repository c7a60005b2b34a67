"""The default I-GOS: masks over areas, against loops in float64, by their laws, and where they find nothing."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import whence
from small_nets import Lambda, SmallNet, classifier, drawn, pictures
from whence.errors import NotFiniteError, OptionError, WhenceError
from whence.methods.igos.areas import top_area
from whence.pictures.baselines import make_baseline

SIDE, POINTS, ITERATIONS, SEED = 6, 2, 5, 2
TERMS = {
    "igos": [((0,), False)],
    "igos+": [((0,), False), ((0,), True)],
    "igos++": [((0,), False), ((1,), True), ((0, 1), False), ((0, 1), True)],
}


@pytest.fixture(scope="module")
def net():
    net = drawn(SmallNet())
    with torch.no_grad():
        net.head.weight *= 10  # so that masks change the probability by much
    return net


@pytest.fixture(scope="module")
def x() -> Tensor:
    return pictures(3)


def soft_top(s: Tensor, share: float) -> Tensor:
    """sigmoid((s - q) / 0.3) with q such that the mean is the share, found by Newton's method."""
    q = s.mean().detach()
    for _ in range(200):
        m = torch.sigmoid((s.detach() - q) / 0.3)
        q = q + (m.mean() - share) / (m * (1 - m) / 0.3).mean().clamp(min=1e-3)
    # The derivative of q by the implicit function theorem.
    m = torch.sigmoid((s.detach() - q) / 0.3)
    w = m * (1 - m)
    return torch.sigmoid((s - q - ((s - s.detach()) * w).sum() / w.sum()) / 0.3)


def smoothed(g: Tensor) -> Tensor:
    sigma = SIDE / 28
    radius = -int(-3 * sigma // 1)
    at = torch.arange(-radius, radius + 1)
    k = torch.exp(-(at**2) / (2 * sigma**2)).to(g)
    k = k / k.sum()
    padded = F.pad(g[None, None], (radius,) * 4, mode="reflect")[0, 0]
    rows = torch.stack([sum(k[j] * padded[i + j] for j in range(len(k))) for i in range(SIDE)])
    return torch.stack([sum(k[j] * rows[:, i + j] for j in range(len(k))) for i in range(SIDE)], dim=1)


def by_loops(net, x: Tensor, name: str) -> Tensor:
    base = make_baseline("blurred", x[None], None)[0, 0]
    label = int(net(x[None]).argmax())
    terms = TERMS[name]
    count = 1 + max(mask for masks, _ in terms for mask in masks)
    s = torch.zeros(count, SIDE, SIDE, dtype=torch.float64)
    mean, square = torch.zeros_like(s), torch.zeros(count, dtype=torch.float64)
    for t in range(1, ITERATIONS + 1):
        leaf = s.clone().requires_grad_()
        total = torch.zeros((), dtype=torch.float64)
        for number, (masks, inserts) in enumerate(terms):
            for point in range(POINTS):
                share = (point + (number / len(terms) + t * (5**0.5 - 1) / 2) % 1) / POINTS
                top = soft_top(sum(leaf[mask] for mask in masks), share)
                top = F.interpolate(top[None, None], size=x.shape[1:], mode="bilinear", align_corners=False)[0]
                keep = top if inserts else 1 - top
                p = net((x * keep + base * (1 - keep))[None]).softmax(1)[0, label]
                total = total + (-p if inserts else 3 * p) / POINTS
        (g,) = torch.autograd.grad(total, leaf)
        for mask in range(count):
            slope = smoothed(g[mask])
            mean[mask] = 0.9 * mean[mask] + 0.1 * slope
            square[mask] = 0.99 * square[mask] + 0.01 * (slope**2).mean()
            s[mask] -= 0.2 * (mean[mask] / (1 - 0.9**t)) / (square[mask] / (1 - 0.99**t)).sqrt()
    return s.sum(0)


@pytest.mark.parametrize("name", TERMS)
def test_the_formulas(name, net, x):
    found = whence.attribute(
        classifier(net), x, name, mask=SIDE, steps=POINTS, iterations=ITERATIONS, seed=SEED, rate=0.2
    )
    for row in range(len(x)):
        expected = by_loops(net, x[row], name)
        assert (found.values[row, 0] - expected).abs().max() < 1e-9
    assert found.values.std() > 0.1


SCORES = st.lists(st.floats(-8, 8, width=32), min_size=12, max_size=12)


@settings(max_examples=100, deadline=None)
@given(scores=SCORES, share=st.floats(1e-4, 1 - 1e-4), shift=st.floats(-5, 5))
def test_the_area_is_what_is_asked_for_and_stays(scores: list[float], share: float, shift: float) -> None:
    s = torch.tensor(scores, dtype=torch.float64).reshape(1, 1, 3, 4).requires_grad_()
    mask = top_area(s, torch.tensor([share], dtype=torch.float64))
    assert abs(mask.mean().item() - share) < 1e-9
    (slope,) = torch.autograd.grad(mask.sum(), s)
    assert slope.abs().max() < 1e-9
    moved = top_area(s.detach() + shift, torch.tensor([share], dtype=torch.float64))
    assert torch.allclose(moved, mask.detach(), atol=1e-9)
    assert (mask.flatten()[s.flatten().argsort()].diff() >= -1e-12).all()


def test_its_slope_is_that_of_differences():
    s = torch.randn(1, 1, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    weights, share = torch.arange(16.0).reshape(4, 4), torch.tensor([0.3], dtype=torch.float64)
    leaf = s.clone().requires_grad_()
    (slope,) = torch.autograd.grad((top_area(leaf, share) * weights).sum(), leaf)
    for place in range(16):
        step = torch.zeros(16, dtype=torch.float64)
        step[place] = 1e-5
        up, down = ((top_area(s + sign * step.reshape(s.shape), share) * weights).sum() for sign in (1, -1))
        assert abs((up - down) / 2e-5 - slope.flatten()[place]) < 1e-6


@pytest.mark.parametrize("variant", ["area", "paper", "igos-pp"])
def test_a_batch_gives_what_single_pictures_give(variant, net, x):
    options = {"mask": SIDE, "iterations": 3, "steps": 2, "variant": variant}
    together = whence.attribute(classifier(net), x, "igos++", **options).values
    for row in range(len(x)):
        alone = whence.attribute(classifier(net), x[row : row + 1], "igos++", **options).values
        assert (together[row] - alone[0]).abs().max() < 1e-9


class Square(nn.Module):
    """Class 0 is a bright square at the top left; nothing else is looked at."""

    def forward(self, x: Tensor) -> Tensor:
        seen = x[:, :, 2:8, 2:8].mean((1, 2, 3))
        return torch.stack((6 * seen, -6 * seen), dim=1)


@pytest.mark.parametrize("name", TERMS)
def test_the_place_that_decides_ranks_first(name):
    x = torch.zeros(1, 3, 24, 24, dtype=torch.float64)
    x[:, :, 2:8, 2:8] = 1
    model = whence.Classifier(Square().double())
    heat = whence.attribute(model, x, name, mask=12, baseline="zeros").heatmap()[0]
    top = heat.flatten().topk(20).indices
    assert ((top // 24 >= 1) & (top // 24 <= 8) & (top % 24 >= 1) & (top % 24 <= 8)).all()


@pytest.mark.parametrize("variant", ["area", "paper"])
def test_a_score_that_no_mask_changes_gives_a_zero_map(variant, x):
    model = whence.Classifier(drawn(Lambda(lambda net, x: net.head(x.new_ones(len(x), 3)), head=nn.Linear(3, 2))))
    found = whence.attribute(model, x, "igos++", variant=variant, mask=SIDE, iterations=3, l1=None)
    assert not found.values.any()
    assert any("never moved" in note for note in found.notes[0])
    assert any("no evidence" in note for note in found.notes[0])


class Fragile(nn.Module):
    """Class 0 wants a clean picture: the smallest noise on it takes the class away."""

    def forward(self, x: Tensor) -> Tensor:
        rough = (x.diff(dim=3) ** 2).mean((1, 2, 3)) + (x.diff(dim=2) ** 2).mean((1, 2, 3))
        bright = x[:, :, 4:12, 4:12].mean((1, 2, 3))
        return torch.stack((8 * bright + 12 - 4e5 * rough, torch.zeros_like(rough)), dim=1)


def test_noise_that_takes_the_class_away_is_said_and_the_default_explains_it():
    """The failure of the repository's code: under its noise the class is lost, and the mask never moves."""
    x = torch.full((1, 3, 16, 16), 0.2, dtype=torch.float64)
    model = whence.Classifier(Fragile().double())
    for variant in ("paper", "igos-pp"):
        lost = whence.attribute(
            model, x, "igos++", variant=variant, baseline="zeros", mask=4, iterations=3, l1=0, tv=0
        )
        assert any("nothing to follow" in note for note in lost.notes[0])
        assert not lost.values.any()
    found = whence.attribute(model, x, "igos++", baseline="zeros", mask=4)
    assert not any("nothing to follow" in note or "never moved" in note for note in found.notes[0])


@pytest.mark.parametrize(
    "options",
    [
        {"mask": 17}, {"mask": 0}, {"iterations": 0}, {"steps": 0}, {"tv": -1}, {"rate": -0.5}, {"sigma": -1},
        {"variant": "paper", "l1": -1}, {"l1": 1.0}, {"search": "nag"}, {"direction": "gradient"},
        {"variant": "reference"}, {"initial": torch.zeros(3)}, {"initial": torch.zeros(1, 2, 4, 4)},
    ],
)  # fmt: skip
def test_bad_options_are_refused_in_one_sentence(options, net, x):
    with pytest.raises(OptionError) as caught:
        whence.attribute(classifier(net), x, "igos++", **options)
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, WhenceError)


def test_an_initial_mask_is_where_the_search_starts(net, x):
    first = torch.rand(SIDE, SIDE, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for variant, rate in (("area", 1e-9), ("paper", 0)):
        options = {"search": "nag"} if variant == "paper" else {}
        found = whence.attribute(
            classifier(net), x, "igos", variant=variant, initial=first, mask=SIDE, iterations=1, rate=rate, **options
        )
        moved = found.values if found.values.any() else found.values + first
        assert (moved - first).abs().max() < 1e-6


@pytest.mark.parametrize("variant", ["area", "paper", "igos-pp"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_masks_of_models_in_half_precision_move_as_those_in_full(dtype, variant):
    options = {"mask": SIDE, "iterations": 4, "variant": variant, "steps": 2}
    net, x = drawn(SmallNet()), pictures(2)
    with torch.no_grad():
        net.head.weight *= 10
    full = whence.attribute(classifier(net.float()), x.float(), "igos++", **options).values
    half = whence.attribute(classifier(net.to(dtype)), x.to(dtype), "igos++", **options).values
    assert half.abs().max() > 0.3 * full.abs().max()


@pytest.mark.parametrize("target", ["log-probability:top", lambda output: output[:, 0] - 50])
def test_a_score_below_zero_is_no_lost_path(target, net, x):
    found = whence.attribute(classifier(net), x, "igos", target=target, mask=SIDE, iterations=3)
    assert not any("nothing to follow" in note for notes in found.notes for note in notes)


@pytest.mark.parametrize("variant", ["area", "paper", "igos-pp"])
def test_nan_names_its_picture(variant):
    def broken(net: nn.Module, x: Tensor) -> Tensor:
        scores = net.head(x.mean((2, 3)))
        changed = (x[:, :, 0, 0] - x[:, :, 0, 1]).abs().sum(1) < 100
        return torch.where(((x.mean((1, 2, 3)) > 3) & changed)[:, None], torch.nan, scores)

    net = drawn(Lambda(broken, head=nn.Linear(3, 4)))
    x = pictures(2) / 10
    x[1] += 5
    x[1, :, 0, 0] += 1000  # the whole picture itself is fine
    with pytest.raises(NotFiniteError, match="picture 1 of the batch"):
        whence.attribute(classifier(net), x, "igos++", variant=variant, mask=SIDE, iterations=2, steps=2)


def test_a_path_on_which_deletion_succeeds_is_not_lost():
    """The mean along the path is small where the mask is good; there was enough to follow all the same."""
    x = torch.zeros(1, 3, 24, 24, dtype=torch.float64)
    x[:, :, 2:4, 2:4] = 1

    class Corner(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            seen = x[:, :, 2:4, 2:4].mean((1, 2, 3))
            return torch.stack((20 * seen - 15, torch.zeros_like(seen)), dim=1)

    found = whence.attribute(whence.Classifier(Corner().double()), x, "igos", mask=24, baseline="zeros")
    assert not any("nothing to follow" in note for note in found.notes[0])
    assert found.heatmap()[0].flatten().argmax() in (2 * 24 + 2, 2 * 24 + 3, 3 * 24 + 2, 3 * 24 + 3)
