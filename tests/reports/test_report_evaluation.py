import html as escapes
import re
from math import nan

import pytest

from report_policy import policed, stays_inside
from report_samples import HOSTILE
from test_report_browser import CONTRAST, opened
from whence.evaluation.result import Evaluation
from whence.reports.plot import Curve, plot
from whence.reports.scores import Asked, Row, Skipped
from whence.rows import ModelFacts, Versions

METRICS = (Asked("deletion:grid=28", "Deletion", "lower"), Asked("pointing", "Pointing game", "higher"))


def evaluation(names=("grad-cam", "rise"), pictures=("a.png", "b.png", "c.png"), said="no"):
    rows = [
        Row(
            picture, name, "samples=50" if i else "", said, metric.text,
            nan if (j, k) == (1, 1) else 0.1 + 0.2 * i + 0.05 * j,
            (0.0, 0.5, 1.0) if k == 0 else (), (0.9, 0.5 - 0.1 * i, 0.1) if k == 0 else (),
            (said,) if (j, k) == (1, 1) else (),
        )
        for j, picture in enumerate(pictures)
        for i, name in enumerate(names)
        for k, metric in enumerate(METRICS)
    ]  # fmt: skip
    return Evaluation(
        tuple(rows), METRICS, ModelFacts(said, said, "9f3c2b" * 10, (3, 32, 32)), 0, said,
        tuple(Skipped(p, said, None, said) for p in pictures), ((said, said),), Versions("0.1.0", {"torch": said}),
    )  # fmt: skip


def hostile():
    return evaluation(HOSTILE[:3], HOSTILE, HOSTILE[0])


@pytest.mark.parametrize("value", [-0.05, 1.5])
def test_a_single_value_outside_stands_in_the_middle(value):
    made = plot([Curve("one", "", (0.0, 1.0), (value, value))], "value")
    assert [float(pair.split(",")[1]) for pair in made.strokes[0].points.split()] == [
        (made.top + made.bottom) / 2
    ] * 2
    assert len({tick.text for tick in made.upright}) == 3


@pytest.mark.parametrize("made", [evaluation(), hostile()], ids=["plain", "hostile"])
def test_the_policy_allows_this_style_and_nothing_else(made):
    text = made.html()
    page = policed(text)
    stays_inside(page)
    assert page.all("img") == []


def test_hostile_texts_are_shown_as_they_are():
    made = hostile()
    shown = escapes.unescape(made.html())
    for text in HOSTILE[:3]:
        assert text in shown
    assert "<script>" not in made.html()
    assert "<script>" not in made._repr_html_()


def test_the_table_says_what_is_best_and_of_how_many():
    text = re.sub(r"\s+", " ", evaluation().html())
    assert 'class="value best">0.150<' in text
    assert text.count('class="value best"') == 2
    assert text.count("of 2 pictures") == 2
    assert "1 number: <bdi>pointing: no</bdi>" not in text
    assert "2 numbers: <bdi>pointing: no</bdi>" in text
    assert "(<bdi>every picture</bdi>)" in text


def test_the_interval_is_drawn_on_the_scale_of_its_column():
    made = evaluation()
    lines = made.table()
    every = [v for line in lines for v in (line.estimates[METRICS[0].text].low, line.estimates[METRICS[0].text].high)]
    text = made.html()
    for line in lines:
        e = line.estimates[METRICS[0].text]
        at = 1 + round(100 * (e.low - min(every)) / (max(every) - min(every)), 2)
        assert f'<rect class="range" x="{at}"' in text


def test_each_method_has_its_mean_curve_before_all_others():
    text = evaluation().html()
    assert text.count('<polyline class="faint"') == 2
    assert text.count('<polyline class="stroke stroke-0"') == 2
    assert text.count('<use href="#f0-all"/>') == 2


def test_a_plot_reaches_from_0_to_1_or_as_far_as_its_values():
    (stroke,) = plot([Curve("a", "", (0.0, 1.0), (0.0, 1.0))], "probability").strokes
    assert stroke.points == "52.0,162.0 312.0,8.0"
    wide = plot([Curve("a", "", (0.0, 1.0), (-3.0, 5.0))], "score")
    assert [tick.text for tick in wide.upright] == ["−3", "1", "5"]
    assert wide.strokes[0].points == "52.0,162.0 312.0,8.0"


@pytest.mark.parametrize(("width", "scheme"), [(360, "light"), (1280, "dark")])
@pytest.mark.parametrize("made", [evaluation(), hostile()], ids=["plain", "hostile"])
def test_the_page_stands_in_a_browser(chromium, tmp_path, made, width, scheme):
    path = made.save(tmp_path / "page.html")
    with opened(chromium, path, width=width, color_scheme=scheme) as shown:
        assert shown.evaluate("document.documentElement.scrollWidth") == width
        assert shown.evaluate(CONTRAST) == []
        assert shown.requests == [f"file://{path}"]
        assert shown.said == []
        assert shown.dialogs == []
        assert shown.title().startswith("whence: ")
