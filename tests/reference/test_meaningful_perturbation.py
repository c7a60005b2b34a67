"""Meaningful perturbation against the paper's loop written out, and what it must find, keep and refuse."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from small_nets import Lambda, SmallNet, drawn, pictures, relative, rounding
from whence import attribute
from whence.errors import OptionError
from whence.models.classifier import Classifier
from whence.pictures.baselines import BASELINES, blurred, make_baseline
from whence.results import Attribution, Passes

TARGETS = [1, 3]
OPTIONS = {"iterations": 6, "mask": 5, "area": 0.01, "smooth": 0.1}


def ours(net: nn.Module, x: Tensor, target: object = TARGETS, **options: object) -> Attribution:
    return attribute(Classifier(net), x, "meaningful-perturbation", target=target, **{**OPTIONS, **options})


def logit(output: Tensor) -> Tensor:
    return output[:, 1]


def lively() -> nn.Module:
    """Return a drawn net whose probabilities are far from 0 and 1, and change with the picture."""
    return drawn(Lambda(lambda net, x: 20 * net.body(x), body=SmallNet())).eval()


def loop(
    net: nn.Module,
    x: Tensor,
    *,
    iterations: int = 6,
    mask: int = 5,
    area: float = 0.01,
    smooth: float = 0.1,
    beta: float = 3.0,
    sigma: float = 1.0,
    rate: float = 0.1,
    jitter: int = 2,
    baseline: str = "blurred",
    seed: int = 0,
) -> Tensor:
    """Return the maps, picture by picture, cell by cell, by torch's own Adam."""
    taus = torch.randint(-jitter, jitter + 1, (iterations, 2), generator=torch.Generator().manual_seed(seed))
    height, width = x.shape[2:]
    wide = sigma * min(height, width) / mask
    maps = []
    for picture, base, c in zip(x, make_baseline(baseline, x, None, seed=seed)[0], TARGETS, strict=True):
        m = torch.full((mask, mask), 0.5).double().requires_grad_()
        adam = torch.optim.Adam([m], lr=rate)

        def up(m: Tensor) -> Tensor:
            stretched = F.interpolate(m[None, None], size=(height, width), mode="bilinear", align_corners=False)
            return blurred(stretched, torch.Generator(), wide)[0, 0]

        for dy, dx in taus.tolist():
            rows = [min(max(r - dy, 0), height - 1) for r in range(height)]
            columns = [min(max(r - dx, 0), width - 1) for r in range(width)]
            shifted, below = picture[:, rows][:, :, columns], base[:, rows][:, :, columns]
            energy = net((shifted * up(m) + below * (1 - up(m)))[None]).softmax(1)[0, c]
            for i in range(mask):
                for j in range(mask):
                    energy = energy + area * (1 - m[i, j]).abs() / mask**2
                    if i + 1 < mask:
                        energy = energy + smooth * (m[i + 1, j] - m[i, j]).abs() ** beta / mask**2
                    if j + 1 < mask:
                        energy = energy + smooth * (m[i, j + 1] - m[i, j]).abs() ** beta / mask**2
            adam.zero_grad()
            energy.backward()
            adam.step()
            m.data.clamp_(0, 1)
        maps.append(up(1 - m.detach()))
    return torch.stack(maps)[:, None]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"jitter": 0, "sigma": 0.0, "area": 0.03},
        {"seed": 4, "jitter": 3, "rate": 0.3},
        {"mask": 3, "beta": 1.5, "smooth": 2.0, "area": 0.0, "baseline": "zeros"},
    ],
)
@pytest.mark.parametrize("size", [(12, 17)])
def test_the_map_is_the_paper_s_loop(size: tuple[int, int], options: dict[str, object]) -> None:
    net, x = lively(), pictures(size=size)
    found, expected = ours(net, x, **options).values, loop(net, x, **options)
    assert found.shape == (2, 1, *size)
    assert expected.std() > 1e-3
    assert relative(found, expected) <= 1e-9


@pytest.mark.parametrize("batch", [None, 1, 2])
def test_a_batch_gives_what_single_pictures_give(batch: int | None) -> None:
    net, x = lively(), pictures(3)
    whole = ours(net, x, 1, batch=batch)
    for row in range(3):
        assert relative(whole.values[row], ours(net, x[row : row + 1], 1).values[0]) <= 1e-11


@pytest.mark.parametrize("batch", [1, 2])
def test_no_more_pictures_than_asked_for_are_held_at_once(batch: int) -> None:
    net, x = lively(), pictures(3)
    model = Classifier(net)
    given: dict[str, object] = {**OPTIONS, "target": 1, "batch": batch}
    attribute(model, x, "meaningful-perturbation", **given)  # finds out how the model is folded, on two pictures
    seen: list[int] = []
    net.register_forward_pre_hook(lambda _, args: seen.append(len(args[0])))
    answer = attribute(model, x, "meaningful-perturbation", **given)
    assert max(seen[1:]) == batch
    assert answer.passes == Passes(forward=3 * 7, backward=3 * 6)


def test_the_seed_moves_the_picture_and_nothing_else_is_drawn() -> None:
    net, x = lively(), pictures()
    assert torch.equal(ours(net, x, seed=1).values, ours(net, x, seed=1).values)
    assert not torch.equal(ours(net, x, seed=1).values, ours(net, x, seed=2).values)
    assert torch.equal(ours(net, x, seed=1, jitter=0).values, ours(net, x, seed=2, jitter=0).values)


def looks_at(rows: slice, columns: slice) -> nn.Module:
    """Return a net that sees nothing but a rectangle."""

    def forward(_: nn.Module, x: Tensor) -> Tensor:
        bright = x[:, :, rows, columns].mean((1, 2, 3))
        return torch.stack((4 * bright, -4 * bright), 1)

    return drawn(Lambda(forward))


@pytest.mark.parametrize(("top", "left"), [(4, 4), (18, 8), (20, 20)])
def test_planted_evidence_is_found(top: int, left: int) -> None:
    square = slice(top, top + 8), slice(left, left + 8)
    x = torch.ones(1, 3, 32, 32).double()
    options = {"baseline": "zeros", "iterations": 60, "mask": 16, "area": 1.0, "sigma": 0.5, "jitter": 0}
    answer = ours(looks_at(*square), x, 0, **options)
    values = answer.values[0, 0]
    inside = torch.zeros(32, 32, dtype=torch.bool)
    inside[square] = True
    assert inside.flatten()[values.argmax()]
    assert values[inside].mean() > 0.8
    assert values[~inside].mean() < 0.3
    assert values.min() >= 0


def test_a_heavier_area_gives_a_smaller_map() -> None:
    net, x = lively(), pictures()
    sizes = [float(ours(net, x, area=area, iterations=40).values.mean()) for area in (0.0, 0.01, 1.0)]
    assert sizes[0] > sizes[1] > sizes[2]


@pytest.mark.parametrize("iterations", [1, 4])
def test_a_score_that_no_mask_changes_gives_no_evidence(iterations: int) -> None:
    answer = ours(rounding(), pictures().float(), logit, batch=7, iterations=iterations)
    assert (answer.values == 0).all()
    for notes in answer.notes:
        assert "nothing to hold on to" in notes[1]
        assert "no evidence" in notes[2]


def test_a_score_with_steps_and_no_slope_gives_no_evidence() -> None:
    net = drawn(Lambda(lambda _, x: torch.stack(((x.mean((1, 2, 3)) > 0).to(x), 0 * x.mean((1, 2, 3))), 1)))
    x = torch.cat((torch.ones(1, 3, 16, 16), -torch.ones(1, 3, 16, 16))).double()
    answer = ours(net, x, 0, baseline="zeros")
    assert (answer.values == 0).all()
    assert all("nothing to hold on to" in notes[2] for notes in answer.notes)


def test_one_picture_without_a_slope_does_not_silence_the_others() -> None:
    net = drawn(Lambda(lambda _, x: torch.stack((x.mean((1, 2, 3)).clamp(min=0), 0 * x.mean((1, 2, 3))), 1)))
    x = torch.cat((torch.ones(1, 3, 16, 16), -torch.ones(1, 3, 16, 16))).double()
    answer = ours(net, x, 0, baseline="zeros")
    assert answer.values[0].max() > 0.5
    assert (answer.values[1] == 0).all()
    assert ["hold on" in " ".join(notes) for notes in answer.notes] == [False, True]


def test_a_class_is_measured_by_its_probability_and_any_other_target_by_its_own_number() -> None:
    net, x = lively(), pictures()
    by_class = ours(net, x, 2)
    assert torch.equal(by_class.values, ours(net, x, "probability:2").values)
    assert torch.equal(by_class.score, net(x)[:, 2])
    assert by_class.notes[0][0] == "where the picture is taken away stands " + BASELINES["blurred"].sentence
    assert any("probability, not its logit" in note for note in by_class.notes[0])
    contrast = ours(net, x, "2 - 3")
    assert torch.equal(contrast.values, ours(net, x, lambda output: output[:, 2] - output[:, 3]).values)
    assert not any("probability" in note for notes in contrast.notes for note in notes)


def test_the_top_class_stays_the_whole_picture_s() -> None:
    net, x = lively(), pictures(4)
    top = net(x).argmax(1)
    assert len(set(top.tolist())) > 1
    assert torch.equal(ours(net, x, None).values, ours(net, x, top.tolist()).values)


def test_it_computes_in_the_model_s_own_type_and_leaves_no_graph() -> None:
    for dtype in (torch.float32, torch.float64):
        values = ours(drawn(SmallNet()).to(dtype), pictures().to(dtype)).values
        assert values.dtype == dtype
        assert not values.requires_grad


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"mask": 17}, "mask=17 on inputs of 16 x 16"),
        ({"mask": 0}, "mask=0: give at least 1"),
        ({"iterations": 0}, "iterations=0: give at least 1"),
        ({"area": -0.1}, "area=-0.1: give at least 0"),
        ({"smooth": -1}, "smooth=-1: give at least 0"),
        ({"beta": 0.5}, "beta=0.5: give at least 1"),
        ({"sigma": -1}, "sigma=-1: give at least 0"),
        ({"rate": -1}, "rate=-1: give at least 0"),
        ({"jitter": -1}, "jitter=-1: give at least 0"),
        ({"batch": 0}, "batch=0: give at least 1"),
    ],
)
def test_what_makes_no_search_is_refused(options: dict[str, float], said: str) -> None:
    with pytest.raises(OptionError, match=said):
        ours(drawn(SmallNet()), pictures(), **options)


def test_a_picture_smaller_than_the_usual_grid_gets_a_cell_a_pixel() -> None:
    net, x = lively(), pictures(size=(9, 12))
    values = [ours(net, x, mask=mask, iterations=3).values for mask in (None, 9)]
    assert torch.equal(*values)
