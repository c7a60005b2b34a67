"""The landscape: known places, eigenvalues by loops and by scikit-learn, ellipses, and what has none."""

from itertools import combinations
from math import cos, pi, sin

import pytest
import torch

from crossing_samples import INSERTION, around, judgements
from whence.errors import OptionError
from whence.reports.scores import Asked
from whence.studies.crossing import landscape
from whence.studies.crossing.landscape import centred, coordinates, eigenvalues, likeness

pytest.importorskip("sklearn")
DELETION = Asked("deletion:grid=4", "Deletion", "lower")
PLACES = torch.tensor([[0.0, 0.0], [0.6, 0.0], [0.0, 0.3], [0.5, 0.4]]).double()
GRAM = 0.5 + PLACES @ PLACES.T


def distances(places):
    return [float((places[a] - places[b]).norm()) for a, b in combinations(range(len(places)), 2)]


def points(made):
    return torch.tensor([point.at for point in made.points]).double()


def unlike():
    """A likeness of six models that no distances have: of its eigenvalues, some are positive and some negative."""
    values = torch.tensor([0.9, 0.5, 0.1, -0.2, -0.4, 0.3]).double()
    vectors, _ = torch.linalg.qr(torch.randn(6, 6, generator=torch.Generator().manual_seed(0)).double())
    return vectors * values @ vectors.T


def test_likeness_is_the_mean_of_both_directions():
    s = torch.tensor([[0.8, 0.3], [0.5, 0.5]]).double()
    assert torch.allclose(likeness(s), torch.tensor([[0.8, 0.4], [0.4, 0.5]]).double())
    assert torch.allclose(likeness(s, "lower"), torch.tensor([[0.2, 0.6], [0.6, 0.5]]).double())
    alike = likeness(s, normalised=True)
    assert torch.allclose(alike.diagonal(), torch.ones(2).double())
    assert float(alike[0, 1]) == pytest.approx(0.4 / (0.8 * 0.5) ** 0.5)


def test_a_centred_likeness_is_j_k_j():
    k = unlike()
    j = torch.eye(6).double() - 1 / 6
    torch.testing.assert_close(centred(k), j @ k @ j)


def test_places_are_eigenvectors_times_the_roots_of_the_eigenvalues():
    k = unlike()
    values, vectors = torch.linalg.eigh(centred(k))
    expected = vectors[:, [-1, -2]] * values[[-1, -2]].sqrt()
    found = coordinates(k, 2)
    signs = (found * expected).sum(0).sign()
    torch.testing.assert_close(found, expected * signs)
    assert int((values > 1e-9).sum()) >= 2
    torch.testing.assert_close(eigenvalues(k), values.flip(0), rtol=1e-9, atol=1e-9)
    assert (eigenvalues(k) == 0).sum() == 1


def test_an_axis_whose_eigenvalue_is_not_positive_holds_nothing():
    ring = torch.tensor([0.0, 0.0, 2.0]).double()
    k = ring[:, None] * ring - 0.1 * torch.eye(3).double()
    found = coordinates(k, 2)
    assert float(found[:, 0].abs().max()) > 1
    assert (found[:, 1] == 0).all()


@pytest.mark.parametrize("metric", [INSERTION, DELETION])
def test_models_at_known_places_are_found_there(metric):
    """Up to a turn: the distances are the same; no eigenvalue is negative, and two hold all."""
    s = GRAM if metric is INSERTION else 1 - GRAM
    made = landscape(judgements(s.expand(5, 4, 4), metric), resamples=3)
    assert distances(points(made)) == pytest.approx(distances(PLACES))
    assert made.dimensions == 2
    assert sum(made.shares) == pytest.approx(1)
    assert made.shares[0] > made.shares[1]
    assert made.negative == 0


def test_what_negative_eigenvalues_hold_is_told():
    k = unlike()
    made = landscape(judgements(k.expand(3, 6, 6)), resamples=2)
    values = torch.linalg.eigvalsh(centred(k))
    assert made.negative == pytest.approx(float(-values[values < 0].sum() / values.abs().sum()))
    assert made.shares == pytest.approx(tuple((values[[-1, -2]] / values.abs().sum()).tolist()))
    assert 0.2 < made.negative < 0.8


def test_two_models_lie_on_a_line_at_their_distance():
    s = torch.tensor([[0.8, 0.3], [0.5, 0.7]]).double()
    made = landscape(judgements(around(s, 30)), resamples=50)
    assert made.dimensions == 1
    assert made.shares == pytest.approx((1, 0))
    assert float(points(made)[:, 1].abs().max()) == 0
    # The squared distance is K_aa + K_bb - 2 K_ab.
    assert distances(points(made)) == pytest.approx([(0.8 + 0.7 - 2 * 0.4) ** 0.5])
    assert all(point.ellipse.radii[1] == 0 < point.ellipse.radii[0] for point in made.points)


def test_two_names_of_one_model_stand_at_one_place():
    s = torch.tensor([[0.8, 0.3, 0.8], [0.5, 0.7, 0.5], [0.8, 0.3, 0.8]]).double()
    first, _, third = points(landscape(judgements(s.expand(4, 3, 3)), resamples=2))
    torch.testing.assert_close(first, third)


def test_ellipses_hold_about_95_of_100_landscapes_of_new_pictures():
    """Of pictures drawn from the same world: turned onto the world's own landscape, they fall into the ellipses."""
    world, spread, count = GRAM, 0.3, 200
    generator = torch.Generator().manual_seed(3)

    def seen():
        return world + spread * torch.randn(count, 4, 4, generator=generator).double()

    whole = coordinates(world, 2)
    made = landscape(judgements(seen()), resamples=150)
    turn = _turn(points(made), whole)
    inside = []
    for _ in range(100):
        places = coordinates(likeness(seen().mean(0)), 2)
        places = places @ _turn(places, whole) @ turn.T
        for point, mine, own in zip(made.points, places, whole @ turn.T, strict=True):
            # About the world's place in place of the sample's: sizes are tested, not the sample's luck.
            away = mine - own
            axes = [(cos(point.ellipse.angle + t), sin(point.ellipse.angle + t)) for t in (0, pi / 2)]
            parts = [
                float(away @ torch.tensor(axis).double()) / radius
                for axis, radius in zip(axes, point.ellipse.radii, strict=True)
            ]
            inside.append(sum(part**2 for part in parts) <= 1)
    assert 0.88 < sum(inside) / len(inside) < 0.99


def _turn(places, onto):
    u, _, v = torch.linalg.svd(places.T @ onto)
    return u @ v


def test_ellipses_come_from_the_seed_and_shrink_with_more_pictures():
    few, many = around(GRAM, 20, 0.1), around(GRAM, 500, 0.1)
    one, same, other = (landscape(judgements(few), resamples=40, seed=seed) for seed in (1, 1, 2))
    assert one == same
    assert one != other
    more = landscape(judgements(many), resamples=40)
    for a, b in zip(one.points, more.points, strict=True):
        assert a.ellipse.radii[0] > 2 * b.ellipse.radii[0]
        assert a.ellipse.radii[0] >= a.ellipse.radii[1] > 0


def test_landscapes_of_resamples_are_turned_onto_that_of_all():
    """Without, the sign of an axis is chance, and ellipses are as long as the landscape."""
    made = landscape(judgements(around(GRAM, 50, 0.1)), resamples=100)
    size = max(distances(points(made)))
    for point in made.points:
        assert max(point.ellipse.radii) < size / 3
        assert point.ellipse.middle == pytest.approx(point.at, abs=size / 10)


def test_one_picture_gives_no_ellipse():
    made = landscape(judgements(GRAM[None]))
    assert made.resamples == 0
    assert all(point.ellipse is None for point in made.points)


def test_resamples_without_a_number_for_some_pair_are_not_counted():
    scores = around(GRAM, 3)
    scores[1:, 0, 1] = torch.nan
    made = landscape(judgements(scores), resamples=200)
    # The one picture that tells of the pair is missing from (2/3)^3 of the resamples.
    assert 200 * 0.6 < made.resamples < 200 * 0.8


def test_normalised_places_are_of_the_normalised_likeness():
    made = landscape(judgements(GRAM.expand(2, 4, 4)), normalised=True, resamples=2)
    own = GRAM.diagonal().sqrt()
    expected = coordinates(GRAM / own[:, None] / own, 2)
    assert distances(points(made)) == pytest.approx(distances(expected))
    assert made.normalised


@pytest.mark.parametrize(
    ("scores", "options", "said"),
    [
        (torch.ones(3, 1, 1), {}, "at least two models"),
        (torch.full((3, 2, 2), 0.5), {}, "do not differ"),
        (torch.tensor([[[0.1, 0.9], [0.9, 0.1]]]), {}, "do not differ"),
        (torch.tensor([[[0.9, torch.nan], [0.1, 0.9]]]), {}, "no picture"),
        (torch.tensor([[[-0.1, 0.2], [0.1, 0.9]]]), {"normalised": True}, "without normalising"),
    ],
)
def test_what_has_no_landscape_is_refused(scores, options, said):
    with pytest.raises(OptionError, match=said):
        landscape(judgements(scores), **options)
