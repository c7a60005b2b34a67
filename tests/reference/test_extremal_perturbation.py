"""Extremal perturbation against its loop written out, and what its masks must be, find and refuse."""

from math import ceil, exp, hypot

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from small_nets import Lambda, SmallNet, drawn, pictures, relative, rounding
from whence import attribute
from whence.errors import OptionError
from whence.models.classifier import Classifier
from whence.pictures.baselines import make_baseline
from whence.results import Attribution, Passes

TARGETS = [1, 3]
AREAS = (0.15, 0.4)
OPTIONS = {"iterations": 5, "mask": 5, "areas": AREAS, "sigma": 1.5}


def ours(net: nn.Module | Classifier, x: Tensor, target: object = TARGETS, **options: object) -> Attribution:
    model = net if isinstance(net, Classifier) else Classifier(net)
    return attribute(model, x, "extremal-perturbation", target=target, **{**OPTIONS, **options})


def logit(output: Tensor) -> Tensor:
    return output[:, 1]


def lively() -> nn.Module:
    """Return a drawn net whose probabilities are far from 0 and 1, and change with the picture."""
    return drawn(Lambda(lambda net, x: 20 * net.body(x), body=SmallNet())).eval()


def smooth_maximum(p: Tensor, sigma: float) -> Tensor:
    """Return the smooth mask of a grid of parameters, cell by cell; outside the grid all is zero."""
    side, radius = len(p), ceil(2 * sigma)
    rows = []
    for u in range(side):
        for v in range(side):
            near = []
            for i in range(u - radius, u + radius + 1):
                for j in range(v - radius, v + radius + 1):
                    k = exp(-2 * max(hypot(i - u, j - v) / sigma - 0.5, 0) ** 2)
                    near.append(k * p[i, j] if 0 <= i < side and 0 <= j < side else p.new_zeros(()))
            near = torch.stack(near)
            rows.append((near * (20 * near).exp()).sum() / (20 * near).exp().sum())
    return torch.stack(rows).reshape(side, side)


def template(area: float, cells: int) -> Tensor:
    """Return as many ones as the area has cells, after zeros; a part of a cell stands between them."""
    ones = int(area * cells + 1e-9)
    r = torch.zeros(cells).double()
    r[cells - ones :] = 1
    if ones < cells:
        r[cells - ones - 1] = area * cells - ones
    return r


def loop(
    net: nn.Module,
    x: Tensor,
    *,
    areas: tuple[float, ...] = AREAS,
    variant: str = "preserve",
    iterations: int = 5,
    mask: int = 5,
    sigma: float = 1.5,
    rate: float = 0.1,
    jitter: int = 2,
    baseline: str = "blurred",
    seed: int = 0,
) -> Tensor:
    """Return the masks [B, areas, H, W], one after the other, by torch's own Adam."""
    taus = torch.randint(-jitter, jitter + 1, (iterations, 2), generator=torch.Generator().manual_seed(seed))
    height, width = x.shape[2:]

    def up(p: Tensor) -> Tensor:
        m = smooth_maximum(p, sigma)[None, None]
        return F.interpolate(m, size=(height, width), mode="bilinear", align_corners=False)[0]

    found = []
    for picture, base, c in zip(x, make_baseline(baseline, x, None, seed=seed)[0], TARGETS, strict=True):
        for area in areas:
            p = torch.full((mask, mask), 0.5).double().requires_grad_()
            adam = torch.optim.Adam([p], lr=rate)
            for t, (dy, dx) in enumerate(taus.tolist()):
                rows = [min(max(r - dy, 0), height - 1) for r in range(height)]
                columns = [min(max(r - dx, 0), width - 1) for r in range(width)]
                shifted, below = picture[:, rows][:, :, columns], base[:, rows][:, :, columns]
                kept = up(p) if variant == "preserve" else 1 - up(p)
                score = net((shifted * kept + below * (1 - kept))[None]).softmax(1)[0, c]
                ranked = smooth_maximum(p, sigma).flatten().sort().values
                miss = ((ranked - template(area, mask**2)) ** 2).mean()
                weight = 100 * (t / iterations) ** 2
                energy = weight * miss + (-score if variant == "preserve" else score)
                adam.zero_grad()
                energy.backward()
                adam.step()
                p.data.clamp_(0, 1)
            found.append(up(p.detach()))
    return torch.stack(found).reshape(len(x), len(areas), height, width)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"variant": "delete", "areas": (0.3,), "jitter": 0},
        {"mask": 4, "sigma": 2.2, "seed": 3, "rate": 0.03, "baseline": "zeros"},
    ],
)
@pytest.mark.parametrize("size", [(12, 17)])
def test_the_masks_are_the_loop_s(size: tuple[int, int], options: dict[str, object]) -> None:
    net, x = lively(), pictures(size=size)
    answer, expected = ours(net, x, **options), loop(net, x, **options)
    assert expected.std() > 1e-3
    areas = options.get("areas", AREAS)
    assert list(answer.parts) == [f"area-{area}" for area in areas]
    for found, wanted in zip(answer.parts.values(), expected.unbind(1), strict=True):
        assert found.shape == (2, 1, *size)
        assert relative(found[:, 0], wanted) <= 1e-9
    assert relative(answer.values[:, 0], expected.mean(1)) <= 1e-9


@pytest.mark.parametrize("batch", [None, 1, 3])
def test_a_batch_gives_what_single_pictures_give(batch: int | None) -> None:
    net, x = lively(), pictures(3)
    whole = ours(net, x, 1, batch=batch)
    assert whole.passes == Passes(forward=3 * 11, backward=3 * 10)
    for row in range(3):
        alone = ours(net, x[row : row + 1], 1)
        assert relative(whole.values[row], alone.values[0]) <= 1e-11
        for name, part in alone.parts.items():
            assert relative(whole.parts[name][row], part[0]) <= 1e-11


def test_no_more_pictures_than_asked_for_are_held_at_once() -> None:
    net, seen = lively(), []
    model = Classifier(net)
    ours(model, pictures(3), 1, batch=4)
    net.register_forward_pre_hook(lambda _, args: seen.append(len(args[0])))
    ours(model, pictures(3), 1, batch=4)
    assert seen[1:] == [4, 2] * 5


def test_the_seed_moves_the_picture_and_nothing_else_is_drawn() -> None:
    net, x = lively(), pictures()
    assert torch.equal(ours(net, x, seed=1).values, ours(net, x, seed=1).values)
    assert not torch.equal(ours(net, x, seed=1).values, ours(net, x, seed=2).values)
    assert torch.equal(ours(net, x, seed=1, jitter=0).values, ours(net, x, seed=2, jitter=0).values)


def looks_at(rows: slice, columns: slice) -> nn.Module:
    """Return a net that sees nothing but a rectangle."""

    def forward(_: nn.Module, x: Tensor) -> Tensor:
        bright = x[:, :, rows, columns].mean((1, 2, 3))
        return torch.stack((2 * bright, -2 * bright), 1)

    return drawn(Lambda(forward))


@pytest.mark.parametrize("variant", ["preserve", "delete"])
@pytest.mark.parametrize(("top", "left"), [(4, 4), (18, 8)])
def test_planted_evidence_is_found_by_masks_of_the_areas_asked_for(top: int, left: int, variant: str) -> None:
    square = slice(top, top + 10), slice(left, left + 10)
    x, areas = torch.ones(1, 3, 32, 32).double(), (0.1, 0.2, 0.4)
    options = {"baseline": "zeros", "iterations": 60, "mask": 16, "variant": variant}
    answer = ours(looks_at(*square), x, 0, areas=areas, **options)
    inside = torch.zeros(32, 32, dtype=torch.bool)
    inside[square] = True
    assert inside.flatten()[answer.values[0, 0].argmax()]
    for area, part in zip(areas, answer.parts.values(), strict=True):
        assert abs(float(part.mean()) - area) < 0.03
        assert part[0, 0][inside].mean() > 2 * part[0, 0][~inside].mean()
        assert part.min() >= 0
        assert part.max() <= 1


def test_one_area_is_its_own_map() -> None:
    answer = ours(lively(), pictures(), areas=0.2)
    assert list(answer.parts) == ["area-0.2"]
    assert torch.equal(answer.values, answer.parts["area-0.2"])


def test_masks_of_several_areas_are_those_of_each_alone() -> None:
    net, x = lively(), pictures()
    together = ours(net, x).parts
    for area in AREAS:
        (alone,) = ours(net, x, areas=area).parts.values()
        assert relative(together[f"area-{area}"], alone) <= 1e-11


def test_a_score_that_no_mask_changes_gives_no_evidence() -> None:
    answer = ours(rounding(), pictures().float(), logit, batch=7)
    for found in (answer.values, *answer.parts.values()):
        assert (found == 0).all()
    for notes in answer.notes:
        assert "nothing to hold on to" in notes[1]
        assert "no evidence" in notes[2]


def test_a_class_is_measured_by_its_probability_and_any_other_target_by_its_own_number() -> None:
    net, x = lively(), pictures()
    by_class = ours(net, x, 2)
    assert torch.equal(by_class.values, ours(net, x, "probability:2").values)
    assert torch.equal(by_class.score, net(x)[:, 2])
    assert any("probability, not its logit" in note for note in by_class.notes[0])
    contrast = ours(net, x, "2 - 3")
    assert torch.equal(contrast.values, ours(net, x, lambda output: output[:, 2] - output[:, 3]).values)
    assert not any("probability" in note for notes in contrast.notes for note in notes)


def test_it_computes_in_the_model_s_own_type_and_leaves_no_graph() -> None:
    for dtype in (torch.float32, torch.float64):
        answer = ours(lively().to(dtype), pictures().to(dtype))
        for found in (answer.values, *answer.parts.values()):
            assert found.dtype == dtype
            assert not found.requires_grad


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"mask": 17}, "mask=17 on inputs of 16 x 16"),
        ({"mask": 0}, "mask=0: give at least 1"),
        ({"iterations": 0}, "iterations=0: give at least 1"),
        ({"areas": (0.1, 0.0)}, "more than 0 and less than 1"),
        ({"areas": 1.0}, "more than 0 and less than 1"),
        ({"areas": (0.1, 0.2, 0.1)}, "give different shares"),
        ({"sigma": 0}, "sigma=0: give a width"),
        ({"rate": -1}, "rate=-1: give at least 0"),
        ({"jitter": -1}, "jitter=-1: give at least 0"),
        ({"batch": 0}, "batch=0: give at least 1"),
        ({"variant": "both"}, "expected preserve or delete"),
    ],
)
def test_what_makes_no_search_is_refused(options: dict[str, object], said: str) -> None:
    with pytest.raises(OptionError, match=said):
        ours(lively(), pictures(), **options)
