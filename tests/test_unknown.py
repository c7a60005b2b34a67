"""The scores of docs/unknown.md, and how well they tell, are what their formulas say."""

from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest
import torch

import whence
from whence.interpretable.measures import maps_of
from whence.models.masked.wrapper import interpretable

DOCS = Path(__file__).parents[1] / "docs"


@pytest.fixture(scope="module")
def page() -> ModuleType:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(DOCS)
        return import_module("unknown")


def groups(seed):
    """Return two groups of few different scores, so that there are many ties."""
    generator = torch.Generator().manual_seed(seed)
    sizes = torch.randint(1, 9, (2,), generator=generator).tolist()
    return [torch.randint(-2, 3, (size,), generator=generator).double() for size in sizes]


def higher(a, b):
    return 1.0 if a > b else 0.5 if a == b else 0.0


@pytest.mark.parametrize("seed", range(20))
def test_the_auroc_is_the_share_of_pairs_in_the_right_order(page, seed):
    known, unknown = groups(seed)
    found = page.placements(known, unknown)
    for one, share in zip(known, found, strict=True):
        assert share == pytest.approx(sum(higher(one, other) for other in unknown) / len(unknown))
    pairs = [higher(one, other) for one in known for other in unknown]
    assert found.mean() == pytest.approx(sum(pairs) / len(pairs))
    assert page.placements(known.exp(), unknown.exp()).tolist() == pytest.approx(found.tolist())


@pytest.mark.parametrize("seed", range(5))
def test_equal_groups_cannot_be_told_apart(page, seed):
    scores, _ = groups(seed)
    assert page.placements(scores, scores).mean() == pytest.approx(0.5)
    assert page.placements(scores + 5, scores).mean() == 1
    assert page.placements(scores - 5, scores).mean() == 0


def test_equal_values_share_their_rank(page):
    assert page.ranks(torch.tensor([3.0, 1.0, 3.0, 2.0, 3.0])).tolist() == [4, 1, 4, 2, 4]


def test_the_numbers_of_scenes_are_those_of_delong(page):
    generator = torch.Generator().manual_seed(0)
    known, unknown = torch.randn(12, generator=generator).round().double() + 1, torch.randn(12, generator=generator)
    unknown = unknown.round().double()
    found = page.by_scene(known, unknown)
    area = sum(higher(one, other) for one in known for other in unknown) / 144
    assert found.mean() == pytest.approx(area)
    for i in range(12):
        below = sum(higher(known[i], other) for other in unknown) / 12
        above = sum(higher(one, unknown[i]) for one in known) / 12
        assert found[i] == pytest.approx(below + above - area)


def test_the_scores_by_loops(page):
    peaks = torch.tensor([[4.0, 1.0, 0.0], [0.0, 2.0, 6.0], [2.0, 1.0, 0.0], [0.0, 4.0, 2.0]]).double()
    logits = torch.tensor([[3.0, 0.0], [0.0, 2.0], [1.0, 0.0], [0.0, 9.0]]).double()
    habits = page.Habits.of(page.Told(logits, peaks))
    assert habits.mean.tolist() == [[3, 1, 0], [0, 3, 4]]
    assert habits.categories.tolist() == [0, 1, 1]
    found = page.scores(page.Told(logits[1:2], peaks[1:2]), habits)
    assert found["softmax"].exp().item() == pytest.approx(1 / (1 + torch.e**-2))
    assert found["energy"].exp().item() == pytest.approx(1 + torch.e**2)
    assert found["silence"].item() == 8
    assert found["largest peak"].item() == 6
    assert found["of the guessed class"].item() == 8
    # Over the two classes the filters' mean peaks are 1.5, 2 and 2.
    assert found["each filter alike"].item() == pytest.approx(0 / 1.5 + 2 / 2 + 6 / 2)
    # The deviations of (2, 4) and (6, 2) are sqrt(2) and sqrt(8).
    assert found["unlike the guessed class"].item() == pytest.approx(-(1**2 / 2 + 2**2 / 8))
    other = page.scores(page.Told(logits[:1], peaks[1:2]), habits)
    assert other["of the guessed class"].item() == 0


@pytest.mark.parametrize("masked", [False, True])
def test_peaks_are_those_behind_the_mask(page, masked):
    model, x = whence.load_model("creatures"), page.drawn(3, 5, strange=1)[0]
    if masked:
        net = interpretable(model.module, x, "top", classes=9)
        model = whence.Classifier(net, model.preprocess, model.labels)
    told = page.told(model, x)
    maps = maps_of(model, [x], None if masked else "top")
    assert torch.equal(told.peaks, maps.amax((2, 3)).double())
    assert torch.equal(told.logits, model.module(x).detach().double())


def test_only_nets_that_are_there_are_measured(page, tmp_path):
    assert [list(found) for found in (page.nets(None, 3), page.nets(tmp_path, 3))] == [["plain"], []]
