import html as escapes
import re
from dataclasses import replace
from math import nan

import pytest

from report_policy import policed, stays_inside
from report_samples import HOSTILE
from test_report_browser import CONTRAST, opened
from test_report_page import Page
from whence.reports import plot
from whence.reports.counting_page import html
from whence.reports.counting_results import THRESHOLDS, CountReport, Search
from whence.studies.counting import Case, Counted, groups

SEARCH = Search(7, "tents", "black", 0.9, "ratio", 2, 0.0)


def counted(model, number, **changes):
    """Counts that differ from picture to picture, and more so from model to model."""
    sizes = (2, 3, 4)[: 1 + (model + number) % 3]
    sub = tuple(place * (1 + model) + number for place in range(9))
    share = tuple(one / 50 for one in sub)
    facts = {
        "sizes": sizes,
        "compatible": (1, len(sizes), len(sizes)),
        "sub": sub,
        "tree": tuple(2 * one for one in sub),
        "share": share,
        "area": 0.3 + 0.1 * model + 0.01 * number,
        "state": "complete",
        "opened": True,
        "limited": False,
    }
    return Counted(**{**facts, **changes})


def report(models=("net", "vit"), wrong=((0, 3),), unopened=((1, 0),), pictures=5, truth=True, said="sag", **changes):
    cases = [
        Case(name, n, (m, n) not in wrong if truth else None, counted(m, n, opened=(m, n) not in unopened))
        for m, name in enumerate(models)
        for n in range(pictures)
    ]
    facts = {
        "whence": "0.1.0",
        "method": said,
        "search": SEARCH,
        "limit": 10,
        "budget": 2000,
        "models": tuple(models),
        "missing": 0,
        "failed": dict.fromkeys(models, 0),
        "seed": 0,
        "groups": groups(cases, models),
        "rows": [{"model": case.model, "number": case.number, "correct": case.correct} for case in cases],
    }
    return CountReport(**{**facts, **changes})


def hostile():
    return report(tuple(HOSTILE[:3]), said=HOSTILE[0], failed=dict.fromkeys(HOSTILE[:3], 2))


def plain(text):
    return re.sub(r"\s+", " ", escapes.unescape(re.sub("<[^>]*>", "", text)))


def tables(text):
    """Each table as rows of the texts in its cells."""
    return [
        [[plain(cell) for cell in re.findall(r"<t[hd].*?</t[hd]>", row, re.DOTALL)] for row in rows.split("<tr>")[1:]]
        for rows in re.findall("<table.*?</table>", text, re.DOTALL)
    ]


@pytest.mark.parametrize("made", [report(), hostile(), report(("one",))], ids=["plain", "hostile", "one model"])
def test_the_policy_allows_this_style_and_nothing_else(made):
    text = html(made)
    page = policed(text)
    stays_inside(page)
    assert page.all("img") == []


def test_hostile_texts_are_shown_as_they_are():
    text = html(hostile())
    for said in HOSTILE[:3]:
        assert said in escapes.unescape(text)
    assert "<script>" not in text


def test_each_group_of_pictures_has_its_section():
    sections = [a["aria-labelledby"] for a in Page(html(report())).all("section")]
    assert sections == ["how", "correct", "all", "whole"]
    same = html(report(wrong=(), unopened=()))
    assert [a["aria-labelledby"] for a in Page(same).all("section")] == ["how", "all"]
    assert "Every model classifies all these pictures correctly." in same
    assert "All counts of subsets are exact" in same
    unknown = html(report(truth=False))
    assert [a["aria-labelledby"] for a in Page(unknown).all("section")] == ["how", "all", "whole"]
    assert "The true classes are not known" in unknown
    assert "No picture is classified correctly" in html(report(wrong=[(0, n) for n in range(5)]))


def test_the_table_holds_the_figures_of_each_model():
    made = report(wrong=(), unopened=())
    figures, ways, trust, pairs = tables(html(made))
    assert figures[0] == ["Mean over the pictures", "net", "vit"]
    assert (len(figures), len(ways), len(trust), len(pairs)) == (1 + 6 + 18, 1 + 9, 1 + 2, 1 + 1)
    (group,) = (group for group in made.groups if group.key == "all")
    low, high = (
        group.summaries[1].figures["sub:0.5"].estimate.low,
        group.summaries[1].figures["sub:0.5"].estimate.high,
    )
    (row,) = (row for row in figures if row[0].startswith("|SUB(0.5)|, each subset once"))
    # 4 * 2 + number, over five numbers.
    assert row[2] == f"10.000{low:.3f} to {high:.3f}median 10"
    (row,) = (row for row in ways if row[0].startswith("|SUB(0.1)|"))
    assert row[1].startswith("20.000")


def test_pairs_are_marked_where_the_interval_does_not_hold_0():
    pairs = tables(html(report(wrong=(), unopened=())))[3]
    assert pairs[1][0] == "net − vit"
    assert (
        dict(zip(pairs[0], pairs[1], strict=True))["area"] == "−0.100 (its interval does not hold 0)−0.100 to −0.100"
    )
    assert "does not hold 0" not in dict(zip(pairs[0], pairs[1], strict=True))["overlap 0"]
    assert len(tables(html(report(("one",), wrong=(), unopened=())))) == 3
    assert len(tables(html(report(("a", "b", "c"), wrong=(), unopened=())))[3]) == 1 + 3


def test_capped_searches_and_pictures_without_sets_are_counted():
    none = {"sizes": (), "compatible": (0, 0, 0), "area": nan}
    cases = [Case("net", 0, True, counted(0, 0, state="budget", limited=True, opened=False))]
    cases += [Case("net", 1, True, counted(0, 1, **none)), *(Case("net", n, True, counted(0, n)) for n in (2, 3))]
    trust = tables(html(report(("net",), groups=groups(cases, ("net",)))))[2]
    space = "\N{NO-BREAK SPACE}"
    assert [cell.replace(space, " ") for cell in trust[1]] == ["net", "50 %", "25 %", "25 %", "25 %"]


def test_means_over_fewer_pictures_say_so():
    cases = [Case("net", n, True, counted(0, n, **({"area": nan} if n else {}))) for n in range(3)]
    figures = tables(html(report(("net",), groups=groups(cases, ("net",)))))[0]
    (row,) = (row for row in figures if row[0].startswith("area"))
    assert row[1].endswith("of 1 picture")
    assert sum("of 1 picture" in row[1] for row in figures) == 1


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"missing": 4}, "not finished: 4 graphs"),
        ({"failed": {"net": 1, "vit": 0}}, "1 picture could not be searched on net"),
        ({"search": replace(SEARCH, expand=0.4)}, "run the study with expand=0"),
        ({"search": replace(SEARCH, overlap=1)}, "share at most 1 patch:"),
        ({"search": replace(SEARCH, overlap=0)}, "share at most no patch:"),
        ({"unopened": ((0, 1), (0, 2))}, "net: 2 of 5 graphs do not hold all subsets"),
        ({"unopened": [(0, n) for n in range(5)]}, "no picture whose counts of subsets are exact"),
        ({"pictures": 0}, "nothing to compare"),
    ],
)
def test_what_limits_the_counts_is_said(changes, said):
    assert said not in plain(html(report()))
    assert said in plain(html(report(**changes)))


def test_zero_by_definition_is_said_where_it_is():
    assert "there is none by definition" in html(report())
    assert "there is none by definition" not in html(report(search=replace(SEARCH, criterion="top1")))


def points(text):
    return [tuple(map(float, pair.split(","))) for pair in text.split()]


def test_curves_and_bands_stand_on_one_scale_from_0():
    made = report(wrong=(), unopened=())
    (group,) = (group for group in made.groups if group.key == "all")
    text = html(made)
    strokes = [points(found) for found in re.findall(r'<polyline class="stroke model-\d" points="(.*?)"', text)]
    bands = [points(found) for found in re.findall(r'<polygon class="band model-\d" points="(.*?)"', text)]
    assert (len(strokes), len(bands)) == (4, 4)
    frame = plot.plot([plot.Curve("", "", [0.0], [0.0])], "")
    top = group.summaries[1].figures["sub:0.1"].estimate.high

    def place(theta, value):
        x = frame.left + theta * (frame.right - frame.left)
        return pytest.approx((x, frame.bottom - value / top * (frame.bottom - frame.top)), abs=0.051)

    for summary, stroke, band in zip(group.summaries, strokes[:2], bands[:2], strict=True):
        found = [summary.figures[f"sub:{theta}"].estimate for theta in THRESHOLDS]
        assert stroke == [place(theta, e.mean) for theta, e in zip(THRESHOLDS, found, strict=True)]
        assert band[:9] == [place(theta, e.low) for theta, e in zip(THRESHOLDS, found, strict=True)]
        assert band[9:] == [place(theta, e.high) for theta, e in zip(THRESHOLDS, found, strict=True)][::-1]


def test_a_single_picture_has_curves_without_bands():
    text = html(report(pictures=1, wrong=(), unopened=()))
    assert text.count("<polyline") == 4
    assert "<polygon" not in text


def test_what_no_model_has_is_not_drawn():
    cases = [Case("net", n, True, counted(0, n, share=(nan,) * 9, sub=(0,) * 9)) for n in range(3)]
    text = html(report(("net",), groups=groups(cases, ("net",))))
    assert text.count("<figure>") == 1
    # Nothing but zeros lies on the axis.
    (stroke,) = re.findall(r'<polyline class="stroke model-0" points="(.*?)"', text)
    assert {y for _, y in points(stroke)} == {162.0}
    assert "not defined" in text


@pytest.mark.parametrize(("width", "scheme"), [(390, "light"), (1280, "dark")])
@pytest.mark.parametrize("made", [report(), hostile(), report(tuple("abcdefghij"))], ids=["plain", "hostile", "many"])
def test_the_page_stands_in_a_browser(chromium, tmp_path, made, width, scheme):
    path = tmp_path / "count.html"
    path.write_text(html(made), "utf-8")
    with opened(chromium, path, width=width, color_scheme=scheme) as shown:
        assert shown.evaluate("document.documentElement.scrollWidth") == width
        assert shown.evaluate(CONTRAST) == []
        assert shown.requests == [f"file://{path}"]
        assert shown.said == []
        assert shown.dialogs == []
        assert shown.title().startswith("whence: ")
