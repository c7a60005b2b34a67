"""Deletion and insertion: against sums written out as loops, closed forms, ties and scales."""

from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F

from metric_samples import answer, heat, probability
from small_nets import SmallNet, drawn, pictures
from whence.errors import OptionError
from whence.metrics import measure

KINDS = ("deletion", "insertion")


@pytest.fixture(scope="module")
def net():
    return drawn(SmallNet()).eval()


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.no_grad():
        yield


def share_taken(values: torch.Tensor, area: float) -> torch.Tensor:
    """Return how much of each place is taken when an area is taken from the highest down; by sorting, no ties."""
    flat = values.flatten()
    taken = torch.zeros_like(flat)
    for rank, place in enumerate(flat.argsort(descending=True).tolist()):
        taken[place] = min(1.0, max(0.0, area - rank))
    return taken.reshape(values.shape)


def by_loop(net, x, maps, kind, steps, base, enlarge, target=0):
    """Return the curve and its trapezoid area of one picture, point by point."""
    points = []
    for step in range(steps + 1):
        taken = enlarge(share_taken(maps, step / steps * maps.numel())[None, None])
        keep = taken if kind == "insertion" else 1 - taken
        points.append(float(net(x * keep + base * (1 - keep)).softmax(1)[0, target]))
    area = sum((a + b) / 2 / steps for a, b in pairwise(points))
    return points, area


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("grid", "edges"), [("pixels", "soft"), ("map", "soft"), ("map", "sharp"), (4, "sharp"), (5, "soft")]
)
def test_a_curve_is_that_of_a_loop(net, kind, grid, edges):
    x, maps = pictures(2), heat(2, 8, 8)
    base = torch.randn(x.shape, generator=torch.Generator().manual_seed(1)).double()
    found = measure(net, x, answer(maps, x, 3), kind, grid=grid, edges=edges, substrate=base, steps=7, batch=5)

    def enlarge(mask):
        if edges == "sharp":
            return F.interpolate(mask, (16, 16), mode="nearest")
        return F.interpolate(mask, (16, 16), mode="bilinear") if mask.shape[-1] != 16 else mask

    pixels = F.interpolate(maps, (16, 16), mode="bilinear")
    ranked = {"map": maps, "pixels": pixels}.get(grid)
    ranked = F.adaptive_avg_pool2d(pixels, grid) if ranked is None else ranked
    for row in range(2):
        one = slice(row, row + 1)
        points, area = by_loop(net, x[one], ranked[row, 0], kind, 7, base[one], enlarge, 3)
        torch.testing.assert_close(found.curve.value[row], torch.tensor(points).double(), rtol=1e-6, atol=1e-9)
        assert float(found.value[row]) == pytest.approx(area, rel=1e-6)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("steps", [1, 4, 50])
def test_a_probability_that_is_linear_in_the_share_has_a_known_area(kind, steps):
    """From 0.8 to 0.2 or back, whatever the map: 0.5."""
    x = torch.full((3, 1, 6, 6), 0.8).double()
    net = probability(lambda x: x.mean((1, 2, 3)))
    base = torch.full((1, 6, 6), 0.2).double()
    found = measure(net, x, answer(heat(3, 6, 6), x), kind, substrate=base, steps=steps)
    torch.testing.assert_close(found.value, torch.full((3,), 0.5).double())
    first, last = (0.8, 0.2) if kind == "deletion" else (0.2, 0.8)
    torch.testing.assert_close(found.curve.value[:, 0], torch.full((3,), first).double())
    torch.testing.assert_close(found.curve.value[:, -1], torch.full((3,), last).double())
    assert found.curve.share.tolist() == pytest.approx([k / steps for k in range(steps + 1)])


def test_a_map_that_is_right_falls_at_once_and_one_that_is_wrong_at_the_end():
    """The probability is a quarter of the picture's: deletion of that quarter first ends at a quarter of the way."""
    x = torch.full((1, 1, 4, 4), 0.8).double()
    net = probability(lambda x: x[:, :, 0].mean((1, 2)))
    right = torch.zeros(1, 1, 4, 4).double()
    right[:, :, 0] = 1
    base = torch.full((1, 4, 4), 0.2).double()

    def area(kind, maps):
        return float(measure(net, x, answer(maps, x), kind, substrate=base, steps=8).value)

    # Down from 0.8 to 0.2 over the first quarter, then 0.2; the other way round for the wrong one.
    assert area("deletion", right) == pytest.approx(0.25 * 0.5 + 0.75 * 0.2)
    assert area("insertion", right) == pytest.approx(0.25 * 0.5 + 0.75 * 0.8)
    assert area("deletion", -right) == pytest.approx(0.75 * 0.8 + 0.25 * 0.5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_constant_map_mixes_the_whole_picture(net, kind):
    x = pictures(1)
    base = torch.zeros_like(x)
    found = measure(net, x, answer(torch.full((1, 1, 8, 8), 3.0).double(), x), kind, substrate=base, steps=4)
    for share, value in zip(found.curve.share.tolist(), found.curve.value[0].tolist(), strict=True):
        keep = share if kind == "insertion" else 1 - share
        assert value == pytest.approx(float(net(x * keep).softmax(1)[0, 0]), rel=1e-9)


def test_tied_places_go_together_in_equal_parts(net):
    x, base = pictures(1), torch.zeros(3, 16, 16).double()
    tied = torch.zeros(1, 1, 16, 16).double()
    tied[..., :8, :] = 1
    found = measure(net, x, answer(tied, x), "deletion", substrate=base, steps=4)
    keep = torch.ones(16, 16).double()
    keep[:8] = 0.5
    assert float(found.curve.value[0, 1]) == pytest.approx(float(net(x * keep).softmax(1)[0, 0]), rel=1e-9)


def test_scales(net):
    x, maps = pictures(2), heat(2, 8, 8)
    for kind in KINDS:
        plain, ratio, span = (
            measure(net, x, answer(maps, x), kind, scale=scale, steps=5)
            for scale in ("probability", "ratio", "range")
        )
        whole, gone = (0, -1) if kind == "deletion" else (-1, 0)
        high, low = plain.curve.value[:, [whole]], plain.curve.value[:, [gone]]
        torch.testing.assert_close(ratio.curve.value, plain.curve.value / high)
        torch.testing.assert_close(span.curve.value, (plain.curve.value - low) / (high - low))
        torch.testing.assert_close(ratio.value, plain.value / high[:, 0])
        assert plain.notes == ratio.notes == ((), ())


def test_a_curve_without_a_range_is_not_scaled():
    x = torch.full((1, 1, 4, 4), 0.5).double()
    net = probability(lambda x: x.mean((1, 2, 3)))
    base = torch.full((1, 4, 4), 0.5).double()
    found = measure(net, x, answer(heat(1, 4, 4), x), "deletion", substrate=base, scale="range")
    assert found.value.isnan().all()
    assert "same probability" in found.notes[0][0]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("side", [7, 8, 11])
def test_the_variant_is_the_sum_of_the_repository(net, kind, side):
    """Cells in order, max(1, N // 50) a step, corners aligned; the last step adds the rest, and no probability."""
    x, maps = pictures(2), heat(2, side, side)
    base = torch.zeros_like(x)
    found = measure(net, x, answer(maps, x, 2), kind, variant="igos-pp", substrate=base)
    count = side * side
    step = max(1, count // 50)
    for row in range(2):
        order = maps[row].flatten().argsort(descending=True).tolist()
        total, done = 0.0, 0
        while done < count:
            rest = count - done
            more = rest > step
            done = done + step if more else count
            mask = torch.zeros(count).double()
            mask[order[:done]] = 1
            taken = F.interpolate(mask.reshape(1, 1, side, side), (16, 16), mode="bilinear", align_corners=True)
            keep = taken if kind == "insertion" else 1 - taken
            p = float(net(x[row : row + 1] * keep).softmax(1)[0, 2])
            total += p * step if more else rest
        assert float(found.value[row]) == pytest.approx(total / count, rel=1e-9)


def test_the_steps_of_the_variant_are_those_of_the_repository():
    net = probability(lambda x: x.mean((1, 2, 3)).clamp(0.1, 0.9))
    x = torch.full((1, 1, 28, 28), 0.5).double()
    for side, steps in ((7, 49), (14, 66), (28, 53)):
        found = measure(net, x, answer(heat(1, side, side), x), "deletion", variant="igos-pp", substrate=x)
        assert len(found.curve.share) == steps


def test_the_variant_takes_ties_by_position(net):
    x = pictures(1)
    flat = torch.zeros(1, 1, 7, 7).double()
    falling = -torch.arange(49.0).double().reshape(1, 1, 7, 7)
    one, other = (measure(net, x, answer(m, x), "deletion", variant="igos-pp").value for m in (flat, falling))
    assert torch.equal(one, other)


@pytest.mark.parametrize("batch", [1, 2, 7, 100])
def test_the_batch_changes_nothing(net, batch):
    x, maps = pictures(2), heat(2, 8, 8)
    one, other = (measure(net, x, answer(maps, x), "deletion", steps=6, batch=b).value for b in (None, batch))
    torch.testing.assert_close(one, other, rtol=1e-12, atol=0)


def test_maps_of_values_in_no_places_rank_nothing(net):
    x = pictures(1)
    found = measure(net, x, answer(torch.ones(1, 8).double(), x), "deletion", steps=2, substrate="zeros")
    assert float(found.curve.value[0, 1]) == pytest.approx(float(net(x / 2).softmax(1)[0, 0]), rel=1e-9)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"grid": 17}, "grid=17 on inputs of 16 x 16"),
        ({"grid": 0}, "grid=0"),
        ({"steps": 0}, "steps=0: give at least 1"),
        ({"batch": 0}, "batch=0: give at least 1"),
        ({"edges": "hard"}, "expected soft or sharp"),
        ({"substrate": torch.zeros(3, 8, 8)}, r"a substrate of shape \[3, 8, 8\]"),
        ({"substrate": torch.zeros(3, 3, 16, 16)}, r"a substrate of shape \[3, 3, 16, 16\]"),
        ({"stps": 3}, "did you mean 'steps'"),
    ],
)
def test_bad_options_are_refused_in_one_sentence(net, options, said):
    x = pictures(2)
    with pytest.raises(OptionError, match=said) as caught:
        measure(net, x, answer(heat(2, 8, 8), x), "deletion", **options)
    assert "\n" not in str(caught.value)
