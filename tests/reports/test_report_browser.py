from contextlib import contextmanager
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from report_samples import explanation, failed, hostile, picture, sample
from whence.reports import page
from whence.reports.contents import Contents
from whence.reports.folder import write
from whence.reports.overlay import OPACITY


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    return write(sample(rows=[picture(0), picture(1), failed()]), tmp_path_factory.mktemp("plain") / "out")["report"]


@pytest.fixture(scope="module")
def balanced(tmp_path_factory):
    """A page with a balance and more layers, of longer names, than it draws."""
    layers = [{"name": f"features.stages.{n}.block.second.convolution", "shape": [7, 7]} for n in range(40)]
    got = {"start": 10.0, "input": 0.1, "bias": 9.7, "constants": 0.0, "stabiliser": 0.2, "other": {}}
    row = explanation("0/lrp", show="signed", layer=None, layers=layers, residual=1e-7)
    row["balance"] = {**got, "layers": {layer["name"]: 0.25 * n for n, layer in enumerate(layers)}}
    made = sample(rows=[picture(0, [row])])
    maps = {f"0/lrp.layer-{n}": np.full((7, 7), n - 20, np.float32) for n in range(40)}
    contents = Contents(made.result, {**made.maps, **maps}, made.drawn)
    return write(contents, tmp_path_factory.mktemp("balanced") / "out")["report"]


@pytest.fixture(scope="module")
def attacked(tmp_path_factory):
    return write(hostile(), tmp_path_factory.mktemp("hostile") / "out")["report"]


@contextmanager
def opened(chromium, address, width=1280, **options):
    context = chromium.new_context(viewport={"width": width, "height": 800}, **options)
    shown = context.new_page()
    shown.requests, shown.said, shown.dialogs = [], [], []
    shown.on("request", lambda request: shown.requests.append(request.url))
    shown.on("console", lambda message: shown.said.append(message.text))
    shown.on("pageerror", lambda error: shown.said.append(str(error)))
    shown.on("dialog", lambda dialog: (shown.dialogs.append(dialog.message), dialog.dismiss()))
    shown.goto(f"file://{address}")
    yield shown
    context.close()


def _background(shown):
    return shown.evaluate("getComputedStyle(document.body).backgroundColor")


def _pixels(shown):
    return np.asarray(Image.open(BytesIO(shown.screenshot())).convert("RGB"))


def _loaded(shown):
    shown.wait_for_function("[...document.images].every(i => i.complete)")
    return shown.evaluate("[...document.images].every(i => i.naturalWidth > 0)")


def test_nothing_is_loaded_from_outside(chromium, report):
    with opened(chromium, report) as shown:
        assert _loaded(shown)
        assert [url for url in shown.requests if not url.startswith("data:")] == [f"file://{report}"]
        assert shown.said == []


def test_no_text_from_outside_runs(chromium, attacked):
    with opened(chromium, attacked) as shown:
        title = shown.title()
        shown.mouse.move(300, 300)
        shown.wait_for_timeout(100)
        assert shown.title() == title
        assert title.startswith("whence: <script>")
        assert shown.dialogs == []
        assert [url for url in shown.requests if not url.startswith("data:")] == [f"file://{attacked}"]
        assert shown.evaluate("document.scripts.length") == 1
        assert shown.locator("h1").is_visible()
        assert "{{7*7}}" in shown.locator("h1").inner_text()


def test_the_policy_holds_even_if_an_element_were_let_in(chromium, report):
    with opened(chromium, report) as shown:
        shown.evaluate("document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"document.title=1\">')")
        shown.wait_for_timeout(100)
        assert shown.title() == "whence: Small net"
        assert any("Content Security Policy" in text for text in shown.said)


def test_the_slider_changes_the_overlays_opacity(chromium, report):
    with opened(chromium, report) as shown:
        slider, layer = shown.locator("input[type=range]").first, shown.locator(".layer").first
        assert slider.is_visible()
        assert layer.evaluate("e => getComputedStyle(e).opacity") == "0.6"
        slider.focus()
        shown.keyboard.press("End")
        assert layer.evaluate("e => getComputedStyle(e).opacity") == "1"
        shown.keyboard.press("ArrowLeft")
        assert layer.evaluate("e => getComputedStyle(e).opacity") == "0.99"
        assert shown.locator("output").first.inner_text() == "99 %"


def test_the_map_lies_exactly_on_the_picture(chromium, report):
    with opened(chromium, report) as shown:
        below, above = (image.bounding_box() for image in shown.locator(".stack").first.locator("img").all())
        assert below == above


def test_the_page_reads_without_script(chromium, report):
    with opened(chromium, report, java_script_enabled=False) as shown:
        assert not shown.locator(".slider").first.is_visible()
        layer = shown.locator(".layer").first
        assert layer.is_visible()
        assert layer.evaluate("e => getComputedStyle(e).opacity") == str(OPACITY)
        assert shown.get_by_text("Needed.").first.is_visible()
        assert _pixels(shown).std() > 10


@pytest.mark.parametrize("width", [360, 390, 768, 1280])
@pytest.mark.parametrize("which", ["report", "balanced", "attacked"])
def test_nothing_is_wider_than_the_screen(chromium, request, which, width):
    with opened(chromium, request.getfixturevalue(which), width=width) as shown:
        shown.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
        assert shown.evaluate("document.documentElement.scrollWidth") == width


def test_dark_mode_is_dark(chromium, report):
    with opened(chromium, report) as light, opened(chromium, report, color_scheme="dark") as dark:
        assert _background(light) != _background(dark)
        assert _pixels(light).mean() > 160
        assert _pixels(dark).mean() < 90


CONTRAST = """() => {
  const light = c => { const v = c.match(/[\\d.]+/g).slice(0, 3).map(x => { x /= 255;
    return x <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4 });
    return 0.2126 * v[0] + 0.7152 * v[1] + 0.0722 * v[2] };
  const ground = e => { for (; e; e = e.parentElement) {
    const c = getComputedStyle(e).backgroundColor; if (!/, 0\\)$/.test(c)) return c } return "rgb(255, 255, 255)" };
  return [...document.querySelectorAll("main *, header *, footer *")]
    .filter(e => [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim()))
    .map(e => { const [a, b] = [light(getComputedStyle(e).color), light(ground(e))];
      return [(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), e.outerHTML.slice(0, 60)] })
    .filter(([ratio]) => ratio < 4.5) }"""


@pytest.mark.parametrize("which", ["report", "balanced"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_has_enough_contrast(chromium, request, scheme, which):
    with opened(chromium, request.getfixturevalue(which), color_scheme=scheme) as shown:
        shown.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
        assert shown.evaluate(CONTRAST) == []


def test_a_balance_is_a_short_bar_of_parts_that_look_different(chromium, balanced):
    with opened(chromium, balanced) as shown:
        bar, parts = shown.locator(".balance .bar"), shown.locator(".balance .part")
        boxes = [part.bounding_box() for part in parts.all()]
        assert bar.bounding_box()["height"] <= 8
        shares = [box["width"] / bar.bounding_box()["width"] for box in boxes]
        assert np.allclose(shares, [0.01, 0.97, 0.02], atol=0.005)
        assert len({part.evaluate("e => getComputedStyle(e).fill") for part in parts.all()[:2]}) == 2
        assert "Next to nothing" in shown.locator(".balance p").inner_text()
        assert shown.locator(".balance p").bounding_box()["height"] < 60


def test_of_many_layers_a_few_are_seen_and_the_table_opens(chromium, balanced):
    with opened(chromium, balanced) as shown:
        assert shown.locator(".parts li").count() == 9
        table = shown.locator("table.layers")
        assert not table.is_visible()
        shown.get_by_text("All 40 layers").click()
        assert table.is_visible()
        assert table.locator("tbody tr").count() == 40


def test_paper_is_white_and_has_no_slider(chromium, report):
    with opened(chromium, report, color_scheme="dark") as shown:
        shown.emulate_media(media="print")
        assert _background(shown) == "rgb(255, 255, 255)"
        assert not shown.locator(".slider").first.is_visible()


def test_the_keyboard_reaches_links_and_sliders_and_shows_where_it_is(chromium, report):
    with opened(chromium, report) as shown:
        reached = set()
        for _ in range(shown.locator("a, input").count()):
            shown.keyboard.press("Tab")
            reached.add(shown.evaluate("document.activeElement.tagName"))
            assert shown.evaluate("getComputedStyle(document.activeElement).outlineStyle") != "none"
        assert reached == {"A", "INPUT"}


def test_the_images_beside_a_large_page_are_found(chromium, tmp_path, monkeypatch):
    monkeypatch.setattr(page, "MOST_PICTURES", 1)
    address = write(sample(), tmp_path / "out")["report"]
    with opened(chromium, address) as shown:
        shown.evaluate("[...document.images].forEach(image => image.loading = 'eager')")
        assert _loaded(shown)
        assert all(url.startswith(f"file://{tmp_path}") for url in shown.requests)
        assert shown.said == []
