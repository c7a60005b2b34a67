"""Noisy linear imputation: against a dense solution and the peer's own, its noise, and what it costs nobody."""

import numpy as np
import pytest
import torch
from torch import Tensor

from small_nets import SmallNet, classifier, drawn, pictures
from whence.errors import OptionError, UnknownNameError
from whence.metrics.imputing import _doubled, _halved, imputed, neighbours
from whence.metrics.substrates import filling
from whence.models.session import opened
from whence.pictures.preprocess import Preprocess


def by_solving(x: Tensor, known: Tensor) -> Tensor:
    """Return one picture [C, H, W] with its missing pixels: a dense system, 1/6 beside and 1/12 at corners."""
    height, width = known.shape
    places = [(i, j) for i in range(height) for j in range(width) if not known[i, j]]
    number = {place: k for k, place in enumerate(places)}
    matrix, right = np.zeros((len(places), len(places))), np.zeros((len(places), len(x)))
    for k, (i, j) in enumerate(places):
        for di, dj in [(a, b) for a in (-1, 0, 1) for b in (-1, 0, 1) if (a, b) != (0, 0)]:
            a, b = i + di, j + dj
            if not (0 <= a < height and 0 <= b < width):
                continue
            weight = 1 / 6 if 0 in (di, dj) else 1 / 12
            matrix[k, k] += weight
            if (a, b) in number:
                matrix[k, number[a, b]] -= weight
            else:
                right[k] += weight * x[:, a, b].numpy()
    filled = x.clone()
    for (i, j), value in zip(places, np.linalg.solve(matrix, right), strict=True):
        filled[:, i, j] = torch.from_numpy(value)
    return filled


def masks(height: int, width: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    scattered = torch.rand(height, width, generator=generator)
    cells = torch.rand(1, 1, 4, 4, generator=generator) < 0.5
    one, corner = torch.zeros(2, height, width, dtype=torch.bool)
    one[height // 3, width // 2] = True
    corner[:2, :2] = True
    return {
        "half": scattered < 0.5,
        "few": scattered < 0.03,
        "most": scattered < 0.97,
        "one": one,
        "corner": corner,
        "left": torch.arange(width).expand(height, width) < width // 2,
        "cells": torch.nn.functional.interpolate(cells.float(), (height, width))[0, 0] > 0.5,
    }


@pytest.mark.parametrize("size", [(24, 24), (17, 30), (9, 8), (31, 5)])
def test_it_is_the_solution_of_the_system(size):
    x = torch.rand(3, 3, *size, generator=torch.Generator().manual_seed(1)).double()
    for name, known in masks(*size).items():
        found = imputed(x, known.expand(3, 1, *size))
        wanted = torch.stack([by_solving(one, known) for one in x])
        assert float((found - wanted).abs().max()) < 2e-5, name
        assert torch.equal(found[..., known], x[..., known])


def test_it_is_the_imputation_of_the_peer():
    road = pytest.importorskip("pytorch_grad_cam.metrics.road")
    x = torch.rand(3, 40, 33, generator=torch.Generator().manual_seed(1))
    known = torch.rand(40, 33, generator=torch.Generator().manual_seed(2)) < 0.4
    wanted = road.NoisyLinearImputer(noise=0)(x, known.float())
    assert float((imputed(x[None], known[None, None])[0] - wanted).abs().max()) < 2e-5


@pytest.mark.parametrize("side", [64, 100])
def test_a_large_hole_is_exact_in_single_precision(side):
    """A plane solves the system where the border is given: no value of it may be off."""
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    plane = (0.3 * rows + 0.7 * columns)[None, None] / side
    known = torch.zeros(1, 1, side, side, dtype=torch.bool)
    known[..., [0, -1], :] = known[..., :, [0, -1]] = True
    assert float((imputed(plane, known) - plane).abs().max()) < 5e-5 * float(plane.max())


def test_one_known_colour_spreads_everywhere():
    x = torch.rand(1, 3, 50, 50, generator=torch.Generator().manual_seed(0))
    known = torch.zeros(1, 1, 50, 50, dtype=torch.bool)
    known[..., 7, 41] = True
    torch.testing.assert_close(imputed(x, known), x[..., 7:8, 41:42].expand_as(x))


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (2, 2), (16, 16)])
def test_nothing_known_gives_the_mean_colour_and_all_known_the_picture(size):
    x = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(0))
    none = torch.zeros(2, 1, *size, dtype=torch.bool)
    torch.testing.assert_close(imputed(x, none), x.mean((2, 3), keepdim=True).expand_as(x))
    assert torch.equal(imputed(x, ~none), x)


def test_a_batch_gives_what_single_pictures_give():
    x = torch.rand(4, 3, 40, 40, generator=torch.Generator().manual_seed(0))
    known = torch.stack([*masks(40, 40).values()])[[0, 1, 3, 4], None]
    together = imputed(x, known)
    for row in range(4):
        one = slice(row, row + 1)
        torch.testing.assert_close(imputed(x[one], known[one]), together[one], rtol=0, atol=1e-6)


def test_half_precision_is_solved_in_single():
    x = torch.rand(1, 3, 24, 24, generator=torch.Generator().manual_seed(0)).half()
    known = masks(24, 24)["few"][None, None]
    wanted = imputed(x.float(), known)
    assert imputed(x, known).dtype == torch.float16
    assert float((imputed(x, known).float() - wanted).abs().max()) < 1e-3


def test_the_neighbours_weigh_what_they_weigh():
    v = torch.zeros(1, 1, 5, 5).double()
    v[..., 2, 2] = 12
    wanted = torch.tensor([[1.0, 2, 1], [2, 0, 2], [1, 2, 1]]).double()
    torch.testing.assert_close(neighbours(v)[0, 0, 1:4, 1:4], wanted)


@pytest.mark.parametrize("axis", [2, 3])
def test_going_up_and_down_a_grid_are_transposes(axis):
    generator = torch.Generator().manual_seed(0)
    coarse, fine = (torch.randn(2, 3, *size, generator=generator).double() for size in [(6, 6), (6, 6)])
    fine = torch.cat((fine, -fine.flip(axis)), axis)
    up, down = _doubled(coarse, axis), _halved(fine, axis)
    torch.testing.assert_close((up * fine).sum(), (coarse * down).sum())
    wanted = torch.nn.functional.interpolate(coarse, up.shape[2:], mode="bilinear")
    torch.testing.assert_close(up, wanted)


def filled(x: Tensor, keep: Tensor, seed: int = 0, **arguments: object) -> Tensor:
    with opened(classifier(drawn(SmallNet()), **arguments)) as session:
        return filling(session, x, "noisy-linear", seed)(torch.arange(len(x)), keep)


def test_what_is_left_is_left_and_what_is_gone_is_imputed_with_noise():
    x = pictures(2)
    keep = masks(16, 16)["half"].double().expand(2, 1, 16, 16)
    found = filled(x, keep)
    noise = 0.01 * torch.randn(3, 16, 16, generator=torch.Generator().manual_seed(0)).double()
    wanted = torch.where(keep > 0, x, imputed(x, keep > 0) + noise)
    torch.testing.assert_close(found, wanted)
    assert not torch.equal(found, filled(x, keep, seed=1))


def test_noise_is_in_units_of_pixels_where_these_are_known():
    x = pictures(1)
    keep = masks(16, 16)["half"].double()[None, None]
    # A pixel from 0 to 1 is 5 of the input's units.
    preprocess = Preprocess(mean=(0.5, 0.5, 0.5), std=(0.2, 0.2, 0.2), crop=(16, 16))
    plain, scaled = filled(x, keep), filled(x, keep, preprocess=preprocess)
    smooth = torch.where(keep > 0, x, imputed(x, keep > 0))
    torch.testing.assert_close(scaled - smooth, 5 * (plain - smooth), rtol=1e-4, atol=1e-7)


def test_a_soft_mask_takes_nothing_from_where_a_part_is_gone():
    x = pictures(1)
    keep = torch.ones(1, 1, 16, 16).double()
    keep[..., 8:] = 0
    keep[..., 7] = 0.5
    found = filled(x, keep)
    noise = 0.01 * torch.randn(3, 16, 16, generator=torch.Generator().manual_seed(0)).double()
    base = imputed(x, keep == 1) + noise
    torch.testing.assert_close(found[..., 7], 0.5 * x[..., 7] + 0.5 * base[..., 7])
    torch.testing.assert_close(found[..., 8:], base[..., 8:])
    assert torch.equal(found[..., :7], x[..., :7])


def test_a_mask_that_is_one_to_rounding_is_one():
    x = pictures(1)
    keep = torch.full((1, 1, 16, 16), 1 - 1e-7).double()
    keep[..., 3, 3] = 0
    torch.testing.assert_close(filled(x, keep)[..., 4:], x[..., 4:])


def test_an_unknown_substrate_is_named():
    with opened(classifier(drawn(SmallNet()))) as session:
        with pytest.raises(UnknownNameError, match="no substrate 'noisy-liner': did you mean 'noisy-linear'"):
            filling(session, pictures(1), "noisy-liner")
        with pytest.raises(OptionError, match=r"give \[C, H, W\] of that size, or one such a picture"):
            filling(session, pictures(1), torch.zeros(3, 3))


def test_mean_colour_is_the_picture_s_own():
    x = pictures(2)
    with opened(classifier(drawn(SmallNet()))) as session:
        found = filling(session, x, "mean-colour")(torch.tensor([1]), torch.zeros(1, 1, 16, 16).double())
    torch.testing.assert_close(found, x[1:].mean((2, 3), keepdim=True).expand(1, 3, 16, 16))
