import json
import re
from dataclasses import replace

import networkx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graph_samples import graph, pixels, value_of
from whence.errors import OutputError
from whence.graphs import AttentionGraph, SufficientSet, Verdict, bits, patches_of

finite = st.floats(allow_nan=False, allow_infinity=False)
sets = st.sets(st.integers(0, 48), max_size=4).map(lambda one: tuple(sorted(one)))


facts = st.fixed_dictionaries(
    {
        "expand": st.floats(0, 1),
        "baseline": st.text(),
        "criterion": st.sampled_from(["ratio", "top1", "both"]),
        "measured": st.sampled_from(["probability", "score"]),
        "whole": finite,
        "state": st.sampled_from(["complete", "budget", "interrupted"]),
        "spent": st.dictionaries(st.text(), st.integers(0)),
    }
)
asked = st.dictionaries(st.integers(0, 2**49 - 1), st.tuples(finite, st.booleans()))


def _fields(one):
    return {key: value for key, value in vars(one).items() if key not in ("picture", "base", "place")}


@settings(deadline=None, max_examples=60)
@given(st.lists(sets, max_size=4, unique=True), facts, asked, finite)
def test_json_gives_the_same_graph_back(roots, told, verdicts, value):
    one = graph(roots, **told)
    evaluated = {**one.evaluated, **{bits: Verdict(*verdict) for bits, verdict in verdicts.items()}}
    nodes = tuple(replace(node, value=value) for node in one.nodes)
    one = replace(one, nodes=nodes, evaluated=evaluated)
    row = json.loads(json.dumps(one.to_json(), allow_nan=False))
    again = AttentionGraph.from_json(row, one.picture, one.base)
    assert _fields(again) == _fields(one)
    assert list(again.evaluated) == list(one.evaluated)
    assert again.to_json() == row
    assert again.picture is one.picture
    assert again.base is one.base


def test_rows_may_hold_more_keys():
    row = graph().to_json()
    for one in (row, row["roots"][0], row["nodes"][1], row["edges"][0], row["evaluated"][0]):
        one["later"] = 1
    assert AttentionGraph.from_json(row).nodes == graph().nodes


@pytest.mark.parametrize(
    ("roots", "formula", "necessary"),
    [
        ([(9, 18), (2, 9)], "(P9 and P18) or (P2 and P9)", (9,)),
        ([(3,), (9, 18)], "P3 or (P9 and P18)", ()),
        ([(4, 5, 6)], "(P4 and P5 and P6)", (4, 5, 6)),
        ([()], "nothing at all", ()),
        ([], "no set of patches", ()),
    ],
)
def test_the_formula_names_the_roots(roots, formula, necessary):
    one = graph(roots)
    assert one.formula == formula
    assert one.necessary == necessary
    assert formula in repr(one)
    assert one.to_json()["formula"] == formula
    assert one.to_json()["necessary"] == list(necessary)


def test_sentences_say_what_suffices_and_what_costs_most():
    assert graph().sentences == (
        "(P9 and P18) or (P2 and P9) keeps more than 60 % of the probability.",
        "P9 is in every set shown that suffices.",
        "Of P9 and P18, without P18 the probability falls from 64.7 % to 31.9 %.",
        "Of P2 and P9, without P9 the probability falls from 63.1 % to 31.2 %.",
    )
    assert graph([(9, 18), (2, 3)]).sentences[1] == "No patch is in every set shown that suffices."
    assert graph([(1, 2, 3), (1, 2, 4)]).sentences[1] == "P1 and P2 are in every set shown that suffices."
    told = graph([(9,)], expand=0.1, measured="score", whole=0.4, criterion="both").sentences
    assert told == (
        "P9 keeps more than 60 % of the score and keeps the class first.",
        "Without P9 the score falls from 0.319 to 0.001.",
    )
    assert graph([()]).sentences == (
        "With every patch taken away the picture still keeps more than 60 % of the probability.",
    )
    assert graph([], criterion="top1").sentences == ("No set of patches was found that keeps the class first.",)
    assert len(graph([(9,)]).sentences) == 1


def test_a_set_suffices_by_the_criterion():
    high, low = 0.6 * 0.98 + 1e-9, 0.6 * 0.98
    for criterion, expected in (("ratio", "TTFF"), ("top1", "TFTF"), ("both", "TFFF")):
        one = graph(criterion=criterion)
        said = [one.suffices(Verdict(value, top)) for value in (high, low) for top in (True, False)]
        assert said == [letter == "T" for letter in expected]


def test_shares_and_verdicts():
    one = graph()
    assert one.share(0.49) == pytest.approx(0.5)
    assert graph(whole=0.0).share(0.49) == 0
    assert one.verdict([18, 9]) == Verdict(value_of((9, 18)), True)
    assert one.verdict([1, 2, 3]) is None
    assert one.evaluations == len(one.evaluated) == 5


def test_what_is_seen_is_mixed_place_by_place():
    one = graph([(1, 5)], side=3, size=(9, 12))
    got = one.seen((5, 1))
    for y in range(9):
        for x in range(12):
            rows = [max(0.0, 1 - abs(y * 2 / 8 - row)) for row in range(3)]
            columns = [max(0.0, 1 - abs(x * 2 / 11 - column)) for column in range(3)]
            kept = rows[0] * columns[1] + rows[1] * columns[2]
            mixed = one.base[y, x] + (one.picture[y, x].astype(float) - one.base[y, x]) * kept
            assert np.abs(got[y, x] - mixed).max() <= 0.5 + 1e-9
    assert (one.seen(range(9)) == one.picture).all()
    assert (one.seen(()) == one.base).all()
    with pytest.raises(ValueError, match="no pictures"):
        graph(pictures=False).seen(())


def test_a_graph_is_acyclic_and_equal_sets_are_one_node():
    made = graph([(1, 2, 3), (2, 3, 4)]).to_networkx()
    assert networkx.is_directed_acyclic_graph(made)
    assert sorted(made.predecessors("P2 P3")) == ["P1 P2 P3", "P2 P3 P4"]
    assert made.nodes["P1 P2 P3"] == {
        "patches": (1, 2, 3),
        "value": value_of((1, 2, 3)),
        "share": value_of((1, 2, 3)) / 0.98,
        "root": True,
        "proof": "minimal",
        "suffices": True,
    }
    assert made.edges["P1 P2 P3", "P2 P3"] == {
        "patch": 1,
        "lost": value_of((1, 2, 3)) / 0.98 - value_of((2, 3)) / 0.98,
    }


@pytest.mark.parametrize("roots", [[], [()], [(3,)], [(1, 2, 3), (2, 3, 4), (9,)]])
def test_graphml_is_read_back_as_the_same_graph(roots):
    one = graph(roots, expand=0.1)
    there, here = networkx.parse_graphml(one.to_graphml()), one.to_networkx()
    for facts in dict(here.nodes(data=True)).values():
        facts["patches"] = " ".join(map(str, facts["patches"]))
    assert dict(there.nodes(data=True)) == dict(here.nodes(data=True))
    assert list(there.edges(data=True)) == list(here.edges(data=True))


STRING = r'"(?:[^"\\\n]|\\.)*"'


@pytest.mark.parametrize("baseline", ["black", '"];x [label="', "a\nb", "\\", '\\"', "ünïcode"])
def test_dot_is_what_graphviz_reads(baseline):
    one = graph([(1, 2, 3), (2, 3, 4)], baseline=baseline)
    lines = one.to_dot().splitlines()
    assert lines[0] == "digraph sag {"
    assert lines[-1] == "}"
    statement = re.compile(rf"  (?:(?:graph|node|{STRING})|({STRING}) -> ({STRING})) \[\w+=(?:\w+|{STRING})\];")
    assert all(statement.fullmatch(line) for line in lines[1:-1])
    named = [line.split(" [")[0].strip() for line in lines[3:-1] if "->" not in line]
    assert named == [f'"{" ".join(f"P{patch}" for patch in node.patches)}"' for node in one.nodes]
    joined = [statement.fullmatch(line).groups() for line in lines if "->" in line]
    assert len(set(joined)) == len(one.edges)
    assert {end for ends in joined for end in ends} <= set(named)
    assert one.to_dot() == one.to_dot()


def _damaged(change):
    row = graph(pictures=False).to_json()
    change(row)
    return row


@pytest.mark.parametrize(
    "change",
    [
        lambda row: row.update(grid=0),
        lambda row: row.update(grid=29),
        lambda row: row["roots"][0].update(patches=[18, 9]),
        lambda row: row["found"][0].update(patches=[9, 9]),
        lambda row: row["nodes"][0].update(patches=[9, 49]),
        lambda row: row["evaluated"][0].update(patches=[-1]),
        lambda row: row["edges"][0].update(child=99),
        lambda row: row["edges"][0].update(parent=-1),
        lambda row: row["edges"][0].update(child=0),
        lambda row: row["edges"][0].update(patch=2),
    ],
)
def test_a_damaged_row_is_refused(change):
    with pytest.raises(OutputError, match="the graph is damaged"):
        AttentionGraph.from_json(_damaged(change))


@pytest.mark.parametrize("size", [(28, 27), (27, 28)])
def test_pictures_of_another_size_are_refused(size):
    row = graph().to_json()
    with pytest.raises(OutputError, match="its picture is"):
        AttentionGraph.from_json(row, pixels(size), pixels())
    with pytest.raises(OutputError, match="its picture is"):
        AttentionGraph.from_json(row, pixels(), pixels(size))


def test_roots_without_children_are_told_of_without_them():
    roots = (SufficientSet((1, 2), 0.9, "sufficient"), SufficientSet((7, 8), 0.9, "sufficient"))
    assert len(replace(graph([]), roots=roots).sentences) == 2
    assert patches_of(bits((7, 8))) == (7, 8)
