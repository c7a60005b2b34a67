import json
from dataclasses import dataclass, replace
from math import isnan, nan
from statistics import median
from types import SimpleNamespace

import pyarrow as pa
import pytest
import torch

from graph_samples import graph
from sag_toys import Toy, log_odds, two_classes
from whence.errors import OptionError
from whence.reports.counting_results import KEYS, THRESHOLDS, figures
from whence.studies.counting import Case, Counted, count, from_study, groups, write

METHOD = "sag:grid=3,expand=0,roots=10,overlap=2,style=boxes,baseline=zeros"
MODELS = ("planted", "harmful", "additive")


@dataclass
class Stub:
    """What a study is to its readers: a job, and rows."""

    rows: list
    models: tuple = MODELS
    methods: tuple = ("grad-cam", METHOD)
    pictures: int = 4

    @property
    def job(self):
        models = tuple(SimpleNamespace(name=name) for name in self.models)
        return SimpleNamespace(models=models, methods=self.methods, pictures=range(self.pictures))

    def table(self, *, columns, where):
        rows = [row for row in self.rows if all(row[name] == value for name, value in where.items())]
        kinds = {"number": pa.int32(), "correct": pa.bool_(), "status": pa.string(), "graph": pa.string()}
        return pa.table({name: pa.array([row[name] for row in rows], kinds[name]) for name in columns})


def row(model, number, made, correct=True, status="ok", method=METHOD):
    text = None if made is None else json.dumps(made.to_json())
    return {
        "model": model,
        "number": number,
        "correct": correct,
        "status": status,
        "graph": text,
        "method": method,
    }


def searched(kind, seed, **options):
    toy = Toy(two_classes(log_odds(3, kind, seed)))
    return toy.explained(expand=0, roots=10, overlap=2, **options).graphs[0]


@pytest.fixture(scope="module")
def graphs():
    return {(kind, number): searched(kind, number) for kind in MODELS for number in range(4)}


@pytest.fixture
def study(graphs):
    rows = [
        row(model, number, made, correct=(model, number) != ("harmful", 2))
        for (model, number), made in graphs.items()
    ]
    grad_cam = [row(model, number, None, method="grad-cam") for model, number in graphs]
    return Stub(rows + grad_cam)


def test_a_study_is_counted_model_by_model(study, graphs):
    report = from_study(study)
    by_key = {group.key: group for group in report.groups}
    assert (by_key["all"].pictures, by_key["correct"].pictures) == (4, 3)
    assert report.models == MODELS
    assert (report.limit, report.budget, report.missing) == (10, 2000, 0)
    for key, numbers in (("all", (0, 1, 2, 3)), ("correct", (0, 1, 3))):
        for summary in by_key[key].summaries:
            values = [count(graphs[summary.model, number]).values for number in numbers]
            for name in KEYS:
                defined = [own[name] for own in values if not isnan(own[name])]
                figure = summary.figures[name]
                assert figure.estimate.count == len(defined)
                assert figure.estimate.mean == pytest.approx(
                    sum(defined) / len(defined) if defined else nan, nan_ok=True
                )
                assert figure.median == pytest.approx(median(defined) if defined else nan, nan_ok=True)


def test_differences_are_those_of_each_picture(study, graphs):
    (every,) = (group for group in from_study(study).groups if group.key == "all")
    assert [(one.first, one.second) for one in every.differences] == [
        ("planted", "harmful"),
        ("planted", "additive"),
        ("harmful", "additive"),
    ]
    for one in every.differences:
        for theta in THRESHOLDS:
            apart = [
                count(graphs[one.first, n]).values[f"sub:{theta}"]
                - count(graphs[one.second, n]).values[f"sub:{theta}"]
                for n in range(4)
            ]
            found = one.estimates[f"sub:{theta}"]
            assert found.mean == pytest.approx(sum(apart) / 4)
            assert min(apart) <= found.low <= found.mean <= found.high <= max(apart)


def test_a_model_does_not_differ_from_itself(graphs):
    rows = [row(name, n, graphs["planted", n]) for name in ("a", "b") for n in range(4)]
    (pair,) = from_study(Stub(rows, ("a", "b"))).groups[1].differences
    assert {(e.mean, e.low, e.high) for e in pair.estimates.values() if e.count} == {(0, 0, 0)}


def test_pictures_that_failed_on_one_model_are_left_out_of_all(study):
    for one in study.rows[:2]:
        one["status"], one["graph"] = "PictureError", None
    report = from_study(study)
    assert dict(report.failed) == {"planted": 2, "harmful": 0, "additive": 0}
    assert [(g.key, g.pictures) for g in report.groups[:2]] == [("correct", 1), ("all", 2)]
    assert {
        e.estimate.count + e.estimate.undefined for s in report.groups[1].summaries for e in s.figures.values()
    } == {2}
    assert [one["number"] for one in report.rows if one["model"] == "planted"] == [2, 3]


def test_an_unfinished_study_says_so(study):
    study.rows = [one for one in study.rows if one["number"] != 3]
    assert from_study(study).missing == 3


def test_without_the_truth_nothing_is_correct(study):
    for one in study.rows:
        one["correct"] = None
    correct, every, _ = from_study(study).groups
    assert (correct.pictures, correct.summaries, correct.differences) == (0, (), ())
    assert every.pictures == 4


def test_only_exact_counts_stand_in_the_last_group(graphs):
    counted = count(graphs["planted", 0])
    changes = {0: {}, 1: {"opened": False}, 2: {"state": "budget"}, 3: {"limited": True}}
    cases = [Case("a", n, True, replace(counted, **own)) for n, own in changes.items()]
    cases += [Case("b", n, True, counted) for n in changes]
    whole = groups(cases, ("a", "b"))[2]
    assert (whole.key, whole.pictures) == ("whole", 2)
    first, second = groups(cases, ("a", "b"))[1].summaries
    assert (first.capped, first.rootless, first.limited, first.unopened) == (1, 0, 1, 1)
    assert (second.capped, second.rootless, second.limited, second.unopened) == (0, 0, 0, 0)


def test_a_picture_without_roots_is_in_no_mean():
    some = Counted((2, 4), (1, 2, 2), (0,) * 9, (0,) * 9, (0.0,) * 9, 0.5, "complete", True, False)
    none = Counted((), (0, 0, 0), (0,) * 9, (0,) * 9, (nan,) * 9, nan, "complete", True, False)
    (summary,) = groups([Case("a", 0, True, some), Case("a", 1, True, none)], ("a",))[1].summaries
    assert summary.figures["roots"].estimate.mean == 2
    assert summary.figures["size"].estimate.mean == 3
    assert {f.estimate.undefined for f in summary.figures.values()} == {1}
    assert (summary.capped, summary.rootless) == (1, 1)


def test_the_intervals_come_from_the_seed(study):
    def high(seed):
        return from_study(study, seed=seed).groups[1].summaries[0].figures["sub:0.2"].estimate.high

    highs = [high(seed) for seed in range(3)]
    assert high(0) == highs[0]
    assert len(set(highs)) > 1


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"threshold": 0.8}, "planted was searched with threshold 0.9, additive with 0.8"),
        ({"overlap": 1}, "overlap 2, additive with 1"),
        ({"baseline": "black"}, "baseline zeros, additive with black"),
    ],
)
def test_other_searches_are_not_compared(study, graphs, options, said):
    other = replace(graphs["additive", 3], **options)
    study.rows[11] = row("additive", 3, other)
    with pytest.raises(OptionError, match=said):
        from_study(study)


def test_other_grids_are_not_compared(study):
    study.rows[5] = row("harmful", 1, replace(graph(), threshold=0.9))
    with pytest.raises(OptionError, match="planted was searched with grid 3, harmful with 7"):
        from_study(study)


def test_of_several_searches_one_is_named(study):
    study.methods = (METHOD, "sag:grid=4")
    with pytest.raises(OptionError, match=r"sag:grid=4.* name one"):
        from_study(study)
    assert from_study(study, METHOD).method == METHOD
    with pytest.raises(OptionError, match="no method 'grad-cam'"):
        from_study(study, "grad-cam")


def test_a_study_without_graphs_is_refused(study):
    with pytest.raises(OptionError, match="no attention graph that was finished"):
        from_study(replace(study, rows=[]))
    study.methods = ("grad-cam",)
    with pytest.raises(OptionError, match="holds no attention graphs"):
        from_study(study)


def test_the_figures_are_strict_json(study, tmp_path):
    report = from_study(study)
    path = write(report, tmp_path)
    assert path == tmp_path / "count.html"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["count.html", "count.json"]
    told = json.loads((tmp_path / "count.json").read_text(), parse_constant=pytest.fail)
    assert told == json.loads(json.dumps(figures(report)))
    assert told["search"] == {
        "grid": 3,
        "style": "boxes",
        "baseline": "zeros",
        "threshold": 0.9,
        "criterion": "ratio",
        "overlap": 2,
        "expand": 0.0,
        "roots": 10,
        "budget": 2000,
    }
    assert [len(told["pictures"]), len(told["groups"])] == [12, 3]
    first = told["pictures"][0]
    assert (first["model"], first["number"], first["correct"], first["capped"]) == ("planted", 0, True, False)
    assert len(first["sub"]) == 9
    mean = told["groups"][1]["summaries"][0]["figures"]["roots"]["mean"]
    own = [len(one["sizes"]) for one in told["pictures"] if one["model"] == "planted"]
    assert mean == pytest.approx(torch.tensor(own, dtype=torch.float64).mean().item())
