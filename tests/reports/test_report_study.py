"""The page of a study from numbers alone: closed forms, what is drawn, and how it stands in a browser."""

import html as escapes
import re
from dataclasses import replace
from math import inf, nan, sqrt

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from report_policy import policed
from report_samples import HOSTILE, photograph
from test_report_browser import CONTRAST, opened
from whence.reports import study_numbers
from whence.reports.images import photo
from whence.reports.study_numbers import BINS, MANY, POWERS, Cell
from whence.reports.study_page import Entry, Sheet, Shot, fragment, html, sheet
from whence.reports.study_plots import family
from whence.reports.study_results import Failures, Gallery, Histograms, Line, Panel, Quantity, StudyReport, Tile

METRIC = Quantity("deletion", "Deletion", "lower")
PROBABILITY = Quantity("probability", "of the class explained")
LABELS = ("cat", "dog", "owl")


def numbers(*values):
    return torch.tensor(values, dtype=torch.float64)


def cell(model="a", method="grad-cam"):
    """Six pictures: cats right, wrong, right; a dog wrong; an owl right; one whose class is not known."""
    return Cell(
        model, method, torch.arange(6),
        predicted=torch.tensor([0, 1, 0, 0, 2, 1]), truth=torch.tensor([0, 0, 0, 1, 2, -1]),
        values={
            "probability": numbers(0.9, 0.8, 0.7, 0.95, 0.5, 0.4),
            "predicted_probability": numbers(0.9, 0.8, 0.7, 0.95, 0.5, 0.4),
            "deletion": numbers(0.1, 0.5, nan, 0.3, 0.2, 0.3),
            "residual": numbers(0.0, 1e-4, 1e-3, nan, 5.0, 1e-12),
        },
    )  # fmt: skip


def test_a_mean_of_few_is_bootstrapped_and_of_many_is_normal():
    few = study_numbers.estimated(numbers(1, 2, 3, nan))
    assert (few.mean, few.count, few.undefined) == (2.0, 3, 1)
    assert 1 <= few.low <= 2 <= few.high <= 3
    values = torch.randn(MANY + 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    many = study_numbers.estimated(values)
    half = 1.96 * float(values.std()) / sqrt(MANY + 1)
    assert (many.low, many.high) == pytest.approx((many.mean - half, many.mean + half))
    # One more picture changes the way, and hardly the interval.
    few = study_numbers.estimated(values[:-1])
    assert few.high - few.low == pytest.approx(many.high - many.low, rel=0.1)


def test_the_interval_of_a_share_is_wilsons():
    """The ends are the shares p for which the count is 1.96 standard errors away."""
    found = study_numbers.share(8, 10)
    assert found.mean == 0.8
    for end in (found.low, found.high):
        assert abs(0.8 - end) == pytest.approx(1.96 * sqrt(end * (1 - end) / 10))
    assert study_numbers.share(37, 37).high == 1
    assert study_numbers.share(37, 37).low == pytest.approx(37 / (37 + 1.96**2))
    assert study_numbers.share(0, 5).low == 0


def test_histograms_reach_from_0_to_1_or_as_far_as_their_values():
    assert study_numbers.scale(numbers(0.2, nan, 0.4)) == (0.0, 1.0)
    assert study_numbers.scale(numbers(-1, 3, inf)) == (-1.0, 3.0)
    assert study_numbers.scale(numbers(2, 2)) == (1.5, 2.5)
    assert study_numbers.scale(numbers(nan)) == (0.0, 1.0)


@given(st.lists(st.integers(0, BINS - 1)))
def test_every_number_lies_in_its_bin(bins):
    middles = [(place + 0.5) / BINS for place in bins]
    expected = [bins.count(place) for place in range(BINS)]
    assert study_numbers.counts(numbers(nan, *middles), (0.0, 1.0)) == expected


def test_residuals_are_counted_by_their_power_of_ten():
    counted = study_numbers.magnitudes(cell().values["residual"])
    assert sum(counted) == 5
    assert (counted[0], counted[BINS // 2], counted[-1]) == (2, 1, 1)
    assert POWERS[1] == "10⁻⁴"


def test_right_and_wrong_pictures_are_told_apart():
    found = study_numbers.panel_of_truth(cell(), "probability")
    assert found.said == "3 right, 2 wrong"
    assert (sum(found.filled), sum(found.outlined)) == (3, 2)
    unknown = replace(cell(), truth=torch.full((6,), -1))
    assert study_numbers.panel_of_truth(unknown, "probability").said == "6 pictures"


def test_the_best_and_the_worst_share_no_picture():
    best, worst = study_numbers.ranked(cell(), "deletion", "lower", 12)
    assert (best, worst) == ([0, 4, 3], [1, 5])
    best, worst = study_numbers.ranked(cell(), "deletion", "higher", 2)
    assert (best, worst) == ([1, 3], [0, 4])
    one = replace(cell(), values={"deletion": numbers(nan, nan, 0.4, nan, nan, nan)})
    assert study_numbers.ranked(one, "deletion", "lower", 12) == ([2], [])


def test_mistakes_and_accuracy_are_of_pictures_whose_class_is_known():
    assert study_numbers.mistakes(cell(), 12) == [3, 1]
    assert study_numbers.mistakes(cell(), 1) == [3]
    found = study_numbers.accuracy(cell())
    assert (found.share.mean, found.share.count) == (0.6, 5)
    assert found.right.mean == pytest.approx(0.7)
    assert found.wrong.mean == pytest.approx(0.875)
    assert study_numbers.accuracy(replace(cell(), truth=torch.full((6,), -1))) is None


def test_classes_are_those_recognised_least_first():
    found = study_numbers.classes(cell(), LABELS, METRIC)
    assert [(line.label, line.pictures, line.accuracy) for line in found.lines] == [
        ("dog", 1, 0.0), ("cat", 3, pytest.approx(2 / 3)), ("owl", 1, 1.0),
    ]  # fmt: skip
    assert found.lines[1].probability == pytest.approx(0.8)
    assert found.lines[1].value == pytest.approx(0.3)
    assert found.confused == [("cat", "dog", 1), ("dog", "cat", 1)]
    given_ = study_numbers.classes(replace(cell(), truth=torch.full((6,), -1)), None, None)
    assert [(line.label, line.pictures, line.accuracy) for line in given_.lines] == [
        ("class 0", 3, None), ("class 1", 2, None), ("class 2", 1, None),
    ]  # fmt: skip
    assert given_.confused == []


def test_of_many_classes_some_are_shown():
    count = 100
    many = Cell(
        "a", "b", torch.arange(count), torch.arange(count), torch.arange(count),
        {"predicted_probability": torch.ones(count).double()},
    )  # fmt: skip
    found = study_numbers.classes(many, None, None)
    assert len(found.lines) + found.left_out == count
    assert found.left_out > 0


def test_a_bar_is_as_high_as_its_share_of_its_group():
    made = family(Histograms("t", "a", "value", ("0", "½", "1"), [Panel("p", "s", [1, 3], [0, 5])], ("x", "y")))
    (drawn,) = made.drawn
    frame = made.frame
    bottom, height, middle = frame.bottom, frame.bottom - frame.top, (frame.left + frame.right) / 2
    at = [f"{bottom - share * height:.1f}" for share in (0.25, 0.75, 0.0, 1.0)]
    ends = f"H{middle:.1f}", f"H{frame.right:.1f}V{bottom}"
    assert drawn.bars == f"M{frame.left} {bottom}V{at[0]}{ends[0]}V{at[1]}{ends[1]}"
    assert drawn.outline == f"M{frame.left} {bottom}V{at[2]}{ends[0]}V{at[3]}{ends[1]}"
    assert [tick.text for tick in frame.across] == ["0", "½", "1"]
    empty = family(Histograms("t", "a", "value", ("0", "½", "1"), [Panel("p", "s", [0, 0])]))
    assert empty.drawn[0].bars == empty.drawn[0].outline == ""


def report(said="no", names=("grad-cam", "gradient")):
    """Return a report whose every text is ``said``."""
    cells = [replace(cell(said, name), values={**cell().values, "deletion": numbers(*([0.1 * i + 0.1] * 5), nan)})
             for i, name in enumerate(names)]  # fmt: skip
    lines = [
        Line(one.model, one.method, 6, i, 0.25, "1 forward", {
            name: study_numbers.estimated(one.values[name]) for name in ("probability", "deletion")
        })
        for i, one in enumerate(cells)
    ]  # fmt: skip
    panels = [study_numbers.panel_of_truth(one, "probability") for one in cells]
    tiles = [
        Tile(said, said, said, True, photo(photograph())),
        Tile(said, said, said, False, None, said),
    ]
    return StudyReport(
        whence="0.1.0", name=said, pictures=8, explained=6, rows=12, models=[said], methods=list(names),
        facts={"Seed": said}, quantities=[PROBABILITY, METRIC], lines=lines,
        accuracies=[study_numbers.accuracy(cells[0])],
        histograms=[Histograms(said, said, "value", ("0", "1", "2"), panels, ("right", "wrong"), 3)],
        galleries=[Gallery(said, said, tiles)],
        classes=[study_numbers.classes(cells[0], (said,) * 3, METRIC)],
        failures=Failures(3, 2, [(said, 2)], 4, [(said, said)]), notes=[(said, 1)], browse="gallery/00001.html",
    )  # fmt: skip


def hostile():
    return report(HOSTILE[0], HOSTILE[1:4])


def pages(made):
    entry = Entry(made.name, [made.name], [Shot("00001/0.jpg", (60, 90), made.name)], [made.name])
    return html(made), sheet(Sheet(made.name, 1, 2, [entry], [("Next", "00002.html")], "../report.html"))


@pytest.mark.parametrize("made", [report(), hostile()], ids=["plain", "hostile"])
def test_the_policy_allows_this_style_and_its_images_alone(made):
    for text, images in zip(pages(made), ("data:", "data: 'self' file:"), strict=True):
        page = policed(text, images)
        assert all(image["alt"] for image in page.all("img"))


@pytest.mark.parametrize("said", HOSTILE)
def test_hostile_texts_are_shown_as_they_are(said):
    for text in (*pages(report(said)), fragment(said, [("Models", said)])):
        assert said.encode("utf-8", "replace").decode() in escapes.unescape(text)
        assert "<script>" not in text
        assert "<img src=x" not in text


def test_the_best_of_several_methods_is_marked():
    text = re.sub(r"\s+", " ", html(report()))
    assert text.count('class="value best"') == 1
    assert 'class="value best">0.100<' in text
    assert text.count("of 5 pictures") == 2
    assert 'class="value best"' not in html(report(names=("grad-cam",)))


def test_what_is_left_out_is_said():
    text = re.sub(r"\s+", " ", html(report()))
    for said in (
        "3 more are not drawn", "and 4 other reasons", "6 of 8 pictures are explained", "The first 1 of them",
        "<strong>Note</strong> 1 row:",
    ):  # fmt: skip
        assert said in text
    assert 'alt="Map over no, no"' in text


@pytest.mark.parametrize(("width", "scheme"), [(390, "light"), (1280, "dark")])
@pytest.mark.parametrize("made", [report(), hostile()], ids=["plain", "hostile"])
def test_the_page_stands_in_a_browser(chromium, tmp_path, made, width, scheme):
    for name, text in zip(("page.html", "sheet.html"), pages(made), strict=True):
        path = tmp_path / name
        path.write_text(text, "utf-8")
        with opened(chromium, path, width=width, color_scheme=scheme) as shown:
            shown.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
            assert shown.evaluate("document.documentElement.scrollWidth") == width
            assert shown.evaluate(CONTRAST) == []
            assert shown.dialogs == []
            assert shown.title().startswith("whence: ")
            assert [url for url in shown.requests if not url.startswith(("data:", f"file://{tmp_path}"))] == []
