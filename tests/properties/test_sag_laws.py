"""What holds of every structured attention graph: its budget, an end before its time, its shape, its batch."""

import json
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from sag_toys import Toy, holds, is_a_graph, log_odds, two_classes
from small_nets import SIZE, SmallNet, drawn, pictures
from whence import attribute
from whence.errors import OptionError
from whence.graphs import AttentionGraph
from whence.models.classifier import Classifier
from whence.pictures.baselines import make_baseline
from whence.pictures.preprocess import Preprocess
from whence.registry import METHODS
from whence.results import Attribution


def three_classes(seed: int) -> nn.Module:
    """Return a net whose probabilities are far from 0 and 1, and change with the picture."""
    net = drawn(SmallNet(classes=3), seed)
    with torch.no_grad():
        net.head.weight *= 4
    return net


def ranged(net: nn.Module) -> Classifier:
    """Return a classifier that knows what black and white are."""
    return Classifier(net, preprocess=Preprocess(mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.3)))


def stated(graph: AttentionGraph) -> dict[str, object]:
    """Return all that a graph says."""
    return {key: value for key, value in vars(graph).items() if key not in ("picture", "base", "place")}


def comes_back(graph: AttentionGraph) -> None:
    row = json.loads(json.dumps(graph.to_json(), allow_nan=False))
    assert stated(AttentionGraph.from_json(row)) == stated(graph)


# The graph


@settings(deadline=None, max_examples=15)
@given(
    st.integers(0, 10**6),
    st.sampled_from(["ratio", "top1", "both"]),
    st.floats(0.05, 0.99),
    st.integers(0, 9),
    st.integers(1, 6),
    st.floats(0, 1.5),
)
def test_any_model_has_a_graph_that_says_the_truth(
    seed: int, criterion: str, threshold: float, overlap: int, roots: int, expand: float
) -> None:
    """Also one that answers at random."""
    table = torch.randn(512, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    table[-1, 0] += 4
    options = {"criterion": criterion, "threshold": threshold, "overlap": overlap, "roots": roots, "expand": expand}
    found = Toy(table).explained(**options)
    (graph,) = found.graphs
    p = table.softmax(1)
    high = p[:, 0] > threshold * p[-1, 0]
    truth = {"ratio": high, "top1": p.argmax(1) == 0, "both": high & (p.argmax(1) == 0)}[criterion]
    holds(graph, truth.numpy())
    is_a_graph(graph)
    comes_back(graph)
    assert len(graph.roots) <= roots
    assert bool(graph.roots) == bool(truth[-1])
    shares = [[patch in root.patches for patch in range(9)] for root in graph.roots]
    assert torch.equal(found.values.flatten(), torch.tensor(shares).double().mean(0))
    assert found.graphs[0].family(overlap, roots) == graph.roots


# The budget


@pytest.mark.parametrize("variant", ["surrogate", "reference"])
def test_no_more_sets_are_asked_about_than_the_budget_allows(variant: str) -> None:
    table = two_classes(log_odds(4, "planted", 4))
    truth = _enough(table)
    whole = Toy(table)
    (complete,) = whole.explained(variant=variant).graphs
    assert complete.state == "complete"
    assert complete.evaluations > 60
    for budget in (*range(2, 9), *range(9, 61, 6)):
        model = Toy(table)
        found = model.explained(budget=budget, variant=variant)
        (graph,) = found.graphs
        assert graph.evaluations == budget == sum(graph.spent.values())
        assert graph.state == "budget"
        assert sum("its budget was spent" in note for note in found.notes[0]) == 1
        holds(graph, truth)
        comes_back(graph)
        assert graph.roots
        if variant == "surrogate":
            is_a_graph(graph)
            # What is asked does not depend on the budget.
            assert list(graph.evaluated)[:budget] == list(complete.evaluated)[:budget]
    (graph,) = Toy(table).explained(budget=complete.evaluations, variant=variant).graphs
    assert stated(graph) == stated(complete)


def _enough(table: Tensor) -> np.ndarray:
    p = table.softmax(1)[:, 0]
    return (p > 0.9 * p[-1]).numpy()


@pytest.mark.parametrize("refine", [1, 2])
def test_passes_stay_within_what_is_said_before(refine: int) -> None:
    facts = METHODS.facts("sag")
    table = two_classes(log_odds(4, "planted", 4))
    for budget in (2, 3, 20, 2000):
        model = Toy(table)
        found = model.explained(4 // refine, refine=refine, budget=budget)
        most = facts.cost(facts.checked({"refine": refine, "budget": budget}), None)
        assert len(model.asked) == found.passes.forward <= most.forward


# Ctrl-C


def handed_over(toy: Toy, **options: object) -> Attribution:
    """Return what a search hands over that Ctrl-C ends, one set at a time."""
    try:
        return toy.explained(batch=1, **options)
    except KeyboardInterrupt:
        pytest.fail(f"what was found before set {toy.stop} is lost")


@pytest.mark.parametrize(("variant", "step"), [("surrogate", 1), ("reference", 7)])
def test_a_search_that_is_interrupted_hands_over_what_it_has_found(variant: str, step: int) -> None:
    """At each set that it asks about, but for the whole picture and nothing of it, before which there is no graph."""
    table = two_classes(log_odds(3, "planted", 2))
    model, truth = Toy(table), _enough(table)
    (complete,) = model.explained(variant=variant, batch=1).graphs
    first = model.asked.index(list(complete.evaluated)[2])
    for stop in range(first + 1, len(model.asked) + 1, step):
        stopped = Toy(table, stop)
        before = [parameter.clone() for parameter in stopped.module.parameters()]
        found = handed_over(stopped, variant=variant)
        (graph,) = found.graphs
        assert graph.state == "interrupted"
        assert sum("the search was interrupted" in note for note in found.notes[0]) == 1
        assert graph.evaluations == sum(graph.spent.values()) == stop - first + 1
        assert list(graph.evaluated) == list(complete.evaluated)[: graph.evaluations]
        holds(graph, truth)
        comes_back(graph)
        assert all(torch.equal(a, b) for a, b in zip(before, stopped.module.parameters(), strict=True))
    for stop in range(1, first + 1, step):
        with pytest.raises(KeyboardInterrupt):
            Toy(table, stop).explained(variant=variant, batch=1)


def test_an_interrupted_search_on_two_grids_keeps_its_shape_and_what_it_has_found() -> None:
    table = two_classes(log_odds(4, "planted", 4))
    model = Toy(table)
    (complete,) = model.explained(2, refine=2, batch=1).graphs
    coarse = len(model.asked) - complete.evaluations
    grids = set()
    for stop in range(3, len(model.asked) + 1):
        found = handed_over(Toy(table, stop), grid=2, refine=2)
        (graph,) = found.graphs
        grids.add(graph.places.side)
        assert graph.state == "interrupted"
        assert found.values.shape == (1, 1, 4, 4)
        assert graph.evaluations == sum(graph.spent.values())
        comes_back(graph)
        blocks = found.values.reshape(2, 2, 2, 2)
        assert (blocks == blocks[:, :1, :, :1]).all()
        shares = [[patch in root.patches for patch in range(4)] for root in graph.roots]
        assert torch.equal(blocks[:, 0, :, 0].flatten(), torch.tensor(shares).double().mean(0))
    # What the coarse search had proven is worth more than what the finer one had begun.
    assert grids == {2}
    assert 2 < coarse < len(model.asked)


def test_a_picture_whose_search_has_ended_is_not_refined_when_another_s_is_interrupted() -> None:
    """Both say so: neither is what was asked for."""
    table, runs, last = two_classes(log_odds(4, "planted", 4)), 0, 10**9

    def certain(output: Tensor) -> Tensor:
        """Suffices with nothing, so that its search ends at once."""
        return torch.ones(len(output), dtype=torch.float64)

    def probability(output: Tensor) -> Tensor:
        nonlocal runs
        runs += 1
        if runs > last:
            raise KeyboardInterrupt
        return output[:, 0].sigmoid()

    def graphs() -> tuple[AttentionGraph, ...]:
        return Toy(table).explained(2, refine=2, target=[certain, probability], pictures=2).graphs

    assert [graph.places.side for graph in graphs()] == [4, 4]
    runs, last = 0, 5
    assert [(graph.places.side, graph.state) for graph in graphs()] == [(2, "interrupted"), (2, "interrupted")]
    # On one grid the search that has ended is complete.
    runs, last = 0, 5
    found = Toy(table).explained(target=[certain, probability], pictures=2)
    assert [graph.state for graph in found.graphs] == ["complete", "interrupted"]


# A model


def brute_force(net: nn.Module, x: Tensor, base: Tensor, side: int, style: str) -> Tensor:
    """Return what a net says of all sets of patches of a picture, [2^n, K], each mask stretched by itself."""
    sets = torch.arange(2**side**2)[:, None] >> torch.arange(side**2) & 1
    cells = sets.double().reshape(-1, 1, side, side)
    how = {
        "tents": {"mode": "bilinear", "align_corners": True},
        "centred": {"mode": "bilinear", "align_corners": False},
        "boxes": {"mode": "nearest-exact"},
    }[style]
    masks = F.interpolate(cells, size=x.shape[1:], **how)
    with torch.no_grad():
        return torch.cat([net.eval()(base + (x - base) * mask) for mask in masks.split(64)])


@pytest.mark.parametrize("criterion", ["ratio", "top1", "both"])
@pytest.mark.parametrize(
    ("style", "baseline", "size"),
    [
        ("tents", "zeros", SIZE),
        ("tents", "blurred", (13, 18)),
        ("centred", "uniform", SIZE),
        ("boxes", "black", (14, 9)),
    ],
)
def test_values_and_roots_are_those_of_all_sets(
    criterion: str, style: str, baseline: str, size: int | tuple[int, int]
) -> None:
    net, x = three_classes(3), pictures(3, size=size)
    options = {"grid": 3, "style": style, "baseline": baseline, "criterion": criterion, "seed": 5}
    model = ranged(net)
    found = attribute(model, x, "sag", target=[0, None, "second"], **options)
    base = make_baseline(baseline, x, model.pixels, seed=5)[0]
    for row, graph in enumerate(found.graphs):
        logits = brute_force(net, x[row], base[row], 3, style)
        ranked = logits[-1].argsort(descending=True).tolist()
        own = [0, ranked[0], ranked[1]][row]
        p, top = logits.softmax(1)[:, own], logits.argmax(1) == own
        assert found.target[row] == own
        assert graph.evaluations > 1
        for one, verdict in graph.evaluated.items():
            assert abs(verdict.value - p[one]) < 1e-12
            assert verdict.top == top[one]
        truth = {"ratio": p > 0.9 * p[-1], "top1": top, "both": (p > 0.9 * p[-1]) & top}[criterion].numpy()
        truth &= truth[-1]
        holds(graph, truth)
        is_a_graph(graph)
        assert bool(graph.roots) == bool(truth[-1])
        assert (graph.baseline, graph.criterion, graph.measured) == (baseline, criterion, "probability")


@pytest.mark.parametrize("target", ["log-odds:0", "log-probability:0", "probability:0"])
def test_a_target_of_one_class_is_measured_by_its_probability(target: str) -> None:
    """Of the others no share can be kept: they are negative, or have no end."""
    net, x = Classifier(three_classes(3)), pictures(2)
    asked = attribute(net, x, "sag", target=target, grid=3, baseline="zeros")
    plain = attribute(net, x, "sag", target=0, grid=3, baseline="zeros")
    assert [graph.to_json() for graph in asked.graphs] == [graph.to_json() for graph in plain.graphs]


@pytest.mark.parametrize(
    ("target", "number"),
    [
        ("0 - 2", lambda y: y[:, 0] - y[:, 2]),
        (lambda y: y[:, 1].exp() + y[:, 0] ** 2, lambda y: y[:, 1].exp() + y[:, 0] ** 2),
    ],
)
def test_a_target_of_no_single_class_is_measured_by_its_own_number(
    target: object, number: Callable[[Tensor], Tensor]
) -> None:
    net, x = three_classes(3), pictures(3)
    found = attribute(Classifier(net), x, "sag", target=target, grid=3, baseline="zeros")
    positive = 0
    for row, graph in enumerate(found.graphs):
        said = number(brute_force(net, x[row], torch.zeros_like(x[row]), 3, "tents"))
        assert graph.measured == "score"
        assert all(abs(verdict.value - said[one]) < 1e-12 for one, verdict in graph.evaluated.items())
        positive += bool(said[-1] > 0)
        truth = (said > 0.9 * said[-1]).numpy()
        holds(graph, truth & truth[-1])
        assert bool(graph.roots) == bool(said[-1] > 0)
    assert positive


@pytest.mark.parametrize("options", [{}, {"refine": 2, "budget": 60}, {"variant": "reference"}, {"batch": 2}])
def test_a_batch_gives_what_single_pictures_give(options: dict[str, object]) -> None:
    net, x = three_classes(3), pictures(4)
    targets = [0, "second", "0 - 2", lambda y: y[:, 1].exp()]

    def explained(x: Tensor, target: list[object]) -> Attribution:
        return attribute(ranged(net), x, "sag", target=target, grid=3, baseline="uniform", **options)

    together = explained(x, targets)
    for row, target in enumerate(targets):
        alone = explained(x[row : row + 1], [target])
        assert torch.equal(alone.values, together.values[row : row + 1])
        assert alone.notes == together.notes[row : row + 1]
        mine, theirs = stated(alone.graphs[0]), stated(together.graphs[row])
        for own, other in zip(mine.pop("evaluated").items(), theirs.pop("evaluated").items(), strict=True):
            assert own[0] == other[0]
            assert own[1] == (pytest.approx(other[1].value, abs=1e-12), other[1].top)
        assert [one.patches for one in mine["found"]] == [one.patches for one in theirs["found"]]
        assert [one.proof for one in mine["roots"]] == [one.proof for one in theirs["roots"]]
        assert mine["edges"] == theirs["edges"]
        assert mine["spent"] == theirs["spent"]


@pytest.mark.parametrize("criterion", ["top1", "both"])
def test_the_classes_of_a_sigmoid_model_have_no_first_one(criterion: str) -> None:
    model = Classifier(three_classes(3), activation="sigmoid")
    with pytest.raises(OptionError, match="sigmoid model have no first one"):
        attribute(model, pictures(1), "sag", target=0, grid=3, baseline="zeros", criterion=criterion)


# The map


def stretching(side: int, length: int) -> Tensor:
    """Return A [length, side]: how far each place is from the tents' peaks, the first and last on the edges."""
    at = torch.arange(length, dtype=torch.float64) * (side - 1) / (length - 1)
    return (1 - (at[:, None] - torch.arange(side)).abs()).clamp(min=0)


@pytest.mark.parametrize("grid", [2, 3, 7])
def test_the_heat_map_lies_as_the_masks_lay(grid: int) -> None:
    x = pictures(2, size=(15, 22))
    found = attribute(Classifier(three_classes(3)), x, "sag", target=[0, 2], grid=grid, baseline="zeros", budget=60)
    assert found.values.shape == (2, 1, grid, grid)
    assert (found.values[:, 0] > 0).any()
    expected = stretching(grid, 15) @ found.values[:, 0] @ stretching(grid, 22).T
    torch.testing.assert_close(found.heatmap(), expected, rtol=0, atol=1e-12)
    larger = stretching(grid, 31) @ found.values[:, 0] @ stretching(grid, 44).T
    torch.testing.assert_close(found.heatmap((31, 44)), larger, rtol=0, atol=1e-12)
    one = found.picture(1)
    assert one.style == "tents"
    assert torch.equal(one.heatmap()[0], found.heatmap()[1])
    # Where a set is shown alone, the map is its mask.
    for row, graph in enumerate(found.graphs):
        masks = graph.places.masks([sum(1 << patch for patch in root.patches) for root in graph.roots], x)
        torch.testing.assert_close(found.heatmap()[row], masks.mean(0)[0], rtol=0, atol=1e-12)
