"""The matrix: by loops over pictures, what is left out, and identical models."""

from math import isnan

import pytest
import torch

from crossing_samples import METRICS, Study, answer, around, heat, judgements
from small_nets import SmallNet, drawn, pictures
from whence.models.classifier import Classifier
from whence.pictures.preprocess import Geometry
from whence.reports.scores import estimate
from whence.studies.crossing import asked, from_study, judged, matrix
from whence.studies.crossing.matrix import LEAST, mean

MEAN = [[0.8, 0.3], [0.5, 0.7]]


def test_a_score_is_where_the_area_lies_between_nothing_and_the_whole():
    made = judgements(around(MEAN, 6))
    for picture in range(6):
        for a in range(2):
            for b in range(2):
                auc, full, base = (float(t[picture, a, b]) for t in (made.auc, made.full, made.base))
                assert float(made.scores[picture, a, b]) == pytest.approx((auc - base) / (full - base))
    torch.testing.assert_close(mean(made.scores), torch.tensor(MEAN, dtype=torch.float64), rtol=0, atol=1e-12)


def test_a_class_less_probable_on_the_whole_picture_is_scored_too():
    made = judgements(around(MEAN, 3), full=0.1, base=0.9)
    torch.testing.assert_close(mean(made.scores), torch.tensor(MEAN, dtype=torch.float64), rtol=0, atol=1e-12)


def test_the_matrix_is_the_mean_with_the_interval_of_the_reports():
    scores = around(MEAN, 9)
    cells = matrix(judgements(scores), seed=4)
    for a in range(2):
        for b in range(2):
            expected = estimate(scores[:, a, b].tolist(), 4)
            for name in ("mean", "low", "high"):
                assert getattr(cells[a][b].estimate, name) == pytest.approx(getattr(expected, name))
            assert (cells[a][b].estimate.count, cells[a][b].small, cells[a][b].missing) == (9, 0, 0)


def test_pictures_that_tell_nothing_are_left_out_of_their_cell_alone_and_counted():
    scores = around(MEAN, 5)
    made = judgements(scores)
    made.full[0, 0, 1] = made.base[0, 0, 1] + LEAST * 0.99
    made.full[1, 0, 1] = made.base[1, 0, 1] - LEAST * 0.99
    made.auc[2, 0, 1] = torch.nan
    made.full[3, 1, 0] = made.base[3, 1, 0] + LEAST * 1.01
    cells = matrix(made)
    assert (cells[0][1].estimate.count, cells[0][1].small, cells[0][1].missing) == (2, 2, 1)
    assert cells[0][1].estimate.mean == pytest.approx(float(scores[3:, 0, 1].mean()))
    assert (cells[1][0].estimate.count, cells[1][0].small, cells[1][0].missing) == (5, 0, 0)
    assert cells[0][0].estimate.count == cells[1][1].estimate.count == 5


def test_a_picture_not_judged_is_not_counted_as_telling_nothing():
    made = judgements(around(MEAN, 3))
    for values in (made.auc, made.full, made.base):
        values[0, 0, 0] = torch.nan
    (cell, _), _ = matrix(made)
    assert (cell.estimate.count, cell.small, cell.missing) == (2, 0, 1)


def test_one_picture_has_a_mean_and_no_interval():
    (cell, _), _ = matrix(judgements(around(MEAN, 1)))
    assert cell.estimate.mean == pytest.approx(0.8)
    assert isnan(cell.estimate.low)


def test_the_correct_pictures_are_those_that_every_model_has_right():
    scores = around(MEAN, 4)
    right = torch.tensor([[True, True], [True, False], [False, False], [True, True]])
    own = judgements(scores, correct=right).among_correct()
    torch.testing.assert_close(own.scores, scores[[0, 3]])
    assert own.correct.all()
    assert judgements(scores).among_correct() is None


def test_two_models_that_are_one_give_the_same_lines_and_columns():
    """Judged for real: the rows of a study in which one net stands under two names."""
    pyarrow = pytest.importorskip("pyarrow")
    net, x, requests = drawn(SmallNet()).eval(), pictures(3), asked([f"{m},steps=4,substrate=zeros" for m in METRICS])
    models = [Classifier(net, name="one"), Classifier(net, name="two")]
    seen, names = [Geometry((16, 16), (16, 16), (0.0, 0.0, 16.0, 16.0))] * 3, ["a", "b", "c"]
    rows = [
        {"number": i, "model": made.name, "method": "gradient", "correct": None} for made in models for i in range(3)
    ]
    for judge in models:
        found = judged(answer(heat(3, 4, 4), x), seen, judge, x, seen, [0, 1, 2], requests, names)
        for name, values in found.columns.items():
            for place, row in enumerate(rows):
                row[name] = float(values[place % 3])
    made = from_study(Study(pyarrow.Table.from_pylist(rows)))
    assert [one.metric.text for one in made] == [request.text for request in requests]
    for one in made:
        assert one.auc.shape == (3, 2, 2)
        assert (one.scores == one.scores[:, :1, :1]).logical_or(one.scores.isnan()).all()
        assert len({cell.estimate.mean for line in matrix(one) for cell in line if cell.estimate.count}) <= 1
