"""The page about clusters of maps: what it shows and says, and that no text from outside does anything."""

import html as escapes
import json
import re
from dataclasses import replace

import numpy as np
import pytest

from debugging_samples import GUILTY, HARMLESS, MOVING, WEAK, cluster, look, report
from report_policy import policed, stays_inside
from report_samples import HOSTILE
from test_report_browser import CONTRAST, opened
from test_report_page import Page
from whence.reports.debugging_page import _framed, html, reason, verdict
from whence.reports.debugging_results import figures


@pytest.mark.parametrize(
    "made",
    [report(), report("".join(HOSTILE)), report(repaired=False, without_map=0, clustered=90, facts={})],
    ids=["whole", "hostile", "bare"],
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


def test_each_cluster_has_a_card_with_its_pictures():
    text = html(report(checks=(GUILTY, HARMLESS, MOVING)))
    assert [a["id"] for a in Page(text).all("article")] == ["cluster-1", "cluster-2", "cluster-3"]
    assert [a["class"] for a in Page(text).all("article")] == ["card guilty", "card", "card"]
    # A mean and three pictures each.
    assert len(Page(text).all("img")) == 3 * 4
    assert "1 of 3 clusters is suspicious, with 40 of 90 pictures." in text
    for figure in ("97.5\N{NO-BREAK SPACE}%", "0.47", "0.01", "0.02"):
        assert figure in text
    assert text.count("cat, not dog") == 3


def test_what_was_left_out_and_sampled_is_said():
    text = html(report())
    assert "10 pictures whose map shows nothing" in text
    assert "of 60 pictures was clustered" in text
    bare = html(report(without_map=1, clustered=89))
    assert "1 picture whose map" in bare
    assert "was clustered" not in bare


def test_a_repair_is_shown_with_what_it_won():
    text = html(report())
    assert "masked in 380 of 400 training pictures" in text
    rows = re.findall(r"<tr><th scope=\"row\"><bdi>(.*?)</bdi></th>(.*?)</tr>", text[: text.index('id="clusters"')])
    told = {name: re.sub("<.*?>", " ", cells).replace("\N{NO-BREAK SPACE}", "").split() for name, cells in rows}
    assert told["own tag"] == ["500", "100%", "98%", "−2.0"]
    assert told["cat"] == ["500", "2%", "90%", "+88.0"]
    assert "Repaired" not in html(report(repaired=False))


def test_only_so_many_classes_are_named():
    many = cluster(GUILTY, tuple((f"class {n}", 20 - n) for n in range(13)))
    text = html(report(checks=(GUILTY,), clusters=(many,)))
    assert "class 9" in text
    assert "class 10" not in text
    assert "and 3 more" in text


def test_accuracy_that_is_not_known_is_said_to_be():
    unknown = replace(cluster(GUILTY), accuracy=None)
    text = html(report(checks=(GUILTY,), clusters=(unknown,)))
    assert "not known" in text
    assert "<dt>Accuracy</dt>" not in text


@pytest.mark.parametrize(
    ("check", "end"),
    [
        (GUILTY, "the same thing at the same place decides."),
        (HARMLESS, "the decisions do not hang on this region."),
        (MOVING, "it is not one thing."),
        (WEAK, "together too little to be called suspicious."),
    ],
)
def test_the_reason_says_which_of_both_is_missing(check, end):
    assert reason(check).endswith(end)


def test_the_verdict_counts_pictures_and_clusters():
    assert verdict(report(checks=(HARMLESS,))).startswith("No cluster is suspicious")
    assert verdict(report(checks=(GUILTY, GUILTY))) == "2 of 2 clusters are suspicious, with 80 of 90 pictures."


def test_the_frame_is_drawn_around_the_region_alone():
    shot = look().shots[1]
    pixels = np.repeat(np.repeat(shot.pixels, 3, 0), 3, 1)
    drawn = _framed(pixels, shot)
    changed = (drawn != pixels).any(2)
    inside = np.zeros(changed.shape, bool)
    inside[6:30, 9:36] = True
    inside[8:28, 11:34] = False
    assert not changed[~inside].any()
    assert (drawn[inside] == (255, 216, 77)).all()
    assert _framed(pixels, look().shots[0]) is pixels


def test_the_figures_are_plain_json():
    told = json.loads(json.dumps(figures(report()), allow_nan=False))
    first, second = told["clusters"]
    assert (first["cluster"], first["suspicious"], second["suspicious"]) == (1, True, False)
    assert first["score"] == pytest.approx(0.475)
    assert first["check"]["lost"] == 1
    assert first["said"] == {"cat": 30, "dog": 10}
    assert first["members"] == [{"picture": "cat-0.png", "region": [0, 1, 2, 3]}]
    assert told["repair"]["trials"][1] == {"name": "cat", "pictures": 500, "before": 0.02, "after": 0.9}
    assert figures(report(repaired=False))["repair"] is None


@pytest.mark.parametrize(("width", "scheme"), [(390, "light"), (1280, "dark")])
@pytest.mark.parametrize("made", [report(), report("".join(HOSTILE))], ids=["whole", "hostile"])
def test_the_page_stands_in_a_browser(chromium, tmp_path, made, width, scheme):
    path = tmp_path / "debug.html"
    path.write_text(html(made), "utf-8")
    with opened(chromium, path, width=width, color_scheme=scheme) as shown:
        assert shown.evaluate("document.documentElement.scrollWidth") == width
        assert shown.evaluate(CONTRAST) == []
        assert [url for url in shown.requests if not url.startswith("data:")] == [f"file://{path}"]
        assert shown.said == shown.dialogs == []
        assert shown.evaluate("[...document.images].every(i => i.complete && i.naturalWidth > 0)")
