"""RISE against brute force with the same masks, and what its masks must be."""

from math import ceil

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from small_nets import Lambda, SmallNet, drawn, pictures, relative, rounding
from whence import attribute
from whence.errors import OptionError
from whence.methods.rise import MaskGrids
from whence.models.classifier import Classifier
from whence.pictures.baselines import BASELINES, make_baseline
from whence.results import Attribution

TARGETS = [1, 3]


def ours(net: nn.Module | Classifier, x: Tensor, target: object = TARGETS, **options: object) -> Attribution:
    model = net if isinstance(net, Classifier) else Classifier(net)
    return attribute(model, x, "rise", target=target, **{"samples": 50, **options})


def stretched(count: int, grid: int, keep: float, size: tuple[int, int], seed: int) -> Tensor:
    """Return masks [N, H, W] as the paper makes them: stretch a grid over one cell more, and cut at random."""
    generator = torch.Generator().manual_seed(seed)
    cells = (torch.rand(count, grid, grid, generator=generator) < keep).double()
    cell = [ceil(side / grid) for side in size]
    up = [(grid + 1) * side for side in cell]
    tops = torch.randint(cell[0], (count,), generator=generator)
    lefts = torch.randint(cell[1], (count,), generator=generator)
    made = F.interpolate(cells[:, None], size=up, mode="bilinear", align_corners=False)[:, 0]
    cuts = zip(made, tops.tolist(), lefts.tolist(), strict=True)
    return torch.stack([mask[top : top + size[0], left : left + size[1]] for mask, top, left in cuts])


def masks(count: int, grid: int, keep: float, size: tuple[int, int], seed: int = 0) -> Tensor:
    grids = MaskGrids.draw(count, grid, keep, size, seed)
    return grids.masks(torch.arange(count), torch.empty(0, dtype=torch.float64))


# The masks


@pytest.mark.parametrize(("grid", "size"), [(7, (16, 16)), (3, (16, 21)), (1, (8, 8)), (7, (5, 30)), (4, (64, 64))])
def test_the_masks_are_stretched_grids_cut_at_random(grid: int, size: tuple[int, int]) -> None:
    expected = stretched(40, grid, 0.3, size, seed=5)
    assert expected.shape == (40, *size)
    torch.testing.assert_close(masks(40, grid, 0.3, size, seed=5), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("keep", [0.1, 0.5, 0.8])
def test_every_place_is_kept_equally_often_also_at_the_border(keep: float) -> None:
    count = 4000
    made = masks(count, 7, keep, (28, 35))
    assert made.min() >= 0
    assert made.max() <= 1
    # The variance of a mask's value is at most p (1 - p); places are correlated over a cell of 25.
    error = (keep * (1 - keep) / count) ** 0.5
    share = made.mean(0)
    assert (share - keep).abs().max() < 5 * error
    border = torch.cat((share[0], share[-1], share[:, 0], share[:, -1]))
    assert abs(float(border.mean() - keep)) < 3 * error
    assert abs(float(share.mean() - keep)) < error


def test_a_mask_s_borders_of_cells_lie_anywhere() -> None:
    grids = MaskGrids.draw(4000, 7, 0.5, (28, 35), seed=0)
    for shifts, cell in ((grids.top, 4), (grids.left, 5)):
        counts = torch.bincount(shifts, minlength=cell)
        assert len(counts) == cell
        assert (counts - 4000 / cell).abs().max() < 5 * (4000 / cell) ** 0.5


# The map


@torch.no_grad()
def brute_force(
    net: nn.Module, x: Tensor, made: Tensor, keep: float, base: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return the map and the noise of it, mask by mask."""
    base = torch.zeros_like(x) if base is None else base
    maps, noises = [], []
    for picture, back, c in zip(x, base, TARGETS, strict=True):
        scores = [net((picture * m + back * (1 - m))[None]).softmax(1)[0, c] for m in made]
        terms = torch.stack([f * m / keep for f, m in zip(scores, made, strict=True)])
        maps.append(terms.mean(0))
        beside = terms - terms.mean((1, 2), keepdim=True)
        error = (beside.var(0, unbiased=True) / len(made)).mean().sqrt()
        noises.append(error / maps[-1].std(unbiased=False))
    return torch.stack(maps)[:, None], torch.stack(noises)


@pytest.mark.parametrize(("grid", "keep", "size"), [(7, 0.5, (16, 16)), (3, 0.2, (12, 17))])
def test_the_map_and_its_noise_are_brute_force(grid: int, keep: float, size: tuple[int, int]) -> None:
    net, x = drawn(SmallNet()).eval(), pictures(size=size)
    answer = ours(net, x, grid=grid, keep=keep, seed=3)
    values, noise = brute_force(net, x, stretched(50, grid, keep, size, seed=3), keep)
    assert relative(answer.values, values) <= 1e-10
    assert relative(answer.residual, noise) <= 1e-8
    assert answer.passes.forward == 2 * 51
    assert relative(ours(net, x, grid=grid, keep=keep, seed=4).values, values) > 1e-2


def test_a_baseline_stands_where_the_picture_is_masked() -> None:
    net, x = drawn(SmallNet()).eval(), pictures()
    base = make_baseline("blurred", x, None)[0]
    values, _ = brute_force(net, x, stretched(50, 7, 0.5, (16, 16), 0), 0.5, base)
    assert relative(ours(net, x, baseline="blurred").values, values) <= 1e-10


@pytest.mark.parametrize("batch", [1, 7, 1000])
def test_masks_in_chunks_give_what_all_at_once_give(batch: int) -> None:
    net, x = drawn(SmallNet()), pictures()
    model = Classifier(net)
    expected = ours(model, x)
    seen: list[int] = []
    net.register_forward_pre_hook(lambda _, args: seen.append(len(args[0])))
    answer = ours(model, x, batch=batch)
    assert max(seen[1:]) == min(batch, 100)
    assert sum(seen) == answer.passes.forward == 102
    assert relative(answer.values, expected.values) <= 1e-12
    assert relative(answer.residual, expected.residual) <= 1e-10


def test_all_pictures_of_a_batch_get_the_same_masks() -> None:
    net, x = drawn(SmallNet()), pictures(3)
    whole = ours(net, x, 1)
    for row in range(3):
        alone = ours(net, x[row : row + 1], 1)
        assert relative(whole.values[row], alone.values[0]) <= 1e-12
        assert relative(whole.residual[row], alone.residual[0]) <= 1e-10


def test_the_noise_is_how_far_two_seeds_are_apart() -> None:
    net, x = bright_corner(), pictures(1, size=28).abs()
    answers = [ours(net, x, logit, samples=800, seed=seed) for seed in range(8)]
    maps = torch.cat([answer.values[:, 0] for answer in answers])
    beside = maps - maps.mean((1, 2), keepdim=True)
    spread = beside.mean(0).std(unbiased=False)
    error = beside.var(0, unbiased=True).mean().sqrt() / spread
    said = torch.cat([answer.residual for answer in answers]).mean()
    assert 0.75 < float(said / error) < 1.33
    more = ours(net, x, logit, samples=3200)
    assert 0.4 < float(more.residual / said) < 0.65  # a half, but for the noise in what the pattern itself is


def logit(output: Tensor) -> Tensor:
    return output[:, 1]


def test_a_score_that_only_rounds_differently_gives_no_evidence() -> None:
    answer = ours(rounding(), pictures().float(), logit, batch=7)
    assert (answer.values == 0).all()
    assert (answer.residual == 0).all()
    assert all("no evidence" in notes[-1] for notes in answer.notes)


def test_what_stands_where_the_picture_is_masked_is_said() -> None:
    for notes in ours(drawn(SmallNet()), pictures(), logit).notes:
        assert notes[0] == "where the picture is taken away stands " + BASELINES["zeros"].sentence


def bright_corner() -> nn.Module:
    """Return a net that sees nothing but the upper left quarter."""
    return drawn(Lambda(lambda _, x: torch.stack((0 * x.sum((1, 2, 3)), x[:, :, :14, :14].mean((1, 2, 3))), 1)))


def test_the_map_is_high_where_the_score_comes_from() -> None:
    values = ours(bright_corner(), torch.ones(1, 3, 28, 28).double(), logit, samples=4000).values[0, 0]
    assert values[3:11, 3:11].min() > values[18:, 18:].max()


def test_a_class_is_measured_by_its_probability_and_any_other_target_by_its_own_number() -> None:
    net, x = drawn(SmallNet()).eval(), pictures()
    by_class = ours(net, x, 2)
    assert torch.equal(by_class.values, ours(net, x, "probability:2").values)
    assert relative(by_class.score, net(x)[:, 2].detach()) <= 1e-12
    assert any("probability, not its logit" in note for note in by_class.notes[0])
    contrast = ours(net, x, "2 - 3")
    assert torch.equal(contrast.values, ours(net, x, lambda output: output[:, 2] - output[:, 3]).values)
    assert not any("probability" in note for notes in contrast.notes for note in notes)


def test_the_top_class_stays_the_whole_picture_s() -> None:
    net, x = drawn(SmallNet()).eval(), pictures(4)
    top = net(x).argmax(1)
    assert len(set(top.tolist())) > 1
    assert torch.equal(ours(net, x, None).values, ours(net, x, top.tolist()).values)


def test_masked_pictures_lie_in_memory_as_the_picture_does() -> None:
    net = drawn(SmallNet()).float()
    seen: list[Tensor] = []
    net.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    for order in (torch.channels_last, torch.contiguous_format):
        model = Classifier(net)
        model.channels_last[3, 16, 16] = order is torch.channels_last
        seen.clear()
        attribute(model, pictures().float(), "rise", samples=20, batch=8)
        assert len(seen) > 3
        assert all(x.is_contiguous(memory_format=order) for x in seen)


@pytest.mark.parametrize(
    "options", [{"samples": 1}, {"grid": 0}, {"keep": 0.0}, {"keep": 1}, {"keep": -0.5}, {"batch": 0}]
)
def test_what_makes_no_masks_is_refused(options: dict[str, float]) -> None:
    with pytest.raises(OptionError, match="give"):
        ours(drawn(SmallNet()), pictures(), **options)


def test_a_map_that_is_mostly_noise_says_so() -> None:
    def corner(x: Tensor) -> Tensor:
        bright = x[:, :, :6, :6].mean((1, 2, 3))
        return torch.stack((bright, -bright), dim=1)

    for samples, mostly in ((4, True), (2000, False)):
        answer = attribute(corner, torch.ones(1, 3, 16, 16), "rise", target=0, samples=samples, grid=3)
        assert bool(answer.residual[0] > 0.5) == mostly
        assert any("mostly noise" in note for note in answer.notes[0]) == mostly
