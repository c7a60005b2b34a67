"""The page of a comparison: nothing from outside, hostile names, sentences, tables and pictures."""

import html as escapes
import json
import re
from dataclasses import replace
from math import nan

import numpy as np
import pytest

from report_policy import policed, stays_inside
from report_samples import HOSTILE
from test_report_browser import CONTRAST, opened
from whence.reports.comparing_page import html
from whence.reports.comparing_results import ClassLine, CompareReport, Distance, Pair, Shot, Where, figures
from whence.reports.images import photo
from whence.reports.scores import Estimate

UNDEFINED = Estimate(nan, nan, nan, 0, 3)
LEFT = np.array([[1.0, 0.0], [0.0, 0.0]])
RIGHT = np.array([[0.0, 0.25], [0.5, 0.25]])
IMAGE = photo(np.full((24, 32, 3), 90, np.uint8))


def estimate(mean, half=0.05, count=8, undefined=0):
    return Estimate(mean, mean - half, mean + half, count, undefined)


def distance(title, moved=0.4, change=0.1, pictures=8):
    return Distance(title, pictures, estimate(moved), estimate(-0.3), None if change is None else estimate(change))


def pair(number=0, **more):
    own = Pair(
        number=number,
        picture=f"p{number}.png",
        truth="cat",
        group="cat",
        explained=("cat", "cat"),
        same=True,
        answers=("cat", "cat"),
        agree=True,
        correct=(True, True),
        moved=0.4321,
        rank=-0.25,
        change=0.125,
    )
    return replace(own, **more)


OTHER = {
    "explained": ("cat", "dog"),
    "same": False,
    "answers": ("cat", "dog"),
    "agree": False,
    "correct": (True, False),
    "change": nan,
}


def report(said="grad-cam", models=("before", "after"), **more):
    pairs = [pair(0, picture=f"{said}.png", truth=said, answers=(said, said)), pair(1, **OTHER)]
    own = CompareReport(
        whence="0.1.0",
        folder=said,
        models=models,
        method=said,
        facts={"Method": said},
        pictures=3,
        failed=(1, 0),
        pairs=pairs,
        agreement=Estimate(0.5, 0.1, 0.9, 2, 0),
        groups=[distance("All pictures"), distance(said)],
        anchors=(distance(f"Different pictures on {models[0]}", 0.5, None), distance(said, 0.7, None)),
        where=Where(LEFT, RIGHT, 2, 0.3, 0.1),
        known=True,
        classes=[
            ClassLine(distance(said), 0.5, (1.0, 0.25), RIGHT - LEFT),
            ClassLine(distance("dog"), None, None, None),
        ],
        most=[Shot(pairs[0], (IMAGE,) * 3)],
        changed=[Shot(pairs[1], None, said)],
        notes=[said],
    )
    return replace(own, **more)


def hostile():
    return report(HOSTILE[0], (HOSTILE[1], HOSTILE[4]))


def words_of(made):
    return re.sub(r"\s+", " ", escapes.unescape(re.sub(r"<[^>]*>", " ", html(made)))).replace(
        "\N{NO-BREAK SPACE}", " "
    )


@pytest.mark.parametrize("made", [report(), hostile()], ids=["plain", "hostile"])
def test_the_policy_allows_this_style_and_nothing_else(made):
    text = html(made)
    page = policed(text)
    stays_inside(page)
    ids = [a["id"] for _, a in page.elements if "id" in a]
    assert len(ids) == len(set(ids))
    assert {a["aria-labelledby"] for _, a in page.elements if "aria-labelledby" in a} <= set(ids)
    # Three means, their scales, a class, and three of a picture.
    assert len(page.all("img")) == 3 + 3 + 1 + 3
    assert [a["alt"] for a in page.all("img")].count("") == 3


def test_hostile_texts_are_shown_as_they_are():
    text = html(hostile())
    for name in (HOSTILE[0], HOSTILE[1], HOSTILE[4]):
        assert name in escapes.unescape(text)
    assert "<script>" not in text


def test_the_verdict_compares_with_different_pictures():
    said = words_of(report())
    assert (
        "Of what speaks for the class, 40 % (35 % to 45 %) lies in other places on the second model; between "
        "different pictures on one model it is 50 % and 70 %." in said
    )
    alone = Distance("Different pictures", 0, UNDEFINED, UNDEFINED, None)
    assert "lies in other places on the second model." in words_of(report(anchors=(alone, alone)))
    one = replace(distance("All pictures"), moved=Estimate(0.4, nan, nan, 1, 0))
    assert "Of what speaks for the class, 40 % lies" in words_of(report(groups=[one]))
    none = replace(distance("All pictures"), moved=UNDEFINED)
    assert "nothing can be said" in words_of(report(groups=[none], where=None))


def test_agreement_is_told_where_answers_are_known():
    assert "The same answer is given on both to 50 % (10 % to 90 %) of the pictures." in words_of(report())
    assert "The same answer is given" not in words_of(report(agreement=None))


def test_a_rule_is_told_from_chance():
    assert "30 % moves in the same way over the pictures; were the two maps" in words_of(report())
    assert "up to 10 % in 95 % of the cases. So the second model looks elsewhere as a rule" in words_of(report())
    chance = words_of(report(where=Where(LEFT, RIGHT, 2, 0.1, 0.1)))
    assert "which is chance" in chance
    assert "The third map shows no rule." in chance


def test_numbers_stand_with_their_intervals_and_counts():
    partly = replace(distance("All pictures"), change=Estimate(0.1, 0.05, 0.15, 5, 3))
    said = words_of(report(groups=[partly, replace(partly, change=UNDEFINED)]))
    assert "All pictures 0.400 0.350 to 0.450 −0.300 −0.350 to −0.250 0.100 0.050 to 0.150 of 5 8" in said
    assert "not defined 8" in said
    assert "Different pictures on before 0.500 0.450 to 0.550 −0.300 −0.350 to −0.250 none 8" in said


def test_what_was_left_out_is_told_of_its_model():
    assert "Left out: 1 picture without a map on before ." in words_of(report())
    assert "Left out: 2 pictures without a map on after ." in words_of(report(failed=(0, 2)))
    assert "Left out" not in words_of(report(failed=(0, 0)))


def test_classes_have_their_shares():
    said = words_of(report(said="owl"))
    assert "50 % 100 % → 25 % 8" in said
    assert "dog none 0.400 0.350 to 0.450 −0.300 −0.350 to −0.250 0.100 0.050 to 0.150 not known not known 8" in said
    assert "Right, first → second" not in words_of(report(known=False))
    many = words_of(report(classes=[ClassLine(distance(f"class {i}"), None, None, None) for i in range(42)]))
    assert "class 39" in many
    assert "class 40" not in many
    assert "2 more classes are in compare.json." in many


def test_pictures_are_told_with_their_answers():
    said = words_of(report(said="cat"))
    assert "cat, right → cat, right moved 0.432, rank correlation −0.250, probability +0.125" in said
    assert "cat, right → dog, wrong two classes moved 0.432, rank correlation −0.250 " in said
    assert "1 of 1; those whose maps differ most first." in said
    own = pair(answers=("owl", None), correct=(None, None), moved=nan)
    assert "owl; explained: cat → explained: cat moved not defined" in words_of(
        report(most=[Shot(own, None, "gone")])
    )
    assert 'id="changed"' not in html(report(changed=[]))


def test_the_figures_are_those_of_the_page_and_plain_json():
    told = json.loads(json.dumps(figures(report()), allow_nan=False))
    assert told["groups"][0]["moved"]["mean"] == 0.4
    assert "change" not in told["anchors"][0]
    assert told["where"]["gained"] == (RIGHT - LEFT).tolist()
    assert told["rows"][1]["change"] is None
    assert told["rows"][1]["answers"] == ["cat", "dog"]
    assert (told["compared"], told["pictures"], told["failed"]) == (2, 3, [1, 0])
    none = figures(report(where=None, agreement=None, groups=[replace(distance("All pictures"), moved=UNDEFINED)]))
    assert none["where"] is none["agreement"] is none["groups"][0]["moved"]["mean"] is None


@pytest.mark.parametrize(("width", "scheme"), [(390, "light"), (1280, "dark")])
@pytest.mark.parametrize("made", [report(), hostile()], ids=["plain", "hostile"])
def test_the_page_stands_in_a_browser(chromium, tmp_path, made, width, scheme):
    path = tmp_path / "compare.html"
    path.write_text(html(made), "utf-8")
    with opened(chromium, path, width=width, color_scheme=scheme) as shown:
        assert shown.evaluate("document.documentElement.scrollWidth") == width
        assert shown.evaluate(CONTRAST) == []
        assert [address for address in shown.requests if not address.startswith("data:")] == [f"file://{path}"]
        assert shown.said == []
