"""Integrated Gradients against captum, closed forms, and its paths and baselines written out."""

import math

import numpy as np
import pytest
import torch
from captum.attr import IntegratedGradients
from torch import Tensor, nn

import whence
from small_nets import Lambda, SmallNet, drawn, pictures, relative
from whence import attribute
from whence.errors import NotFiniteError, OptionError
from whence.explaining import explain
from whence.methods.quadrature import quadrature, refinements
from whence.models import session
from whence.models.classifier import Classifier
from whence.pictures.baselines import make_baseline
from whence.pictures.preprocess import Preprocess
from whence.results import Attribution
from whence.rows import plain

TARGETS = [1, 3]
CAPTUM = {
    "midpoint": "riemann_middle",
    "left": "riemann_left",
    "right": "riemann_right",
    "trapezoid": "riemann_trapezoid",
    "gauss-legendre": "gausslegendre",
}
RULES = [*CAPTUM, "graded"]


def ours(net: nn.Module | Classifier, x: Tensor, target: object = TARGETS, **options: object) -> Attribution:
    model = net if isinstance(net, Classifier) else Classifier(net)
    return attribute(model, x, "integrated-gradients", target=target, **options)


def slope(net: nn.Module, x: Tensor, target: object = TARGETS) -> Tensor:
    x = x.detach().requires_grad_()
    return torch.autograd.grad(net(x)[torch.arange(len(x)), torch.as_tensor(target)].sum(), x)[0]


def scores(net: nn.Module, x: Tensor) -> Tensor:
    return net(x).detach()[torch.arange(len(x)), torch.tensor(TARGETS)]


def smooth(power: int) -> nn.Module:
    """Return a net whose logits are weighed sums of a power of each value."""
    net = Lambda(lambda n, x: n.head((x**power).flatten(1)), head=nn.Linear(3 * 16 * 16, 5))
    return drawn(net)


# The rules


@pytest.mark.parametrize("rule", CAPTUM)
def test_a_rule_is_captums(rule: str) -> None:
    """With nodes that captum's float32 holds exactly, and its float32 weights scaled to add up to 1.

    They do not for the trapezoid: 1 / n a point, and half at both ends, which is (n - 1) / n together.
    """
    net, x = drawn(SmallNet()), pictures()
    n = 17 if rule == "trapezoid" else 16
    theirs = IntegratedGradients(net).attribute(x, target=TARGETS, n_steps=n, method=CAPTUM[rule])
    whole = float(torch.tensor(1 / n)) * (n - 1 if rule == "trapezoid" else n)
    answer = ours(net, x, rule=rule, steps=n, tol=None)
    if rule == "trapezoid":
        assert whole == pytest.approx(16 / 17, rel=1e-7)
    # Its Gauss-Legendre weights are rounded each to another number.
    tolerance = 1e-7 if rule == "gauss-legendre" else 1e-10
    assert relative(answer.values, theirs / whole) <= tolerance


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("n", [2, 7, 20])
def test_a_rule_is_the_sum_written_out(rule: str, n: int) -> None:
    net, x = drawn(SmallNet()), pictures()
    i = np.arange(n)
    nodes, weights = {
        "midpoint": ((i + 0.5) / n, np.full(n, 1 / n)),
        "graded": ((6 ** ((i + 0.5) / n) - 1) / 5, (6 ** ((i + 1) / n) - 6 ** (i / n)) / 5),
        "left": (i / n, np.full(n, 1 / n)),
        "right": ((i + 1) / n, np.full(n, 1 / n)),
        "trapezoid": (i / (n - 1), np.where((i == 0) | (i == n - 1), 0.5, 1) / (n - 1)),
        "gauss-legendre": [a / 2 + b for a, b in zip(np.polynomial.legendre.leggauss(n), (0.5, 0), strict=True)],
    }[rule]
    expected = sum(w * slope(net, a * x) for a, w in zip(nodes, weights, strict=True)) * x
    answer = ours(net, x, rule=rule, steps=n, tol=None)
    assert relative(answer.values, expected) <= 1e-10
    total = scores(net, x) - scores(net, 0 * x)
    torch.testing.assert_close(
        answer.residual, ((expected.sum((1, 2, 3)) - total) / total).abs(), rtol=1e-8, atol=1e-12
    )
    assert answer.passes == whence.results.Passes(forward=2 * (n + 2), backward=2 * n)
    assert float(quadrature(rule, n).weights.sum()) == pytest.approx(1, abs=1e-14)


@pytest.mark.parametrize(
    ("rule", "n", "power"),
    [(rule, 3, 1) for rule in RULES]
    + [("midpoint", 1, 2), ("trapezoid", 2, 2), ("gauss-legendre", 1, 2), ("gauss-legendre", 3, 6)],
)
def test_a_rule_is_exact_where_it_must_be(rule: str, n: int, power: int) -> None:
    """Of gradients that are polynomials along the path: (x - x') int grad = w (x^p - x'^p) where x' = c x."""
    net, x = smooth(power), pictures()
    baseline = 0.3 * x
    exact = net.head.weight[TARGETS].reshape(x.shape) * (x**power - baseline**power)
    answer = ours(net, x, rule=rule, steps=n, tol=None, baseline=baseline)
    assert relative(answer.values, exact.detach()) <= 1e-12
    assert answer.residual.max() <= 1e-12


def test_a_rule_that_is_not_exact_is_not() -> None:
    assert ours(smooth(2), pictures(), rule="left", steps=5, tol=None).residual.min() > 0.1
    assert ours(smooth(3), pictures(), rule="midpoint", steps=5, tol=None).residual.min() > 1e-3


def test_the_target_stays_the_top_class_of_the_picture_along_the_path() -> None:
    net, x = drawn(SmallNet()), 3 * pictures()
    top = net(x).argmax(1)
    on_the_way = torch.stack([net(a * x).argmax(1) for a in torch.linspace(0, 1, 9)])
    assert (on_the_way != top).any()
    assert torch.equal(ours(net, x, None).values, ours(net, x, top.tolist()).values)


# Refinement


def test_refinement_uses_every_point_again() -> None:
    net, x = drawn(SmallNet()), pictures()
    for rule in ("midpoint", "graded"):
        for path in ("straight", "blur"):
            at_once = ours(net, x, rule=rule, steps=45, tol=None, path=path)
            refined = ours(net, x, rule=rule, steps=45, tol=1e-9, path=path)
            assert relative(refined.values, at_once.values) <= 1e-12
            assert refined.passes == at_once.passes == whence.results.Passes(2 * 47, 2 * 45)
            assert [len(notes) for notes in refined.notes] == [1, 1]
            assert at_once.notes == ((), ())


@pytest.mark.parametrize(
    ("steps", "sizes"), [(1, (1,)), (14, (14,)), (15, (5, 15)), (50, (5, 15, 45)), (81, (9, 27, 81))]
)
def test_points_are_tripled_up_to_the_number_of_steps(steps: int, sizes: tuple[int, ...]) -> None:
    assert refinements("midpoint", steps, 0.02) == sizes
    assert refinements("midpoint", steps, None) == refinements("left", steps, 0.02) == (steps,)


def kinked() -> nn.Module:
    """Return a net that is linear for values below 1, and bends there."""
    return Lambda(lambda n, x: n.head(x.flatten(1) + 5 * (x.flatten(1) - 1).relu()), head=nn.Linear(12, 3)).double()


def test_each_picture_stops_at_its_own_tolerance() -> None:
    net = drawn(kinked(), shape=(3, 2, 2))
    x = (
        torch.linspace(0.2, 1, 12, dtype=torch.float64).reshape(1, 3, 2, 2)
        * torch.tensor([0.9, 3.0, 1.5])[:, None, None, None]
    )
    together = ours(net, x, 1, steps=405)
    alone = [ours(net, x[i : i + 1], 1, steps=405) for i in range(3)]
    counts = [one.passes.backward for one in alone]
    assert counts[0] == 15
    assert 15 < counts[1] <= 405
    assert together.passes.backward == sum(counts)
    for i, one in enumerate(alone):
        assert relative(together.values[i : i + 1], one.values) <= 1e-10
        exact = ours(net, x[i : i + 1], 1, steps=2000, tol=None).values
        assert float((one.values - exact).norm() / exact.norm()) <= 0.02
        assert one.notes == ((),)


def test_the_note_says_by_how_much_the_map_still_changed() -> None:
    net, x = drawn(SmallNet()), pictures()
    answer = ours(net, x, rule="midpoint", steps=15, tol=1e-6)
    coarse, fine = (ours(net, x, rule="midpoint", steps=n, tol=None).values for n in (5, 15))
    for row, (note,) in enumerate(answer.notes):
        assert f"changed by {float((fine - coarse)[row].norm() / fine[row].norm()):.1%}" in note
        assert "steps=15" in note


@pytest.mark.parametrize("rule", ["midpoint", "graded"])
def test_too_few_steps_to_see_whether_the_map_stands_still_are_told(rule: str) -> None:
    net, x = drawn(SmallNet()), pictures()
    for notes in ours(net, x, rule=rule, steps=14, tol=1e9).notes:
        assert notes == ("too few steps to see whether the map stands still: steps=14, give at least 15",)
    assert ours(net, x, rule=rule, steps=15, tol=1e9).notes == ((), ())
    assert ours(net, x, rule=rule, steps=14, tol=None).notes == ((), ())
    assert ours(net, x, rule="left", steps=14).notes == ours(net, x, path="guided", steps=3).notes == ((), ())


@pytest.mark.parametrize("rule", ["midpoint", "graded"])
def test_a_linear_net_is_exact_wherever_the_points_end(rule: str) -> None:
    net = drawn(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 16 * 16, 5)))
    x = pictures()
    answer = ours(net, x, 1, rule=rule, steps=135, tol=0.5)
    assert answer.passes.backward == 2 * 15
    expected = x * net[1].weight[1].reshape(1, 3, 16, 16)
    assert relative(answer.values, expected) <= 1e-12


def test_a_batch_gives_what_single_pictures_give_in_small_chunks_too(monkeypatch: pytest.MonkeyPatch) -> None:
    net, x = drawn(SmallNet()), pictures(3)
    options = {"baseline": ("uniform", "zeros"), "draws": 2, "steps": 15}
    model = Classifier(net, preprocess=Preprocess(mean=(0.5,) * 3, std=(0.25,) * 3))
    together = ours(model, x, [1, 2, 3], **options)
    sizes: list[int] = []
    handle = net.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    monkeypatch.setattr(session, "_CHUNK_VALUES", 4 * 3 * 16 * 16)
    for i in range(3):
        alone = ours(model, x[i : i + 1], i + 1, **options)
        assert relative(together.values[i : i + 1], alone.values) <= 1e-10
        torch.testing.assert_close(together.residual[i : i + 1], alone.residual, rtol=1e-8, atol=1e-12)
    handle.remove()
    assert max(sizes) == 4


def test_points_keep_the_memory_order_of_the_pictures() -> None:
    orders: list[bool] = []
    net, x = drawn(SmallNet()).float(), pictures(size=32).float()
    model = Classifier(net)
    ours(model, x)
    assert model.channels_last[3, 32, 32]
    net.register_forward_pre_hook(
        lambda _, inputs: orders.append(inputs[0].is_contiguous(memory_format=torch.channels_last))
    )
    for path in ("straight", "blur", "guided", lambda x, b, a: (b + a * (x - b)).contiguous()):
        for baseline in (None,) if path == "blur" else (None, torch.zeros(3, 32, 32), "blurred"):
            ours(model, x, path=path, steps=6, baseline=baseline)
    assert all(orders)
    assert len(orders) > 20


# The residual


def test_the_residual_of_equal_scores_is_the_error_itself() -> None:
    net, x = smooth(2), pictures()
    away = -x  # the squares, and so the scores, are equal at both ends
    exact = ours(net, x, baseline=away, steps=4, tol=None, rule="midpoint")
    assert exact.residual.max() <= 1e-10
    biased = ours(net, x, baseline=away, steps=4, tol=None, rule="left")
    torch.testing.assert_close(biased.residual, biased.values.sum((1, 2, 3)).abs(), rtol=1e-9, atol=1e-9)
    assert biased.residual.min() > 0.1


def test_the_picture_itself_as_baseline_gives_no_evidence_and_no_residual() -> None:
    net, x = drawn(SmallNet()), pictures()
    answer = ours(net, x, baseline=x)
    assert torch.equal(answer.values, torch.zeros_like(x))
    assert torch.equal(answer.residual, torch.zeros(2, dtype=torch.float64))
    assert all("no evidence" in notes[0] for notes in answer.notes)


# Paths


def test_a_path_of_ones_own_may_be_the_graded_rule() -> None:
    """The integral does not depend on how fast a path is run through; here not even the points do."""
    net, x = drawn(SmallNet()), pictures()

    def eased(x: Tensor, baseline: Tensor, alpha: Tensor) -> Tensor:
        assert alpha.shape == (len(x), 1, 1, 1)
        return baseline + (6**alpha - 1) / 5 * (x - baseline)

    mine = ours(net, x, path=eased, rule="midpoint", steps=9, tol=None, baseline="blurred")
    graded = ours(net, x, rule="graded", steps=9, tol=None, baseline="blurred")
    assert relative(mine.values, graded.values) <= 1e-10
    assert plain(mine.options["path"]) == "function eased"


def test_a_path_may_begin_elsewhere_and_completeness_is_from_there() -> None:
    net, x = drawn(SmallNet()), pictures()

    def bent(x: Tensor, baseline: Tensor, alpha: Tensor) -> Tensor:
        return (1 - alpha) * 0.5 + alpha * x + 0.3 * torch.sin(math.pi * alpha) * x.flip(3)

    answer = ours(net, x, path=bent, steps=1215, tol=None)
    total = scores(net, x) - scores(net, torch.full_like(x, 0.5))
    assert ((answer.values.sum((1, 2, 3)) - total) / total).abs().max() <= 5e-3
    torch.testing.assert_close(
        answer.residual, ((answer.values.sum((1, 2, 3)) - total) / total).abs(), rtol=1e-6, atol=1e-9
    )


@pytest.mark.parametrize("wrong", [lambda x, b, a: b + a * 0.5 * (x - b), lambda x, b, a: (x * a)[:, :1]])
def test_a_path_that_does_not_arrive_is_refused(wrong: object) -> None:
    with pytest.raises(OptionError, match="at alpha 1"):
        ours(drawn(SmallNet()), pictures(), path=wrong)


def blurring(side: int, sigma: float) -> np.ndarray:
    """Return the blur of a line, written out: each pixel takes from all, and from their mirror images."""
    made = np.zeros((side, side))
    for i in range(side):
        for j in range(side):
            at = [j] + ([-j] if j > 0 else []) + ([2 * (side - 1) - j] if j < side - 1 else [])
            made[i, j] = sum(math.exp(-((i - k) ** 2) / (2 * sigma**2)) if sigma else float(i == k) for k in at)
    return made / made.sum(1, keepdims=True)


def test_the_blur_path_is_the_sum_written_out() -> None:
    net, x, n, widest = drawn(SmallNet()), pictures(size=(16, 12)), 9, 3.0

    def point(alpha: float) -> Tensor:
        down, along = (torch.from_numpy(blurring(side, widest * (1 - alpha**0.5) ** 2)) for side in (16, 12))
        return torch.einsum("ij,bcjk,lk->bcil", down, x, along)

    expected = sum(slope(net, point((i + 0.5) / n)) * (point((i + 1) / n) - point(i / n)) for i in range(n))
    answer = ours(net, x, path="blur", sigma=widest, rule="midpoint", steps=n, tol=None)
    assert relative(answer.values, expected) <= 1e-10
    total = scores(net, x) - scores(net, point(0.0))
    torch.testing.assert_close(
        answer.residual, ((expected.sum((1, 2, 3)) - total) / total).abs(), rtol=1e-8, atol=1e-12
    )


def test_the_blur_path_is_complete_and_takes_no_baseline() -> None:
    net, x = smooth(3), pictures()
    few, many = (ours(net, x, path="blur", steps=n, tol=None).residual.max() for n in (20, 200))
    assert many <= 1e-3 < 30 * many < few
    with pytest.raises(OptionError, match="leave baseline away"):
        ours(net, x, path="blur", baseline="black")


def guided_written_out(
    net: nn.Module, x: Tensor, target: int, baseline: Tensor, steps: int, fraction: float, distance: float
) -> np.ndarray:
    """Return the guided map of one picture, value by value."""
    end, start = x.flatten().tolist(), baseline.flatten().tolist()
    at, total = list(start), np.zeros(len(end))
    whole = sum(abs(a - b) for a, b in zip(end, start, strict=True))
    for number in range(1, steps + 1):
        gradient = slope(net, torch.tensor(at, dtype=torch.float64).reshape(1, *x.shape), [target]).flatten().tolist()
        alpha = number / steps
        least, most = (
            [b + min(max(alpha + far, 0), 1) * (a - b) for a, b in zip(end, start, strict=True)]
            for far in (-distance, distance)
        )
        before, wanted = list(at), (1 - alpha) * whole
        for i, (a, b) in enumerate(zip(end, start, strict=True)):
            if a != b and (at[i] - b) / (a - b) < (least[i] - b) / (a - b):
                at[i] = least[i]
        while (left := sum(abs(a - p) for a, p in zip(end, at, strict=True))) > wanted + 1e-9:
            size = [abs(g) if p != m else math.inf for g, p, m in zip(gradient, at, most, strict=True)]
            limit = sorted(size)[int((len(size) - 1) * fraction)]
            moving = [i for i, s in enumerate(size) if s <= limit and s < math.inf]
            room = sum(abs(most[i] - at[i]) for i in moving)
            share = min(1, (left - wanted) / room)
            for i in moving:
                at[i] = most[i] if share == 1 else at[i] + share * (most[i] - at[i])
        ahead = slope(net, torch.tensor(at, dtype=torch.float64).reshape(1, *x.shape), [target]).flatten().tolist()
        total += (np.array(gradient) + np.array(ahead)) / 2 * (np.array(at) - np.array(before))
    return total


@pytest.mark.parametrize(("fraction", "distance"), [(0.25, 0.02), (0.1, 1.0), (1.0, 0.3)])
def test_the_guided_path_is_the_one_written_out(fraction: float, distance: float) -> None:
    net, x = drawn(SmallNet(), shape=(3, 6, 6)), pictures(size=6)
    answer = ours(net, x, path="guided", steps=12, fraction=fraction, distance=distance, baseline="blurred")
    starts = make_baseline("blurred", x, None)[0]
    for row, target in enumerate(TARGETS):
        expected = guided_written_out(net, x[row], target, starts[row], 12, fraction, distance)
        assert relative(answer.values[row].flatten(), torch.from_numpy(expected)) <= 1e-10
    assert answer.passes == whence.results.Passes(forward=2 * 15, backward=2 * 13)


def test_the_guided_path_is_complete_and_without_freedom_straight() -> None:
    net, x = drawn(SmallNet(), shape=(3, 6, 6)), pictures(size=6)
    quadratic = smooth(2)  # on which the mean of the gradients at both ends of a step is exact
    for options in ({}, {"fraction": 0.1, "distance": 1.0}):
        answer = ours(quadratic, pictures(), path="guided", steps=7, **options)
        assert answer.residual.max() <= 1e-8
        total = scores(quadratic, pictures()) - scores(quadratic, 0 * pictures())
        torch.testing.assert_close(answer.values.sum((1, 2, 3)), total, rtol=1e-8, atol=1e-8)
    pinned = ours(net, x, path="guided", steps=12, distance=0.0)
    assert relative(pinned.values, ours(net, x, rule="trapezoid", steps=13, tol=None).values) <= 1e-6


# Baselines


def preprocessed(net: nn.Module) -> Classifier:
    return Classifier(net, preprocess=Preprocess(mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.3)))


@pytest.mark.parametrize("name", ["zeros", "black", "max-distance", "blurred", "uniform", "gaussian"])
def test_a_baseline_is_the_tables(name: str) -> None:
    model, x = preprocessed(drawn(SmallNet())), pictures()
    table = make_baseline(name, x, model.pixels, draws=3, seed=7)
    expected = torch.stack([ours(model, x, baseline=one, tol=None).values for one in table]).mean(0)
    answer = ours(model, x, baseline=name, draws=3, seed=7, tol=None)
    assert relative(answer.values, expected) <= 1e-10
    assert answer.passes.backward == 2 * 39 * len(table)


def test_several_baselines_are_averaged_each_with_the_same_weight() -> None:
    model, x = preprocessed(drawn(SmallNet())), pictures()
    for path in ("straight", "guided"):
        options = {"path": path, "steps": 6, "draws": 2, "tol": None}
        singles = [ours(model, x, baseline=name, **options).values for name in ("black", "uniform", "blurred")]
        mean = ours(model, x, baseline=("black", "uniform", "blurred"), **options)
        assert relative(mean.values, torch.stack(singles).mean(0)) <= 1e-10


def test_a_tensor_is_a_baseline_for_all_pictures_or_one_each(monkeypatch: pytest.MonkeyPatch) -> None:
    net, x = drawn(SmallNet()), pictures(5)
    targets, each = [0, 1, 2, 3, 4], pictures(5, seed=9)
    monkeypatch.setattr(session, "_CHUNK_VALUES", 2 * 3 * 16 * 16)
    singles = [ours(net, x[i : i + 1], i, baseline=each[i]).values for i in range(5)]
    answer = ours(net, x, targets, baseline=each)
    assert relative(answer.values, torch.cat(singles)) <= 1e-10
    assert plain(answer.options["baseline"]) == "tensor [5, 3, 16, 16]"
    assert plain((each[0], "zeros")) == ["tensor [3, 16, 16]", "zeros"]
    assert relative(ours(net, x, 1, baseline=each[0]).values, ours(net, x, 1, baseline=each[:1]).values) == 0
    mixed = ours(net, x, targets, baseline=(each, "zeros"), tol=None).values
    both = [ours(net, x, targets, baseline=one, tol=None).values for one in (each, "zeros")]
    assert relative(mixed, (both[0] + both[1]) / 2) <= 1e-10


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"baseline": torch.zeros(3, 8, 8)}, r"shape \[3, 8, 8\]"),
        ({"baseline": torch.zeros(3, 3, 16, 16)}, "3, 3, 16, 16"),
        ({"baseline": "black"}, "black and white"),
        ({"steps": 0}, "steps=0"),
        ({"draws": 0}, "draws=0"),
        ({"tol": -0.1}, "tol"),
        ({"sigma": -1}, "sigma"),
        ({"fraction": 0}, "fraction"),
        ({"distance": 2}, "distance"),
        ({"steps": 1, "rule": "trapezoid"}, "at least 2"),
        ({"path": "crooked"}, "straight or guided or blur"),
    ],
)
def test_what_cannot_be_is_refused(options: dict[str, object], match: str) -> None:
    with pytest.raises(OptionError, match=match):
        ours(drawn(SmallNet()), pictures(), **options)


def test_a_baseline_that_is_not_finite_is_refused() -> None:
    with pytest.raises(NotFiniteError, match="the baseline"):
        ours(drawn(SmallNet()), pictures(), baseline=torch.full((3, 16, 16), torch.nan))


def test_explain_takes_a_picture_as_baseline(tmp_path: object) -> None:
    from PIL import Image

    model = whence.load_model("creatures")
    picture = np.random.default_rng(0).integers(0, 256, (70, 90, 3), dtype=np.uint8)
    other = Image.fromarray(255 - picture)
    other.save(tmp_path / "other.png")
    tensor = model.preprocess(whence.pictures.read.read(other)).input
    options = {"method": "integrated-gradients", "steps": 5}
    expected = explain(model, picture, baseline=tensor, **options).map
    assert not torch.equal(expected, explain(model, picture, **options).map)
    for baseline in (other, tmp_path / "other.png", str(tmp_path / "other.png"), np.asarray(other)):
        assert torch.equal(explain(model, picture, baseline=baseline, **options).map, expected)
    saved = explain(model, picture, baseline=[other, "black"], **options)
    saved.save(tmp_path / "out")
    loaded = whence.Explanation.load(tmp_path / "out")
    assert loaded.options["baseline"] == ["tensor [3, 64, 64]", "black"]


# One number as input


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("method", ["gradient", "integrated-gradients"])
def test_one_number_is_explained(method: str, dtype: torch.dtype) -> None:
    net = Lambda(lambda n, x: n.one(x.flatten(1)) ** 2, one=nn.Linear(1, 1)).to(dtype)
    nn.init.constant_(net.one.weight, 2.0)
    nn.init.constant_(net.one.bias, 1.0)
    x = torch.tensor([0.5, 1.0, -3.0], dtype=dtype).reshape(3, 1, 1, 1)
    answer = attribute(Classifier(net, activation="sigmoid"), x, method, target=0)
    exact = 4 * (2 * x + 1) if method == "gradient" else (2 * x + 1) ** 2 - 1
    assert answer.values.dtype == dtype
    assert answer.heatmap().shape == (3, 1, 1)
    torch.testing.assert_close(answer.score, ((2 * x + 1) ** 2).flatten(), rtol=1e-6, atol=0)
    assert relative(answer.values, exact) <= (2e-3 if method == "integrated-gradients" else 1e-6)
