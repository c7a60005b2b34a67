"""The page about filters: what it shows, what it leaves out, and that no text from outside does anything."""

import html as escapes
import json
import re
from dataclasses import replace
from math import nan

import numpy as np
import pytest

from filter_samples import MEASURES, N, course, report
from report_policy import policed, stays_inside
from report_samples import HOSTILE, photograph
from test_report_browser import CONTRAST, opened
from test_report_page import Page
from whence.errors import OutputError
from whence.reports import filters_page
from whence.reports.course import drawings
from whence.reports.fields import outlined
from whence.reports.filters import Entry, figures, ratio
from whence.reports.filters_page import check, html, write

BARE = {"parts": False, "trained": False, "ordinary": False, "left_out": 0}


def sections(text):
    return [a["aria-labelledby"] for a in Page(text).all("section") if "aria-labelledby" in a]


@pytest.mark.parametrize(
    "made", [report(), report("".join(HOSTILE)), report(**BARE)], ids=["whole", "hostile", "bare"]
)
def test_the_policy_allows_this_style_and_the_pictures_inside(made):
    text = html(made)
    page = policed(text)
    stays_inside(page)
    assert all(a["alt"] for a in page.all("img"))


@pytest.mark.parametrize("said", HOSTILE[:6])
def test_hostile_names_are_shown_as_they_are(said):
    text = html(report(said))
    assert said in escapes.unescape(text)
    assert "<script>" not in text
    assert Page(text).all("img")[-1]["alt"].startswith("Filter 2: ")


def test_every_section_is_there():
    text = html(report())
    assert sections(text) == ["measures", "templates", "course", "filters", "pictures"]
    assert "3 are left out" in text
    assert "<dd><bdi>0.000</bdi></dd>" in text
    assert '<td class="n">2</td>' in text
    assert len(Page(text).all("article")) == 5 + 1
    # Six pictures a side, two sides; three templates; one whole picture, and four images for each of its filters.
    assert len(Page(text).all("img")) == 5 * 6 * 2 + 3 + 1 + 3 * 4


def test_what_is_not_known_is_not_shown():
    text = html(report(**BARE))
    assert sections(text) == ["measures", "templates", "filters", "pictures"]
    assert "left out" not in text
    assert "Control" not in text
    assert text.count("<h4>Filter 1</h4>") == 2
    assert "How it was trained" not in text
    assert text.count("not measured") == 1 + 5
    assert html(replace(report(), walks=())).count('id="pictures"') == 0


def test_filters_stand_under_their_category():
    text = html(report())
    heads = re.findall(r"<h3>(.*?) <span class=\"muted\">(.*?)</span>", text)
    assert heads == [
        ("<bdi>finch 0</bdi>", "2 filters"),
        ("<bdi>finch 1</bdi>", "2 filters"),
        ("no category", "1 filter"),
    ]


def test_the_ratio_is_of_the_interpretable_net_to_the_control():
    made = report()
    values = {net.key: net.values["location_instability"] for net in made.nets}
    assert ratio(made, MEASURES[0]) == values["interpretable"] / values["control"]
    assert f"× {values['interpretable'] / values['control']:.2f}" in html(made)
    assert np.isnan(ratio(report(ordinary=False), MEASURES[0]))
    zero = [replace(net, values={**net.values, "dead": 0}) for net in made.nets]
    assert np.isnan(ratio(replace(made, nets=zero), MEASURES[2]))


def test_the_figures_are_strict_json_and_those_of_the_page():
    made = report(parts=False)
    told = json.loads(json.dumps(figures(made)), parse_constant=pytest.fail)
    assert told["schema"] == 1
    assert told["measures"][1]["values"] == {"plain": None, "masked": None, "control": None, "interpretable": None}
    assert told["measures"][0]["values"]["control"] == 0.02
    assert [f["filter"] for f in told["filters"]] == [0, 1, 2, 3, 4]
    assert told["filters"][0]["interpretable"]["values"]["peak_purity"] is None
    assert told["filters"][4]["interpretable"]["category"] is None
    assert told["filters"][1]["ordinary"]["pictures"][0] == {"picture": "finch-0.png", "class": "finch", "peak": 3.25}
    assert told["templates"] == {"size": [N, N], "count": N * N, "beta": [4.0, 4.0], "centre": "argmax"}
    assert told["course"][-1]["spatial"] == 0.06
    assert told["course"][0]["spatial"] is None
    assert told["pictures"][0]["filters"][1] == {"filter": 1, "contribution": 0.5, "at": [2, 3], "peak": 4.2}
    assert told["left_out"] == 3


def test_a_folder_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = write(report(), tmp_path / "out")
    assert path == tmp_path / "out" / "filters.html"
    assert sorted(p.name for p in path.parent.iterdir()) == ["filters.html", "filters.json"]
    with pytest.raises(OutputError, match="not empty"):
        check(path.parent)
    monkeypatch.delattr(filters_page, "figures")
    with pytest.raises(NameError):
        write(report(), tmp_path / "broken")
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_the_course_counts_epochs_on_and_leaves_out_what_was_not_measured():
    made = {drawing.title: drawing for drawing in drawings(course())}
    accuracy = made["Accuracy"]
    assert [(number, stroke.said) for number, stroke in accuracy.lines] == [(0, "0.8"), (1, "0.95"), (2, "0.94")]
    assert [tick.text for tick in accuracy.plot.across] == ["1", "4", "7"]
    assert [tick.text for tick in accuracy.plot.upright] == ["0.2", "0.95"]
    plain, control, _ = (stroke.points.split() for _, stroke in accuracy.lines)
    assert plain[0] == f"{accuracy.plot.left:.1f},{accuracy.plot.bottom:.1f}"
    assert control[-1] == f"{accuracy.plot.right:.1f},{accuracy.plot.top:.1f}"
    epoch = (accuracy.plot.right - accuracy.plot.left) / 6
    assert float(control[0].split(",")[0]) == pytest.approx(float(plain[-1].split(",")[0]) + epoch, abs=0.1)
    changed = made["Filters that changed category"]
    assert [tick.text for tick in changed.plot.across] == ["6", "7"]
    assert len(changed.lines[0][1].points.split()) == 2


def test_a_course_of_one_epoch_is_a_point_and_nothing_is_no_course():
    (one, _) = drawings([Entry("interpretable", 1, 0.9, 0.1, spatial=nan)])
    points = one.lines[0][1].points.split()
    assert len(points) == 2
    assert points[0] == points[1]
    assert drawings([]) == []


def test_a_field_is_outlined_and_the_rest_dimmed():
    pixels, field = np.full((8, 8, 3), 200, np.uint8), np.zeros((8, 8), bool)
    field[:, :4] = True
    shown = outlined(pixels, field, 32)
    assert shown.shape == (32, 32, 3)
    assert (shown[:, :15] == 200).all()
    assert (shown[:, 15] == (255, 216, 77)).all()
    assert (shown[:, 16:] == 90).all()
    assert outlined(photograph(60, 90), np.ones((60, 90), bool), 30).shape == (20, 30, 3)


@pytest.mark.parametrize(("width", "scheme"), [(360, "light"), (1280, "dark")])
@pytest.mark.parametrize(
    "made", [report(), report("".join(HOSTILE)), report(**BARE)], ids=["whole", "hostile", "bare"]
)
def test_the_page_stands_in_a_browser(chromium, tmp_path, made, width, scheme):
    path = write(made, tmp_path / "out")
    with opened(chromium, path, width=width, color_scheme=scheme) as shown:
        assert shown.evaluate("document.documentElement.scrollWidth") == width
        assert shown.evaluate(CONTRAST) == []
        assert [url for url in shown.requests if not url.startswith("data:")] == [f"file://{path}"]
        assert shown.said == shown.dialogs == []
        assert shown.evaluate("[...document.images].every(i => i.complete && i.naturalWidth > 0)")


def test_a_small_change_does_not_look_like_a_large_one():
    entries = [Entry("control", e, a, 2.0) for e, a in ((1, 1.0), (2, 0.99), (3, 1.0))]
    accuracy, task = (drawing.plot for drawing in drawings(entries))
    assert [tick.text for tick in accuracy.upright] == ["0.9", "1"]
    assert [tick.text for tick in task.upright] == ["1.9", "2.1"]
    ys = [float(pair.split(",")[1]) for pair in accuracy.strokes[0].points.split()]
    assert ys[0] == ys[2] == accuracy.top
    assert ys[1] == pytest.approx(accuracy.top + 0.1 * (accuracy.bottom - accuracy.top), abs=0.1)
    (flat,) = {float(pair.split(",")[1]) for pair in task.strokes[0].points.split()}
    assert flat == (task.top + task.bottom) / 2
