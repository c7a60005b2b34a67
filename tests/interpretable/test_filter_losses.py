"""The losses of filters, against closed forms and loops over pictures and templates, in float64."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from whence.errors import OptionError, UnknownNameError
from whence.interpretable import LOSSES, all_positive, filter_loss, matlab, mutual_information, paper, terms
from whence.models.masked.templates import Centre, centres

SHAPES = [(5, 3, 4, 4), (4, 2, 3, 5)]
BETA, GAIN = 4.0, 8.0


def maps(*shape: int, seed: int = 0, scale: float = 1.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(*shape, generator=generator, dtype=torch.float64).clamp(min=0)


def gradient(loss: Tensor, x: Tensor) -> Tensor:
    return torch.autograd.grad(loss.sum(), x)[0]


def cone(h: int, w: int, i: int, j: int, beta: float = BETA) -> Tensor:
    rows = (torch.arange(h, dtype=torch.float64) - i).abs()[:, None] / h
    columns = (torch.arange(w, dtype=torch.float64) - j).abs() / w
    return (1 - beta * (rows + columns)).clamp(min=-1)


def all_templates(h: int, w: int, gain: float = GAIN) -> list[Tensor]:
    found = [cone(h, w, i, j) for i in range(h) for j in range(w)]
    return [gain / (h * w) * t for t in [*found, -torch.ones(h, w, dtype=torch.float64)]]


def loops(x: Tensor) -> tuple[list[list[float]], list[float], list[Tensor]]:
    """Return p(x_b | T), p(x_b) and the templates for the maps [B, H, W] of one filter."""
    templates = all_templates(*x.shape[1:])
    given: list[list[float]] = []
    for t in templates:
        weight = [math.exp(float((x[b] * t).sum())) for b in range(len(x))]
        given.append([value / sum(weight) for value in weight])
    whole = [sum(given[t][b] for t in range(len(templates))) / len(templates) for b in range(len(x))]
    return given, whole, templates


# The exact mutual information


@pytest.mark.parametrize("shape", SHAPES)
def test_mutual_information_is_the_sum_over_pictures_and_templates(shape: tuple[int, ...]) -> None:
    x = maps(*shape)
    found = mutual_information(x)
    for k in range(shape[1]):
        given, whole, templates = loops(x[:, k])
        loss = 0.0
        for t in range(len(templates)):
            for b in range(shape[0]):
                loss -= given[t][b] * math.log(given[t][b] / whole[b]) / len(templates)
        assert float(found[k]) == pytest.approx(loss, abs=1e-13)
        assert loss < -1e-3


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("gain", [0.5, 8.0, 40.0])
def test_the_gradient_is_the_closed_form(shape: tuple[int, ...], gain: float) -> None:
    """d(-MI)/dx_b = -sum_T p(T) p(x_b|T) t [pmi(x_b, T) - KL_T], KL_T = sum_b p(x_b|T) pmi(x_b, T)."""
    x = maps(*shape).requires_grad_()
    t = torch.stack(all_templates(*shape[2:], gain=gain))
    s = torch.einsum("bkhw,thw->bkt", x.detach(), t)
    given = s.softmax(0)
    pmi = given.log() - given.mean(2, keepdim=True).log()
    kl = (given * pmi).sum(0)
    expected = -torch.einsum("bkt,thw->bkhw", given * (pmi - kl), t) / len(t)
    found = gradient(mutual_information(x, gain=gain), x)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    assert float(found.abs().max()) > 1e-6


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 999), scale=st.floats(0.01, 30), h=st.integers(2, 5), w=st.integers(2, 5))
def test_the_three_terms_add_up_to_the_loss(seed: int, scale: float, h: int, w: int) -> None:
    x = maps(5, 2, h, w, seed=seed, scale=scale)
    part = terms(x)
    torch.testing.assert_close(
        part.prior + part.inter_category + part.spatial, mutual_information(x), rtol=1e-12, atol=1e-12
    )
    assert bool((part.prior == -math.log(h * w + 1)).all())
    assert bool((part.inter_category >= -1e-12).all() and (part.inter_category <= math.log(2) + 1e-12).all())
    assert bool((part.spatial >= -1e-12).all() and (part.spatial <= math.log(h * w) + 1e-12).all())


def test_the_spatial_term_is_the_mean_entropy_of_the_place() -> None:
    x = maps(4, 1, 3, 5)
    given, whole, templates = loops(x[:, 0])
    inter = spatial = 0.0
    for b in range(4):
        posterior = [given[t][b] / len(templates) / whole[b] for t in range(len(templates))]
        fires = sum(posterior[:-1])
        inter -= whole[b] * (fires * math.log(fires) + posterior[-1] * math.log(posterior[-1]))
        spatial -= whole[b] * sum(p * math.log(p / fires) for p in posterior[:-1])
    part = terms(x)
    assert float(part.inter_category) == pytest.approx(inter, abs=1e-12)
    assert float(part.spatial) == pytest.approx(spatial, abs=1e-12)


# One template a picture


@pytest.mark.parametrize("shape", SHAPES)
def test_paper_takes_the_target_template_alone(shape: tuple[int, ...]) -> None:
    x = maps(*shape, seed=1).requires_grad_()
    positive = torch.rand(shape[:2], generator=torch.Generator().manual_seed(2)) < 0.5
    assert 0 < int(positive.sum()) < positive.numel()
    found = gradient(paper(x, positive), x)
    for k in range(shape[1]):
        given, whole, templates = loops(x[:, k].detach())
        for b in range(shape[0]):
            t = int(x[b, k].argmax()) if positive[b, k] else len(templates) - 1
            pmi = math.log(given[t][b] / whole[b])
            expected = -templates[t] * given[t][b] * pmi / len(templates)
            torch.testing.assert_close(found[b, k], expected, rtol=1e-12, atol=1e-14)


def test_paper_leaves_out_the_mean_of_the_exact_gradient() -> None:
    """Without KL_T it is not the gradient of the first loss, even for the template of one picture: it is steeper."""
    x = maps(5, 3, 4, 4).requires_grad_()
    everywhere = torch.ones(5, 3, dtype=torch.bool)
    exact, rule = gradient(mutual_information(x), x), gradient(paper(x, everywhere), x)
    assert 0 < float((exact * rule).sum() / (exact.norm() * rule.norm())) < 0.99


def shares(score: list[float], z: float) -> list[float]:
    g = [math.exp(s / 0.5) * (s - z + 0.5) for s in score]
    return [value / (sum(g) / len(g)) for value in g]


def log_mean(values: list[float]) -> float:
    return 0.5 * math.log(sum(math.exp(v / 0.5) for v in values) / len(values))


def authors(x: Tensor, positive: Tensor, density: list[float] | None, centre: Centre, flip: bool) -> Tensor:
    """Return the gradient of the authors' code in loops, up to its factors, meant over the pictures."""
    count, filters, h, w = x.shape
    at = centres(x, centre)
    t = [[cone(h, w, *at[b, k].tolist()) for k in range(filters)] for b in range(count)]
    out = torch.zeros_like(x)
    for k in range(filters):
        yes = [b for b in range(count) if positive[b, k]]
        no = [b for b in range(count) if not positive[b, k]]
        own = [float((x[b, k] * t[b][k]).mean()) for b in range(count)]
        other = [float((x[b, k] * t[count - 1 - b][filters - 1 - k]).mean()) for b in range(count)]
        empty = [-float(x[b, k].mean()) for b in range(count)]
        w_pos, w_neg = (1.0, 1.0) if density is None else (0.5 / density[k], 0.5 / (1 - density[k]))
        for b, g in zip(yes, shares([own[b] for b in yes], log_mean(other if flip else own)), strict=True):
            out[b, k] -= w_pos * g * t[b][k]
        for b, g in zip(no, shares([empty[b] for b in no], log_mean(empty)), strict=True):
            out[b, k] += w_neg * g
    return out / count


@pytest.mark.parametrize("flip", [True, False])
@pytest.mark.parametrize("centre", ["argmax", "centroid"])
@pytest.mark.parametrize("density", [None, [0.2, 0.5, 0.7]])
def test_matlab_is_the_authors_code(flip: bool, centre: Centre, density: list[float] | None) -> None:
    x = maps(2, 3, 4, 4, seed=3).requires_grad_()
    positive = torch.tensor([[True, False, True], [False, True, True]])
    shares_ = None if density is None else torch.tensor(density, dtype=torch.float64)
    found = gradient(matlab(x, positive, density=shares_, centre=centre, flip=flip), x)
    expected = authors(x.detach(), positive, density, centre, flip)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-13)


def test_the_flip_changes_the_shares_of_two_positives() -> None:
    x = maps(2, 3, 4, 4, seed=3).requires_grad_()
    positive = torch.ones(2, 3, dtype=torch.bool)
    with_flip, without = (gradient(matlab(x, positive, flip=flip), x) for flip in (True, False))
    assert float((with_flip - without).abs().max()) > 1e-4


def test_a_weak_picture_of_the_category_is_pulled_beside_a_strong_one_of_another() -> None:
    x = maps(2, 1, 4, 4)
    x[1, 0, 2, 1] = 1e5
    x.requires_grad_()
    found = gradient(matlab(x, torch.tensor([[True], [False]]), centre="argmax", flip=False), x)
    template = cone(4, 4, *divmod(int(x[0, 0].argmax()), 4))
    torch.testing.assert_close(found[0, 0], -template / 2, rtol=1e-12, atol=1e-12)


def test_all_positive_is_the_code_with_every_picture_positive() -> None:
    x = maps(5, 3, 3, 5, seed=4).requires_grad_()
    everywhere = torch.ones(5, 3, dtype=torch.bool)
    expected = authors(x.detach(), everywhere, None, "argmax", flip=False)
    torch.testing.assert_close(gradient(all_positive(x), x), expected, rtol=1e-12, atol=1e-13)


# What must never happen


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("scale", [0.0, 1e-3, 1.0, 1e3, 1e5])
@pytest.mark.parametrize("chosen", ["none", "some", "all"])
def test_nothing_is_nan_from_silent_filters_or_large_maps(name: str, scale: float, chosen: str) -> None:
    x = (maps(4, 3, 5, 4) * scale).float()
    x[:, 1] = 0
    x.requires_grad_()
    positive = torch.zeros(4, 3, dtype=torch.bool)
    if chosen != "none":
        positive[: 4 if chosen == "all" else 2] = True
    loss = filter_loss(name, x, positive)
    assert loss.shape == (3,)
    assert bool(loss.isfinite().all())
    assert bool(gradient(loss, x).isfinite().all())
    assert all(bool(value.isfinite().all()) for value in vars(terms(x)).values())


@pytest.mark.parametrize("name", LOSSES)
def test_under_autocast_losses_stay_in_full_precision(name: str) -> None:
    x, positive = maps(4, 3, 5, 4).float(), torch.eye(4, 3, dtype=torch.bool)
    plain = filter_loss(name, x, positive)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(filter_loss(name, x, positive), plain)
    assert filter_loss(name, x.bfloat16(), positive).dtype == torch.float32


@pytest.mark.parametrize("name", LOSSES)
def test_a_step_against_the_gradient_settles_the_place(name: str) -> None:
    """With the sign of eq. (4) as printed it would be less settled."""
    x = maps(8, 4, 5, 5, seed=5).requires_grad_()
    everywhere = torch.ones(8, 4, dtype=torch.bool)
    g = gradient(filter_loss(name, x, everywhere), x)
    spatial = terms(x).spatial.sum()
    moved = terms((x - 0.5 * g / g.abs().max()).detach()).spatial.sum()
    assert float(moved) < float(spatial)


def test_errors_say_what_to_do() -> None:
    x = maps(2, 3, 4, 4)
    with pytest.raises(UnknownNameError, match="mutual-information"):
        filter_loss("mutual information", x)
    with pytest.raises(OptionError, match="positive=categories"):
        filter_loss("paper", x)
    with pytest.raises(OptionError, match="density=None"):
        matlab(x, torch.ones(2, 3, dtype=torch.bool), density=torch.tensor([0.5, 1.0, 0.2]))
