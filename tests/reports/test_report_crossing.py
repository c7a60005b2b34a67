"""The page of cross-testing: nothing from outside, hostile names, shades, sentences, and places in the drawing."""

import html as escapes
import json
import re
from dataclasses import replace
from math import atan2, inf, nan, pi

import pytest

from report_policy import policed, stays_inside
from report_samples import HOSTILE
from test_report_browser import CONTRAST, opened
from whence.reports.crossing_page import html
from whence.reports.crossing_plot import scatter
from whence.reports.crossing_results import Cell, Crossing, CrossReport, Ellipse, Landscape, Point, figures
from whence.reports.scores import Asked, Estimate

INSERTION = Asked("insertion:grid=28", "Insertion", "higher")
DELETION = Asked("deletion:grid=28", "Deletion", "lower")
NAMES = ("resnet50", "convnext", "deit")
MEANS = ((0.7, 0.3, 0.2), (0.8, 0.6, 0.25), (0.1, 0.2, 0.9))


def cell(mean, small=0, missing=0, half=0.02):
    return Cell(Estimate(mean, mean - half, mean + half, 10, small + missing), small, missing)


def plane(names=NAMES, negative=0.0):
    ats = ((-0.4, 0.1), (0.1, -0.2), (0.3, 0.1))
    points = tuple(Point(name, at, Ellipse(at, (0.1, 0.04), 0.3)) for name, at in zip(names, ats, strict=False))
    return Landscape(points, 2, (0.7, 0.2), negative, False, 1000)


def line(names=NAMES[:2], ellipse=True):
    ats = ((-0.3, 0.0), (0.3, 0.0))
    points = tuple(
        Point(name, at, Ellipse(at, (0.05, 0.0), 0.0) if ellipse else None)
        for name, at in zip(names, ats, strict=True)
    )
    return Landscape(points, 1, (1.0, 0.0), 0.0, False, 1000 if ellipse else 0)


def crossing(metric=INSERTION, means=MEANS, made=None, reason="", method="grad-cam"):
    cells = tuple(
        tuple(cell(mean, int(i == j == 1), 2 * (i > j)) for j, mean in enumerate(row)) for i, row in enumerate(means)
    )
    return Crossing(method, metric, 12, cells, made, reason)


def report(names=NAMES, said="grad-cam", correct=True):
    every = [crossing(INSERTION, made=plane(names), method=said), crossing(DELETION, made=plane(names), method=said)]
    none = [crossing(INSERTION, reason="no picture tells anything", method=said)]
    return CrossReport("0.1.0", names, {"Methods": said}, 0.05, every, none if correct else None)


def hostile():
    return report(HOSTILE[:3], HOSTILE[0])


def words_of(made):
    return re.sub(r"\s+", " ", escapes.unescape(re.sub(r"<[^>]*>", " ", html(made)))).replace(
        "\N{NO-BREAK SPACE}", " "
    )


@pytest.mark.parametrize("made", [report(), hostile()], ids=["plain", "hostile"])
def test_the_policy_allows_this_style_and_nothing_else(made):
    text = html(made)
    page = policed(text)
    stays_inside(page)
    assert page.all("img") == []
    ids = [a["id"] for _, a in page.elements if "id" in a]
    assert len(ids) == len(set(ids))
    assert {a["aria-labelledby"] for _, a in page.elements if "aria-labelledby" in a} <= set(ids)


def test_hostile_texts_are_shown_as_they_are():
    text = html(hostile())
    for name in HOSTILE[:3]:
        assert name in escapes.unescape(text)
    assert "<script>" not in text


def test_the_best_cell_has_the_strongest_shade_whichever_way_is_better():
    for metric, dark, light in ((INSERTION, "0.900", "0.100"), (DELETION, "0.100", "0.900")):
        text = html(CrossReport("0", NAMES, {}, 0.05, [crossing(metric, reason="none")], None))
        shades = dict(re.findall(r'<td class="shade-(\d)[^>]*><[^>]*>([\d.]+)<', text))
        assert re.search(rf"shade-8[^>]*><[^>]*>{dark}<", text)
        assert re.search(rf"shade-0[^>]*><[^>]*>{light}<", text)
        assert len(shades) > 3


def test_cells_hold_numbers_intervals_and_what_was_left_out():
    said = words_of(report())
    assert "0.700 0.680 to 0.720" in said
    assert "0.600 0.580 to 0.620 1 tells too little" in said
    assert "0.100 0.080 to 0.120 2 not judged" in said
    assert html(report()).count(" own") >= 9


def test_a_matrix_of_one_number_or_none_has_no_shade():
    for value in (0.5, nan):
        means = ((value,) * 2,) * 2
        text = html(CrossReport("0", NAMES[:2], {}, 0.05, [crossing(INSERTION, means, reason="none")], None))
        assert set(re.findall(r'class="shade-(\d)', text)) == {"0"}
        assert ("not defined" in text) == (value != value)


def test_sentences_say_whose_maps_serve_a_model_best():
    said = words_of(report(correct=False))
    assert (
        "resnet50: the maps of convnext serve it better, 0.800, than its own, 0.700; the intervals do not overlap"
        in said
    )
    assert "convnext: no other model’s maps serve it better than its own, 0.600." in said
    assert "deit: no other model’s maps serve it better than its own, 0.900." in said
    assert "resnet50: the maps of deit serve it better, 0.100, than its own, 0.700" in said
    near = ((0.7, 0.3, 0.2), (0.71, 0.6, 0.25), (0.1, 0.2, 0.9))
    assert "the intervals overlap" in words_of(CrossReport("0", NAMES, {}, 0.05, [crossing(means=near)], None))
    equal = ((0.7, 0.3, 0.2), (0.70001, 0.6, 0.25), (0.1, 0.2, 0.9))
    made = CrossReport("0", NAMES, {}, 0.05, [crossing(means=equal)], None)
    assert "resnet50: no other model’s maps serve it better than its own, 0.700." in words_of(made)


def test_what_is_to_be_known_of_a_landscape_is_said():
    said = words_of(report())
    assert "The first axis holds 70 % of the size of all eigenvalues" not in said
    assert "The first axis holds 70 %, the second 20 % of the size of all eigenvalues." in said
    assert "No eigenvalue is negative" in said
    assert "95 % of the places that 1000 resamples" in said
    assert "No landscape no picture tells anything" in said

    def of(landscape):
        names = tuple(point.model for point in landscape.points)
        return words_of(
            CrossReport("0", names, {}, 0.05, [crossing(means=MEANS[: len(names)], made=landscape)], None)
        )

    two = [row[:2] for row in MEANS[:2]]
    made = CrossReport("0", NAMES[:2], {}, 0.05, [crossing(means=two, made=line())], None)
    assert "Two models have one distance: the landscape is a line." in words_of(made)
    assert "Bars hold 95 %" in words_of(made)
    alone = CrossReport("0", NAMES[:2], {}, 0.05, [crossing(means=two, made=line(ellipse=False))], None)
    assert "too few pictures for ellipses" in words_of(alone)
    assert "Negative eigenvalues hold 5 %, which no distance can show." in of(plane(negative=0.05))
    assert "misleads about that much" in of(plane(negative=0.3))


def test_equal_lengths_are_equal_distances_in_the_drawing():
    made = plane()
    marks = scatter(made).marks
    for a, b in ((0, 1), (1, 2), (0, 2)):
        drawn = abs(complex(marks[a].x - marks[b].x, marks[a].y - marks[b].y))
        real = abs(complex(*made.points[a].at) - complex(*made.points[b].at))
        scale = drawn / real
        assert scale == pytest.approx(abs(marks[0].x - marks[1].x) / 0.5, rel=0.01)
    # Up in the landscape is up in the drawing.
    assert marks[0].y < marks[1].y


def test_an_ellipse_is_drawn_at_its_middle_turned_as_it_is():
    mark = scatter(plane()).marks[0]
    assert (mark.oval.x, mark.oval.y) == (mark.x, mark.y)
    assert mark.oval.rx / mark.oval.ry == pytest.approx(2.5, rel=0.02)
    assert mark.oval.turned == pytest.approx(-0.3 * 180 / pi, abs=0.1)


def test_everything_lies_inside_the_frame():
    turned = Ellipse((0.3, 0.1), (0.9, 0.05), atan2(1, 1))
    made = plane()
    made = replace(made, points=(*made.points[:2], replace(made.points[2], ellipse=turned)))
    drawn = scatter(made)
    for x, y in ((0.3 - 0.9 * 0.5**0.5, 0.1 - 0.9 * 0.5**0.5), (0.3 + 0.9 * 0.5**0.5, 0.1 + 0.9 * 0.5**0.5)):
        unit = (drawn.marks[1].x - drawn.marks[0].x) / 0.5
        at = drawn.marks[0].x + (x + 0.4) * unit, drawn.marks[0].y - (y - 0.1) * unit
        assert drawn.frame.left <= at[0] <= drawn.frame.right
        assert drawn.frame.top <= at[1] <= drawn.frame.bottom
    for mark in drawn.marks:
        assert drawn.frame.left <= mark.x <= drawn.frame.right
        assert drawn.frame.top <= mark.y <= drawn.frame.bottom


def test_names_of_near_models_do_not_lie_on_each_other():
    points = tuple(Point(f"model number {i}", (0.001 * i, 0.0), None) for i in range(4))
    far = (Point("far", (1.0, 0.5), None),)
    marks = scatter(Landscape(points + far, 2, (0.9, 0.1), 0.0, False, 0)).marks
    places = [(mark.label.x, mark.label.y, mark.label.anchor) for mark in marks[:4]]
    heights = [y for _, y, anchor in places if anchor == places[0][2]]
    assert len(set(places)) == 4
    assert all(abs(a - b) > 8 for i, a in enumerate(heights) for b in heights[:i])


def test_two_models_are_drawn_on_a_line():
    drawn = scatter(line())
    assert drawn.frame.height < 200
    assert drawn.frame.upright == ()
    # Each in a row of its own, with its bar, and its name above.
    assert drawn.frame.top < drawn.marks[0].y < drawn.marks[1].y < drawn.frame.bottom
    for mark in drawn.marks:
        assert (mark.oval.x, mark.oval.y, mark.oval.ry) == (mark.x, mark.y, 1.5)
        assert mark.label.y < mark.y
    assert drawn.marks[1].x - drawn.marks[0].x == pytest.approx(6 * 2 * drawn.marks[0].oval.rx, rel=0.02)


def test_the_figures_are_those_of_the_page_and_plain_json():
    made = report()
    odd = replace(made, every=[crossing(means=((nan, 0.2), (0.3, inf)), made=line())])
    told = json.loads(json.dumps(figures(odd), allow_nan=False))
    assert told["every"][0]["matrix"][0][0]["mean"] is None
    assert told["every"][0]["matrix"][1][1]["mean"] is None
    assert told["every"][0]["matrix"][1][0] == {
        "mean": 0.3, "low": pytest.approx(0.28), "high": pytest.approx(0.32), "count": 10, "small": 0, "missing": 2,
    }  # fmt: skip
    assert told["every"][0]["landscape"]["points"][1] == {
        "model": "convnext",
        "at": [0.3, 0.0],
        "ellipse": {"middle": [0.3, 0.0], "radii": [0.05, 0.0], "angle": 0.0},
    }
    assert told["correct"][0]["landscape"] is None
    assert told["correct"][0]["reason"] == "no picture tells anything"
    assert figures(report(correct=False))["correct"] is None


@pytest.mark.parametrize(("width", "scheme"), [(390, "light"), (1280, "dark")])
@pytest.mark.parametrize("made", [report(), hostile()], ids=["plain", "hostile"])
def test_the_page_stands_in_a_browser(chromium, tmp_path, made, width, scheme):
    path = tmp_path / "cross.html"
    path.write_text(html(made), "utf-8")
    with opened(chromium, path, width=width, color_scheme=scheme) as shown:
        assert shown.evaluate("document.documentElement.scrollWidth") == width
        assert shown.evaluate(CONTRAST) == []
        assert shown.requests == [f"file://{path}"]
        assert shown.said == []
