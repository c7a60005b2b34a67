import re
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from report_samples import attention, drawn, failed, graphed, hostile, picture, sample
from whence.reports.contents import Contents, Drawn
from whence.reports.notebook import html, png


def _noisy(contents):
    """The same with pictures that no file format makes small."""
    rng = np.random.default_rng(0)

    def noise(*shape):
        return rng.integers(0, 256, (*shape, 3), np.uint8)

    pairs = [tuple((noise(224, 224), noise(224, 224)) for _ in each.evidence) for each in contents.drawn]
    return Contents(contents.result, contents.maps, tuple(Drawn(noise(500, 500), pair) for pair in pairs))


@pytest.mark.parametrize("contents", [sample(1), sample(12), hostile(), _noisy(sample(4))], ids=range(4))
def test_a_notebook_view_is_small_and_without_script(contents):
    text = html(contents)
    assert len(text.encode()) < 200_000
    assert "<script" not in text
    assert not re.search(r"<[a-z]+(\s[a-z]+=\"[^\"]*\")*\son\w+=", text)
    assert "data:image/png;base64," in text


def test_a_notebook_view_says_the_numbers():
    text = html(sample(1)).replace("\N{NO-BREAK SPACE}", " ")
    for words in ("Small net", "cat-0.jpg", "Grad-CAM", "tabby", "92 %", "11 %", "88 %"):
        assert words in text


def test_what_does_not_fit_is_counted():
    assert "And 9 more" in html(sample(12))


def test_a_failed_picture_is_said_to_be_failed():
    text = html(sample(rows=[picture(0), failed()]))
    assert "Not explained:" in text
    assert "is cut short" in text


def test_the_figure_shows_picture_map_and_evidence():
    contents = sample(1)
    figure = Image.open(BytesIO(png(contents)))
    assert figure.format == "PNG"
    assert figure.mode == "RGB"
    pixels = np.asarray(figure)
    quarters = np.array_split(pixels, 4, axis=1)
    assert all((quarter < 250).any(-1).mean() > 0.2 for quarter in quarters)


@pytest.mark.parametrize("rows", [[], [failed()]])
def test_nothing_to_show_is_no_error(rows):
    contents = sample(rows=rows)
    assert html(contents)
    assert Image.open(BytesIO(png(contents))).size[0] >= 1


def test_every_label_can_be_drawn():
    assert png(hostile())


def test_a_figure_without_evidence_is_narrower():
    row = picture(0)
    for each in row["explanations"]:
        each["evidence"] = None
    bare = Contents(sample(rows=[row]).result, sample(rows=[row]).maps, (drawn(row),))
    widths = [Image.open(BytesIO(png(each))).width for each in (bare, sample(1))]
    assert widths[0] < widths[1]


def test_a_zero_map_is_said_to_be_zero():
    contents = sample(1)
    zero = {name: values * 0 for name, values in contents.maps.items()}
    assert png(Contents(contents.result, zero, contents.drawn)) != png(contents)


def test_a_graph_is_drawn_beside_its_map():
    contents = graphed(attention())
    without = Contents(contents.result, contents.maps, tuple(Drawn(d.original, d.evidence) for d in contents.drawn))
    assert re.findall(r'alt="[^"]*: ([^"]*)"', html(contents))[1].startswith("the sets of patches that suffice")
    assert len(html(contents).encode()) < 200_000
    assert Image.open(BytesIO(png(contents))).height > Image.open(BytesIO(png(without))).height
