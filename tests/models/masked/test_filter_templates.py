"""Templates and the mask, against loops over places, and against the authors' code on a square map."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from whence.errors import OptionError
from whence.models.masked.mask import Mask, Rectified
from whence.models.masked.templates import centres, cones, table

SIDES = st.integers(2, 6)


def maps(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).clamp(min=0)


def cone(h: int, w: int, i: int, j: int, beta: float, floor: float) -> Tensor:
    out = torch.zeros(h, w, dtype=torch.float64)
    for a in range(h):
        for b in range(w):
            out[a, b] = max(1 - beta * (abs(a - i) / h + abs(b - j) / w), floor)
    return out


def largest(x: Tensor) -> tuple[int, int]:
    best, at = -1.0, (0, 0)
    for a in range(x.shape[0]):
        for b in range(x.shape[1]):
            if x[a, b] > best:
                best, at = float(x[a, b]), (a, b)
    return at


@settings(max_examples=25, deadline=None)
@given(h=SIDES, w=SIDES, beta=st.floats(0.5, 6), seed=st.integers(0, 999))
def test_the_mask_is_a_cone_around_the_largest_place(h: int, w: int, beta: float, seed: int) -> None:
    x = maps(2, 3, h, w, seed=seed)
    masked = Mask(beta)(x)
    for b in range(2):
        for k in range(3):
            expected = x[b, k] * cone(h, w, *largest(x[b, k]), beta, 0.0)
            torch.testing.assert_close(masked[b, k], expected, rtol=1e-13, atol=1e-13)


def test_a_mask_of_one_slope_a_filter() -> None:
    x, beta = maps(2, 3, 4, 5), torch.tensor([1.0, 2.5, 4.0])
    masked = Mask(beta)(x)
    for k in range(3):
        torch.testing.assert_close(masked[:, k : k + 1], Mask(float(beta[k]))(x[:, k : k + 1]))


@settings(max_examples=15, deadline=None)
@given(h=SIDES, w=SIDES, beta=st.floats(0.5, 6))
def test_the_table_holds_every_template(h: int, w: int, beta: float) -> None:
    rows = table(maps(1, 1, h, w), beta)
    assert rows.shape == (h * w + 1, h * w)
    for i in range(h):
        for j in range(w):
            torch.testing.assert_close(rows[i * w + j].reshape(h, w), cone(h, w, i, j, beta, -1.0))
    assert bool((rows[-1] == -1).all())


@pytest.mark.parametrize("n", [3, 6, 7])
def test_the_cone_is_the_codes_on_a_square_map(n: int) -> None:
    """The code: max(1 - w_f (|X - mu_x| + |Y - mu_y|), -1), X, Y = linspace(-1, 1, n), w_f = 2."""
    line = torch.linspace(-1, 1, n, dtype=torch.float64)
    for i, j in [(0, 0), (1, 2), (n - 1, 1)]:
        code = (1 - 2 * ((line - line[i]).abs()[:, None] + (line - line[j]).abs())).clamp(min=-1)
        ours = cones(torch.tensor([[[i, j]]]), maps(1, 1, n, n), 4 * n / (n - 1), floor=-1.0)[0, 0]
        torch.testing.assert_close(ours, code, rtol=1e-12, atol=1e-12)


def test_the_centroid_is_the_rounded_mean_of_places() -> None:
    x = maps(40, 2, 5, 7)
    found = centres(x, "centroid")
    for b in range(40):
        for k in range(2):
            mass = float(x[b, k].sum())
            mean = [0.0, 0.0]
            for i in range(5):
                for j in range(7):
                    mean[0] += i * float(x[b, k, i, j]) / mass
                    mean[1] += j * float(x[b, k, i, j]) / mass
            assert found[b, k].tolist() == [int(mean[0] + 0.5), int(mean[1] + 0.5)]


@pytest.mark.parametrize("centre", ["argmax", "centroid"])
def test_to_the_gradient_the_mask_is_a_constant(centre: str) -> None:
    x, g = maps(2, 3, 4, 5).requires_grad_(), torch.randn(2, 3, 4, 5, dtype=torch.float64)
    mask = Mask(4.0, centre)
    (found,) = torch.autograd.grad(mask(x), x, g)
    constant = torch.where(x > 0, mask(x) / x, cones(centres(x, centre), x, 4.0, 0.0))
    torch.testing.assert_close(found, g * constant.detach(), rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("centre", ["argmax", "centroid"])
def test_a_silent_map_stays_silent(centre: str) -> None:
    x = torch.zeros(2, 3, 4, 4).requires_grad_()
    masked = Mask(centre=centre)(x)
    (gradient,) = torch.autograd.grad(masked.sum(), x)
    assert not masked.any()
    assert bool(gradient.isfinite().all())


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("centre", ["argmax", "centroid"])
def test_in_half_precision_the_mask_is_rounded_last(kind: torch.dtype, centre: str) -> None:
    x, mask = maps(4, 3, 14, 14).to(kind), Mask(3.3, centre)
    expected = cones(centres(x.float(), centre), x.float(), 3.3, floor=0.0).to(kind)
    assert torch.equal(mask(x), x * expected)


def test_a_mask_that_is_off_returns_a_copy() -> None:
    x, mask = maps(1, 2, 3, 3), Mask()
    mask.on = False
    out = mask(x)
    assert torch.equal(out, x)
    assert out.data_ptr() != x.data_ptr()


def test_the_added_convolution_starts_as_identity() -> None:
    x, added = maps(2, 5, 4, 6), Rectified(5).double()
    assert torch.equal(added(x), x)
    assert torch.equal(added(x - 0.3), (x - 0.3).relu())


def test_a_wrong_centre_is_refused() -> None:
    with pytest.raises(OptionError, match="argmax"):
        Mask.__init__.__wrapped__(Mask.__new__(Mask), centre="argmx")


@pytest.mark.parametrize("beta", [-4.0, 0.0, float("nan"), float("inf"), torch.tensor([4.0, -1.0])])
def test_a_slope_that_is_none_is_refused(beta) -> None:
    with pytest.raises(OptionError, match="give numbers above 0"):
        Mask(beta)
