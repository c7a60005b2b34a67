import base64
import hashlib
import html as escapes
import re
from html.parser import HTMLParser
from itertools import pairwise

import pytest
from jinja2 import UndefinedError

from report_samples import HOSTILE, explanation, failed, hostile, picture, sample
from whence.reports.contents import Contents
from whence.reports.page import MOST_EXPLANATIONS, MOST_PICTURES, html, is_large, render
from whence.reports.words import findings, percent, short


class Page(HTMLParser):
    """The elements of a page, and the text between them."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.inside, self.words = [], None, {}
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self.inside = tag

    def handle_data(self, data):
        self.words.setdefault(self.inside, []).append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def text():
    return html(sample(rows=[picture(0), picture(1, truth="lynx"), failed()]))


def _policy(text):
    return next(m["content"] for m in Page(text).all("meta") if m.get("http-equiv") == "Content-Security-Policy")


@pytest.mark.parametrize("contents", [sample(), hostile()], ids=["plain", "hostile"])
def test_the_policy_allows_this_style_and_script_and_nothing_else(contents):
    text = html(contents)
    policy = dict(part.split(" ", 1) for part in _policy(text).split("; "))
    assert policy.pop("default-src") == policy.pop("base-uri") == policy.pop("form-action") == "'none'"
    assert policy.pop("img-src") == "data:"
    for tag in ("style", "script"):
        (inner,) = re.findall(f"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(inner.encode()).digest()).decode()
        assert policy.pop(f"{tag}-src") == f"'sha256-{digest}'"
    assert policy == {}


@pytest.mark.parametrize("contents", [sample(), hostile()], ids=["plain", "hostile"])
def test_no_element_or_attribute_comes_from_outside(contents):
    page = Page(html(contents))
    assert len(page.all("script")) == len(page.all("style")) == 1
    for _, attributes in page.elements:
        assert not [name for name in attributes if name == "style" or name.startswith("on")]
    addresses = [a[key] for _, a in page.elements for key in ("src", "href") if key in a]
    assert all(address.startswith(("data:image/", "#")) for address in addresses)


def test_hostile_texts_are_shown_as_they_are():
    shown = escapes.unescape(html(hostile()))
    for text in HOSTILE[:-1]:
        assert text in shown


def test_every_image_says_what_it_shows(text):
    images = Page(text).all("img")
    assert all("alt" in image and int(image["width"]) > 0 and int(image["height"]) > 0 for image in images)
    assert {image["alt"] for image in images if image.get("class") != "layer"} >= {
        "The picture cat-0.jpg",
        "Map of Grad-CAM for tabby, without the picture",
        "Only the important 6.4\N{NO-BREAK SPACE}% kept",
    }


def test_headings_go_down_one_level_at_a_time(text):
    levels = [int(tag[1]) for tag, _ in Page(text).elements if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))


def test_ids_are_unique_and_every_link_and_label_leads_somewhere(text):
    elements = Page(text).elements
    ids = [a["id"] for _, a in elements if "id" in a]
    assert len(ids) == len(set(ids))
    links = {a["href"][1:] for tag, a in elements if tag == "a"} | {
        a["aria-labelledby"] for _, a in elements if "aria-labelledby" in a
    }
    assert links <= set(ids)


def test_the_page_says_everything(text):
    said = escapes.unescape(re.sub(r"<[^>]*>", " ", text)).replace("\N{NO-BREAK SPACE}", " ")
    for words in (
        *("Small net", "9f3c2b9f3c2b", "3 × 32 × 32", "whence 0.1.0", "torch 2.14.1", "creatures"),
        *("holiday/cat-0.jpg", "90 × 60 pixels", "EXIF orientation 6 applied", "tiger cat", "< 0.1 %", "92 %"),
        *("The top class is right.", "The top class is wrong.", "features.3", "relu = no", "1 forward, 1 backward"),
        *("2.1e−07", "0.134 s", "the map is noisy by nature", "Needed.", "Sufficient.", "6.4 % blurred away"),
        *("the margin that the model did not see", "Not explained.", "'broken.jpg' is cut short"),
    ):
        assert words in said


def test_a_page_of_many_pictures_has_contents():
    assert "<nav" not in html(sample(pictures=3))
    page = html(sample(pictures=4))
    assert all(f'href="#p{index}"' in page for index in range(4))


def test_what_is_not_known_is_left_out():
    target = {"index": -1, "label": None, "probability": None, "score": -3.5}
    row = explanation(target=target, evidence=None, residual=None, layer=None)
    page = html(sample(rows=[picture(0, [row], geometry=None, truth=None, top=[])]))
    assert "the given function" in page
    assert "−3.5" in page
    assert "No evidence was measured" in page
    assert "Shown is what the model saw" in page
    assert "Truth" not in page
    assert "Residual</dt>" not in page


def test_a_zero_map_is_said_to_be_zero():
    contents = sample(pictures=1)
    zero = {name: values * 0 for name, values in contents.maps.items()}
    assert html(Contents(contents.result, zero, contents.drawn)).count("The map is zero everywhere") == 2


def test_a_report_is_large_by_its_pictures_or_explanations():
    result = sample(pictures=1).result
    (row,) = result["pictures"]
    assert not is_large(result | {"pictures": [row] * (MOST_EXPLANATIONS // 2)})
    assert is_large(result | {"pictures": [row] * (MOST_EXPLANATIONS // 2 + 1)})
    assert is_large(result | {"pictures": [failed()] * (MOST_PICTURES + 1)})


def test_a_template_says_nothing_undefined():
    with pytest.raises(UndefinedError):
        render("report.html.j2", {})


@pytest.mark.parametrize(
    ("share", "said"),
    [(0.0, "0"), (0.0001, "< 0.1"), (0.064, "6.4"), (0.5, "50"), (0.99999, "> 99.9"), (1.0, "100")],
)
def test_nothing_is_rounded_to_certainty(share, said):
    assert percent(share).replace("\N{NO-BREAK SPACE}", " ") == f"{said} %"


@pytest.mark.parametrize(
    ("removed", "kept", "leads"),
    [
        (0.1, 0.9, ("Needed.", "Sufficient.")),
        (0.6, 0.6, ("Partly needed.", "Partly sufficient.")),
        (0.9, 0.1, ("Not needed.", "Not sufficient.")),
        (0.99, 0.99, ("Not needed.", "Sufficient.")),
    ],
)
def test_the_evidence_is_judged(removed, kept, leads):
    target = {"index": 1, "label": "tabby", "probability": 0.92, "score": 3.0}
    evidence = {"share": 0.064, "baseline": "blurred", "removed": removed, "kept": kept}
    assert tuple(finding.lead for finding in findings(target, evidence)) == leads


@pytest.mark.parametrize(
    ("path", "name"),
    [("a/b.jpg", "b.jpg"), ("C:\\a\\b.jpg", "b.jpg"), ("https://x.org/b.jpg", "b.jpg"), ("", "picture")],
)
def test_a_picture_is_called_by_its_file(path, name):
    assert short(path) == name
