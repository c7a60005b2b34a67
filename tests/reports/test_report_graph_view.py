import base64
import hashlib
import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from report_samples import HOSTILE, attention, graphed, photograph, sample
from whence.graphs import PatchGrid, SufficientSet, Verdict, bits
from whence.reports.folder import write
from whence.reports.graph_view import graph_view
from whence.reports.page import html


def shown(graph):
    """What the page says of a graph whose label is tabby."""
    size = graph.places.size
    return graph_view(graph.to_json(), (photograph(*size), photograph(*size)), "tabby")


def facts(graph):
    return {name: text.replace("\N{NO-BREAK SPACE}", " ") for name, text in shown(graph).facts.items()}


@pytest.mark.parametrize("style", ["tents", "centred", "boxes"])
@pytest.mark.parametrize(("side", "size"), [(7, (48, 64)), (4, (33, 20)), (1, (8, 8))])
def test_where_pixels_lie_says_all_of_the_masks(style, side, size):
    places = PatchGrid(side, size, style)
    data = shown(attention(((0,),), side, size, style)).data
    kept = np.random.default_rng(0).random(side**2) < 0.5
    (mask,) = places.masks([bits(np.flatnonzero(kept).tolist())], torch.zeros((), dtype=torch.float64))[:, 0].numpy()
    weights = [np.maximum(0, 1 - abs(np.array(lies)[:, None] - np.arange(side))) for lies in data["lies"]]
    again = weights[0] @ kept.reshape(side, side) @ weights[1].T
    assert np.abs(again - mask).max() < 1e-4
    assert data["borders"] == [[round(edge, 5) for edge in places.edges(axis)] for axis in (0, 1)]


def test_every_evaluated_set_comes_with_its_share_and_its_reason():
    graph = attention()
    data = shown(graph).data
    assert len(data["sets"]) == graph.evaluations
    for patches, value, share, number, reason in data["sets"]:
        verdict = graph.verdict(patches)
        assert number == round(verdict.value / graph.whole, 6)
        assert (reason == 0) == graph.suffices(verdict)
        assert value.endswith("%")
        assert share.endswith("%")
    assert [data["sets"][place][0] for place in data["nodes"]] == [node.patches for node in graph.nodes]
    assert [data["sets"][place][0] for place in data["roots"]] == [root.patches for root in graph.roots]


@pytest.mark.parametrize(
    ("criterion", "value", "top", "reason"),
    [
        *(("ratio", 0.95, False, 0), ("ratio", 0.5, True, 1), ("top1", 0.5, True, 0), ("top1", 0.95, False, 2)),
        *(("both", 0.95, True, 0), ("both", 0.5, True, 1), ("both", 0.95, False, 2)),
    ],
)
def test_the_reason_is_the_criterions(criterion, value, top, reason):
    graph = attention(criterion=criterion)
    graph = replace(graph, nodes=(), roots=(), edges=(), evaluated={3: Verdict(value, top)})
    data = shown(graph).data
    assert data["sets"][0][4] == reason
    assert data["marks"] == ([0.4] if criterion == "top1" else [0.4, 0.9])


def test_a_question_is_of_like_sets_of_which_one_clearly_suffices():
    graph = attention()
    data = shown(graph).data
    pairs = [[data["sets"][place] for place in pair] for pair in data["questions"]]
    assert pairs
    for pair in pairs:
        assert sorted(each[4] == 0 for each in pair) == [False, True]
        assert abs(pair[0][3] - pair[1][3]) >= 0.25
        assert len(pair[0][0]) == len(pair[1][0])
        assert len(set(pair[0][0]) & set(pair[1][0])) == len(pair[0][0]) - 1


def test_questions_hang_on_the_sets_alone_and_come_on_both_sides():
    graph = attention(((5, 6), (0, 1), (2, 3), (10, 14), (7, 11), (8, 9), (4, 13)))
    other = replace(graph, evaluated=dict(reversed(graph.evaluated.items())))
    asked = [
        [[tuple(data["sets"][place][0]) for place in pair] for pair in data["questions"]]
        for data in (shown(graph).data, shown(other).data)
    ]
    assert asked[0] == asked[1]
    first = {graph.suffices(graph.verdict(pair[0])) for pair in asked[0]}
    assert first == {True, False}


@pytest.mark.parametrize(("lower", "asked"), [(0.8, False), (0.6, True)])
def test_without_a_clear_pair_there_is_no_question(lower, asked):
    graph = attention()
    evaluated = {each: Verdict(0.95 if graph.suffices(v) else lower, True) for each, v in graph.evaluated.items()}
    assert bool(shown(replace(graph, evaluated=evaluated)).data["questions"]) == asked


@pytest.mark.parametrize(
    ("proof", "words"),
    [
        ("minimal", "no part of it suffices: all its subsets were tried"),
        ("minimum", "no smaller set of this grid suffices"),
        ("1-minimal", "it does not suffice without any one of its patches; smaller parts were not all tried"),
        ("sufficient", "not shown to be minimal"),
    ],
)
def test_a_root_says_how_it_is_known_to_be_small(proof, words):
    graph = attention()
    root = replace(graph.roots[0], proof=proof)
    (badge, *_) = shown(replace(graph, roots=(root, *graph.roots[1:]))).roots
    assert (badge.badge, badge.proof, badge.patches) == (proof, words, "P5 P6")


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ("budget", "stopped by its budget after 139 evaluations: there may be more sets."),
        ("interrupted", "interrupted after 139 evaluations: shown is what was found until then."),
    ],
)
def test_a_search_without_an_end_says_so(state, words):
    assert shown(attention(state=state)).sentences[-1].endswith(words)
    assert not any("after" in sentence for sentence in shown(attention()).sentences)


def test_sets_that_are_not_shown_are_counted():
    graph = attention()
    more = (*graph.found, SufficientSet((1, 2, 3, 4), 0.95, "1-minimal"))
    said = shown(replace(graph, found=more)).sentences[-1]
    assert said == "Found were 3 sets that suffice; shown are 2 of them, any two of which share at most 1 patch."
    assert shown(replace(graph, found=more, overlap=0)).sentences[-1].endswith("share no patch.")
    assert shown(replace(graph, found=more, overlap=2)).sentences[-1].endswith("share at most 2 patches.")
    single = replace(graph, found=more, roots=graph.roots[:1])
    assert (
        shown(single).sentences[-1]
        == "Found were 3 sets that suffice; shown is one of them: each other one shares too many patches with it."
    )


def test_the_small_print_says_what_was_asked():
    told = facts(attention())
    assert told["To suffice"] == "the probability must stay above 90 % of the whole picture’s"
    assert (told["Taken away means"], told["Whole picture"], told["Baseline alone"]) == (
        "black baseline",
        "98 %",
        "0.1 %",
    )
    assert told["Grid"].startswith("4 × 4 patches, tents")
    assert "90" not in facts(attention(criterion="top1"))["To suffice"]
    assert facts(attention(measured="score", whole=12.34))["Whole picture"] == "12.3"


def test_nothing_that_suffices_is_said_and_not_drawn():
    graph = replace(attention(), roots=(), found=(), nodes=(), edges=())
    view = shown(graph)
    assert view.pictures is None
    assert view.sentences[0].startswith("No set of patches was found")
    text = html(graphed(graph))
    assert "No set of patches was found" in text
    assert 'class="graph-view"' not in text
    assert "as a table" not in text


def test_a_baseline_that_is_the_class_already_is_said():
    graph = attention()
    nothing = SufficientSet((), 0.97, "minimum")
    empty = replace(graph, roots=(nothing,), found=(nothing,), nodes=(replace(graph.nodes[0], patches=()),), edges=())
    assert "With every patch taken away the picture still" in " ".join(shown(empty).sentences)
    assert "The baseline alone already" not in " ".join(shown(graph).sentences)


def test_a_page_carries_the_graphs_style_and_script_only_where_there_is_a_graph():
    plain, with_graph = html(sample(pictures=1)), html(graphed(attention()))
    assert "graph-" not in plain
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', with_graph)[1]
    for tag in ("style", "script"):
        (inner,) = re.findall(f"<{tag}>(.*?)</{tag}>", with_graph, re.DOTALL)
        assert "graph-node" in inner
        digest = base64.b64encode(hashlib.sha256(inner.encode()).digest()).decode()
        assert f"{tag}-src &#39;sha256-{digest}&#39;" in policy
    assert "unsafe" not in policy


@pytest.mark.parametrize("label", [*HOSTILE, "</script><script>alert(1)</script>", "<!--<script>", "\u2028"])
def test_a_label_stays_text_in_the_data(label):
    text = html(graphed(attention(), label=label))
    ((attributes, inner),) = re.findall(r"<script( type[^>]*)>(.*?)</script>", text, re.DOTALL)
    assert attributes == ' type="application/json"'
    assert not set("<>&\u2028") & set(inner)
    assert json.loads(inner)["label"] == label
    assert len(re.findall("<script", text)) == 2


def test_the_two_pictures_are_inside_the_page_even_if_others_lie_beside_it(tmp_path, monkeypatch):
    monkeypatch.setattr("whence.reports.page.MOST_PICTURES", 0)
    address = write(graphed(attention()), tmp_path / "out")["report"]
    text = (tmp_path / "out" / "report.html").read_text("utf-8")
    assert address.endswith("report.html")
    assert re.findall(r'class="graph-(picture|base)" src="data:image/', text) == ["picture", "base"]
    assert 'src="pictures/0-page.webp"' in text
