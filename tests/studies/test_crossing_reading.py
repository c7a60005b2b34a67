"""From a study's rows to tensors, and to the files beside it."""

import json

import pytest
import torch

from crossing_samples import METRICS, Study
from whence.errors import OptionError, OutputError
from whence.studies.crossing import columns, crossed, from_study, write

pyarrow = pytest.importorskip("pyarrow")
pytest.importorskip("sklearn")
# A name that ends as another does behind its @.
MODELS = ("net", "other@net", "third")
METHODS = ("grad-cam", "rise:samples=50")


def value(number, method, made, judge, metric):
    """Another number for each entry."""
    return number / 10 + 0.01 * METHODS.index(method) + 0.001 * (3 * made + judge) + 0.0001 * METRICS.index(metric)


def rows(count=4, numbers=None):
    found = []
    for number in numbers or range(count):
        for made, model in enumerate(MODELS):
            for method in METHODS:
                row = {"number": number, "model": model, "method": method, "correct": (number + made) % 3 != 0}
                for judge, name in enumerate(MODELS):
                    row[f"full@{name}"] = 0.9
                    for metric in METRICS:
                        row[f"{metric}@{name}"] = value(number, method, made, judge, metric)
                        row[f"{metric}:base@{name}"] = 0.05 + 0.01 * judge
                found.append(row)
    return found


def study(made):
    return Study(pyarrow.Table.from_pylist(made))


def test_each_number_stands_at_its_picture_and_pair():
    found = from_study(study(rows()))
    assert [(one.method, one.metric.text) for one in found] == [(m, t) for m in METHODS for t in METRICS]
    for one in found:
        assert one.models == MODELS
        for number in range(4):
            for made in range(3):
                for judge in range(3):
                    expected = value(number, one.method, made, judge, one.metric.text)
                    assert float(one.auc[number, made, judge]) == pytest.approx(expected)
                    assert float(one.base[number, made, judge]) == pytest.approx(0.05 + 0.01 * judge)
        assert (one.full == 0.9).all()
        assert one.correct.tolist() == [[(number + made) % 3 != 0 for made in range(3)] for number in range(4)]
    assert [one.metric.better for one in found] == ["lower", "higher"] * 2


def test_pictures_keep_their_order_whatever_their_numbers():
    one = from_study(study(rows(numbers=[7, 2, 30])))[0]
    assert one.auc[:, 0, 0].tolist() == pytest.approx([value(n, METHODS[0], 0, 0, METRICS[0]) for n in (2, 7, 30)])


def test_rows_that_failed_or_are_not_there_hold_no_number():
    made = rows()
    for row in made:
        if (row["number"], row["model"]) == (1, "third"):
            row.update({name: None for name in row if "@" in name}, correct=None)
    del made[0]
    one = next(one for one in from_study(study(made)) if one.method == METHODS[0])
    assert one.auc[1, 2].isnan().all()
    assert one.missing[1].sum() == 3
    assert one.missing[0, 0].all()
    assert not one.missing[2:].any()
    assert not one.correct[1, 2]
    assert not one.correct[0, 0]


def test_an_unknown_truth_is_not_a_wrong_answer():
    made = rows()
    for row in made:
        row["correct"] = None
    assert all(one.correct is None for one in from_study(study(made)))
    assert crossed(study(made), resamples=2).correct is None


@pytest.mark.parametrize(
    "kept", [[], columns(METRICS, MODELS[0]) + columns(METRICS, MODELS[1])], ids=["none", "a judge is missing"]
)
def test_a_study_without_judges_is_refused(kept):
    made = [{name: v for name, v in row.items() if "@" not in name or name in kept} for row in rows()]
    with pytest.raises(OptionError, match="whence study cross"):
        from_study(study(made))
    with pytest.raises(OptionError, match="whence study cross"):
        from_study(Study(pyarrow.Table.from_pylist(rows()).slice(0, 0)))


def test_the_report_is_about_all_pictures_and_about_those_that_all_have_right():
    report = crossed(study(rows(9)), resamples=5, seed=2)
    assert report.models == MODELS
    assert [one.pictures for one in report.every] == [9] * 4
    # Of any three models one has the picture wrong.
    assert [one.pictures for one in report.correct] == [0] * 4
    assert all(one.landscape is None and "no picture" in one.reason for one in report.correct)


def test_both_files_are_written_beside_others_and_again(tmp_path):
    (tmp_path / "job.json").write_text("{}")
    report = crossed(study(rows(5)), resamples=5)
    for _ in range(2):
        page = write(report, tmp_path)
        assert page == tmp_path / "cross.html"
        assert sorted(path.name for path in tmp_path.iterdir()) == ["cross.html", "cross.json", "job.json"]
    told = json.loads((tmp_path / "cross.json").read_text())
    first = from_study(study(rows(5)))[0]
    assert told["models"] == list(MODELS)
    assert told["every"][0]["matrix"][1][2]["mean"] == pytest.approx(float(first.scores[:, 1, 2].mean()))
    assert told["every"][0]["matrix"][1][2]["count"] == 5
    assert told["correct"][0]["matrix"][0][0]["mean"] is None


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="file"):
        write(crossed(study(rows(2)), resamples=2), tmp_path / "file")


def test_the_same_rows_and_seed_give_the_same_report():
    one, again = (crossed(study(rows(6)), resamples=5, seed=1) for _ in range(2))
    assert one.every[0].landscape == again.every[0].landscape
    assert torch.tensor([c.estimate.low for c in one.every[0].cells[0]]).equal(
        torch.tensor([c.estimate.low for c in again.every[0].cells[0]])
    )
