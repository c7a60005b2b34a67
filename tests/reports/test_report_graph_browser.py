import re
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest

from report_samples import HOSTILE, attention, graphed
from test_report_browser import CONTRAST
from whence.graphs import SufficientSet
from whence.reports.folder import write
from whence.reports.page import html

SPACE = "\N{NO-BREAK SPACE}"
# The canvas's own pixels, as red, green and blue.
PIXELS = """canvas => { const { width, height } = canvas;
  const copy = Object.assign(document.createElement("canvas"), { width, height });
  const board = copy.getContext("2d", { willReadFrequently: true });
  board.drawImage(canvas, 0, 0);
  return [...board.getImageData(0, 0, width, height).data].filter((_, place) => place % 4 < 3) }"""


@pytest.fixture(scope="module")
def page_of(tmp_path_factory):
    """Writes a page of graphs and returns its address."""

    def write(*graphs, **options):
        path = tmp_path_factory.mktemp("graphs") / "report.html"
        path.write_text(html(graphed(*graphs, **options)), "utf-8")
        return path

    return write


@pytest.fixture(scope="module")
def plain(page_of):
    return page_of(attention())


@pytest.fixture(scope="module")
def large(page_of):
    roots = ((9, 16, 17, 23, 24, 30, 31), (10, 11, 18, 25, 32, 38, 39, 40))
    return page_of(attention(roots, side=7, size=(224, 224), power=0.8))


@contextmanager
def opened(chromium, path, width=1280, **options):
    """The page, scrolled to its first graph, which is drawn."""
    context = chromium.new_context(viewport={"width": width, "height": 844}, **options)
    shown = context.new_page()
    shown.requests, shown.said = [], []
    shown.on("request", lambda request: shown.requests.append(request.url))
    shown.on("console", lambda message: shown.said.append(message.text))
    shown.on("pageerror", lambda error: shown.said.append(str(error)))
    shown.goto(f"file://{path}")
    shown.locator(".graph").first.scroll_into_view_if_needed()
    if options.get("java_script_enabled", True):
        shown.locator(".graph-node").first.wait_for()
    yield shown
    assert shown.said == []
    assert all(url.startswith(("data:", f"file://{path.parent}/")) for url in shown.requests)
    context.close()


def said(shown):
    return shown.locator(".graph-said").inner_text().replace(SPACE, " ")


def node(shown, name):
    return shown.locator(f".graph-node[aria-label^='{name}:']")


def patch(shown, number):
    return shown.locator(".graph-grid button").nth(number)


def pressed(shown):
    return [int(text[1:]) for text in shown.locator(".graph-grid button[aria-pressed=true]").all_inner_texts()]


def pixels(canvas, size):
    return np.array(canvas.evaluate(PIXELS)).reshape(*size, 3)


@pytest.mark.parametrize("style", ["tents", "centred", "boxes"])
def test_the_canvas_shows_what_the_model_saw(chromium, page_of, style):
    graph = attention(style=style, size=(48, 65))
    graph = replace(graph, **dict(zip(("picture", "base"), graphed(graph).drawn[0].graphs[0], strict=True)))
    with opened(chromium, page_of(graph)) as shown:
        large = shown.locator(".graph-left canvas")
        for name, patches in (("All", range(16)), ("None", ()), ("Set 1", (5, 6)), ("Set 2", (2, 5, 9))):
            shown.get_by_role("button", name=f"{name}:").click()
            assert abs(pixels(large, (48, 65)) - graph.seen(patches).astype(int)).max() <= 2
        for number, each in enumerate(graph.nodes):
            drawn = pixels(shown.locator(".graph-node canvas").nth(number), (48, 65))
            assert abs(drawn - graph.seen(each.patches).astype(int)).max() <= 2


def test_patches_lie_where_the_model_sees_them(chromium, plain):
    with opened(chromium, plain) as shown:
        stage, edges = shown.locator(".graph-left .graph-stage").bounding_box(), attention().places.edges(1)
        boxes = [patch(shown, number).bounding_box() for number in range(4)]
        lefts = [(box["x"] - stage["x"]) / stage["width"] for box in boxes]
        assert np.allclose(lefts, edges[:-1], atol=0.005)
        assert boxes[0]["width"] < 0.6 * boxes[1]["width"]


def test_pointing_at_a_node_outlines_its_patches_and_marks_its_neighbours(chromium, plain):
    with opened(chromium, plain) as shown:
        outline = shown.locator(".graph-left .graph-edge")
        assert outline.get_attribute("d") == ""
        node(shown, "P2 P5 P9").hover()
        assert outline.get_attribute("d").count("M") == 10
        assert pressed(shown) == [2, 5, 9]
        assert said(shown).startswith("P2 P5 P9: probability 95.9 %, 97.9 % of the whole picture’s. It suffices.")
        near = shown.locator(".graph-node.near .graph-name").all_inner_texts()
        assert sorted(near) == ["P2 P5", "P2 P9", "P5 P9"]
        assert sorted(shown.locator(".graph-names text").all_text_contents()) == ["P2−54", "P5−54", "P9−54"]
        shown.mouse.move(0, 0)
        assert said(shown).startswith("All patches: probability 98 %, 100 %")
        assert shown.locator(".graph-node.near").count() == 0


def test_a_line_is_as_thick_as_what_its_patch_costs(chromium, plain):
    graph = attention()
    with opened(chromium, plain) as shown:
        lines = shown.locator(".graph-plane line")
        lost = [graph.share(graph.nodes[e.parent].value - graph.nodes[e.child].value) for e in graph.edges]
        widths = [float(line.get_attribute("stroke-width")) for line in lines.all()]
        assert np.allclose(widths, 1 + 9 * np.array(lost), atol=0.06)
        titles = lines.locator("title").evaluate_all("all => all.map(one => one.textContent)")
        assert titles == [
            f"Without P{edge.patch}: {round(100 * share)} points less"
            for edge, share in zip(graph.edges, lost, strict=True)
        ]


def test_nodes_differ_by_more_than_colour(chromium, plain):
    with opened(chromium, plain) as shown:
        assert shown.locator(".graph-node.suffices").count() == 2
        looks = {
            name: shown.locator(f".graph-node.{name}").first.evaluate(
                "e => { const s = getComputedStyle(e); return s.borderTopStyle + s.borderTopWidth }"
            )
            for name in ("suffices", "above", "below")
        }
        assert len(set(looks.values())) == 3


def test_a_click_pins_a_second_compares_and_a_third_starts_anew(chromium, plain):
    with opened(chromium, plain) as shown:
        node(shown, "P5 P6").click()
        shown.mouse.move(0, 0)
        assert said(shown).startswith("P5 P6: probability 95.8 %")
        assert node(shown, "P5 P6").get_attribute("aria-pressed") == "true"
        panel = shown.locator(".graph-compare")
        assert not panel.is_visible()
        node(shown, "P2 P5 P9").click()
        assert panel.locator("canvas").count() == 2
        text = panel.inner_text().replace(SPACE, " ")
        assert "97.8 % of the whole picture’s" in text
        assert "97.9 % of the whole picture’s" in text
        assert "Only in the first: P6. Only in the second: P2 P9. In both: P5." in text
        assert [path.get_attribute("d").count("M") for path in panel.locator(".graph-edge").all()] == [4, 8]
        node(shown, "P5 P9").click()
        assert not panel.is_visible()
        assert shown.locator(".graph-node[aria-pressed=true]").count() == 1
        shown.keyboard.press("Escape")
        assert shown.locator(".graph-node[aria-pressed=true]").count() == 0


def test_toggling_says_what_was_evaluated_and_what_was_not(chromium, plain):
    with opened(chromium, plain) as shown:
        shown.get_by_role("button", name="None:").click()
        assert said(shown).startswith("Nothing: probability 0.1 %")
        patch(shown, 5).click()
        patch(shown, 7).click()
        assert pressed(shown) == [5, 7]
        share = attention().evaluated[(1 << 5) + (1 << 7)].value
        assert said(shown).startswith(f"P5 P7: probability {100 * share:.1f} %")
        assert "It does not suffice: that is not above 90 %." in said(shown)
        patch(shown, 8).click()
        assert said(shown) == "P5 P7 P8: not evaluated: the model was not asked about this set."
        assert shown.locator(".graph-said").get_attribute("aria-live") == "polite"
        patch(shown, 7).click()
        patch(shown, 8).click()
        patch(shown, 6).click()
        assert "It suffices." in said(shown)
        assert shown.locator(".graph-node.active .graph-name").all_inner_texts() == ["P5 P6"]


def test_the_rest_of_the_picture_can_be_shown_faintly(chromium, plain):
    with opened(chromium, plain) as shown:
        picture = shown.locator(".graph-picture")
        assert not picture.is_visible()
        assert not shown.locator(".graph-base").is_visible()
        shown.get_by_label("Show the rest faintly").check()
        assert picture.is_visible()
        assert picture.bounding_box() == shown.locator(".graph-left canvas").bounding_box()


def test_questions_tell_right_from_wrong_and_keep_the_score(chromium, page_of):
    graph = attention(((5, 6), (0, 1), (2, 3), (10, 14)))
    with opened(chromium, page_of(graph)) as shown:
        shown.get_by_role("button", name="Test yourself").click()
        score = []
        for choose_right in (True, False, True):
            assert "suffices for tabby?" in shown.locator(".graph-question").inner_text()
            names = shown.locator(".graph-choice").evaluate_all("all => all.map(e => e.getAttribute('aria-label'))")
            sets = [[int(number) for number in re.findall(r"P(\d+)", name)] for name in names]
            (right,) = [which for which, each in enumerate(sets) if graph.suffices(graph.verdict(each))]
            score.append(choose_right)
            shown.keyboard.press(str(1 + (right if choose_right else 1 - right)))
            verdict = shown.locator(".graph-verdict").inner_text()
            assert verdict.startswith("✓ Right" if choose_right else "✗ Wrong")
            assert f"picture {right + 1} suffices" in verdict
            assert verdict.count("of the whole picture’s probability") == 2
            assert shown.locator(".graph-score").inner_text() == f"{sum(score)} of {len(score)} right"
            if len(score) == 1:
                shown.keyboard.press("1")
                assert shown.locator(".graph-score").inner_text() == "1 of 1 right"
            shown.get_by_role("button", name=re.compile("Next question|Start again")).click()


def test_without_a_pair_no_question_is_offered(chromium, page_of):
    graph = attention()
    enough = {each: verdict for each, verdict in graph.evaluated.items() if graph.suffices(verdict)}
    with opened(chromium, page_of(replace(graph, evaluated=enough))) as shown:
        assert not shown.locator(".graph-quiz").is_visible()


def test_the_keyboard_is_enough(chromium, plain):
    with opened(chromium, plain) as shown:
        patch(shown, 0).focus()
        for key in ("ArrowRight", "ArrowDown", "ArrowUp", "ArrowLeft", "ArrowLeft", "ArrowDown"):
            shown.keyboard.press(key)
        shown.keyboard.press("Space")
        assert 4 not in pressed(shown)
        assert len(pressed(shown)) == 15
        assert shown.locator(".graph-grid button[tabindex='0']").count() == 1
        while not shown.evaluate("document.activeElement.matches('.graph-node')"):
            shown.keyboard.press("Tab")
            assert shown.evaluate("getComputedStyle(document.activeElement).outlineStyle") != "none"
        focused = shown.locator(".graph-node:focus .graph-name")
        assert focused.inner_text() == "P2 P5 P9"
        shown.keyboard.press("ArrowDown")
        child = focused.inner_text()
        assert set(child.split()) < {"P2", "P5", "P9"}
        assert said(shown).startswith(f"{child}:")
        shown.keyboard.press("ArrowUp")
        assert focused.inner_text() == "P2 P5 P9"
        shown.keyboard.press("Enter")
        shown.keyboard.press("ArrowDown")
        shown.keyboard.press("ArrowLeft")
        shown.keyboard.press("ArrowRight")
        shown.keyboard.press("Enter")
        assert shown.locator(".graph-compare").is_visible()
        shown.keyboard.press("Escape")
        assert not shown.locator(".graph-compare").is_visible()
        assert len(pressed(shown)) == 16
        assert shown.locator(".graph-node[tabindex='0']").count() == 1


def test_the_question_is_answered_with_arrows_and_enter(chromium, plain):
    with opened(chromium, plain) as shown:
        shown.get_by_role("button", name="Test yourself").focus()
        shown.keyboard.press("Enter")
        shown.keyboard.press("ArrowRight")
        assert shown.locator(".graph-choice:focus").get_attribute("aria-label").startswith("Picture 2")
        shown.keyboard.press("Enter")
        assert re.match("[✓✗] (Right|Wrong)", shown.locator(".graph-verdict").inner_text())


@pytest.mark.parametrize("which", ["plain", "large"])
@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_never_scrolls_sideways(chromium, request, which, width):
    with opened(chromium, request.getfixturevalue(which), width=width) as shown:
        shown.locator("summary").last.click()
        assert shown.evaluate("document.documentElement.scrollWidth") == width


def test_a_phone_is_enough(chromium, plain):
    with opened(chromium, plain, width=390, has_touch=True, is_mobile=True) as shown:
        node(shown, "P5 P6").tap()
        assert said(shown).startswith("P5 P6: probability 95.8 %")
        node(shown, "P5 P9").tap()
        assert shown.locator(".graph-compare canvas").count() == 2
        shown.get_by_role("button", name="None:").tap()
        patch(shown, 0).tap()
        assert pressed(shown) == [0]
        assert not shown.locator(".graph-compare").is_visible()
        assert min(patch(shown, 0).bounding_box()[side] for side in ("width", "height")) >= 24
        shown.get_by_role("button", name="Test yourself").tap()
        shown.locator(".graph-choice").first.tap()
        assert shown.locator(".graph-verdict").inner_text()
        assert shown.evaluate("document.documentElement.scrollWidth") == 390


def test_a_large_graph_is_drawn_soon_and_scrolls_in_its_own_box(chromium, large):
    with opened(chromium, large) as shown:
        nodes = shown.locator(".graph-node")
        assert nodes.count() > 250
        seen = shown.evaluate("""() => { const started = performance.now();
          const some = [...document.querySelectorAll(".graph-node")].slice(0, 20);
          for (const one of some) { one.dispatchEvent(new PointerEvent("pointerenter"));
            one.dispatchEvent(new PointerEvent("pointerleave")) }
          return (performance.now() - started) / some.length }""")
        assert seen < 200
        box, plane = shown.locator(".graph-scroll"), shown.locator(".graph-plane")
        assert plane.bounding_box()["width"] > box.bounding_box()["width"]
        nodes.last.scroll_into_view_if_needed()
        shown.wait_for_timeout(300)
        assert pixels(nodes.last.locator("canvas"), (224, 224)).any()
        width = nodes.first.bounding_box()["width"]
        shown.get_by_role("button", name="Smaller").click()
        assert nodes.first.bounding_box()["width"] < width
        shown.get_by_role("button", name="Larger").click()
        assert nodes.first.bounding_box()["width"] == width


def test_the_graph_works_where_the_images_lie_beside_the_page(chromium, tmp_path, monkeypatch):
    monkeypatch.setattr("whence.reports.page.MOST_PICTURES", 0)
    contents = graphed(attention(size=(48, 64)))
    write(contents, tmp_path / "out")
    with opened(chromium, tmp_path / "out" / "report.html") as shown:
        assert (pixels(shown.locator(".graph-left canvas"), (48, 64)) == contents.drawn[0].graphs[0][0]).all()
        assert any("pictures/" in url for url in shown.requests)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_has_enough_contrast(chromium, plain, scheme):
    with opened(chromium, plain, color_scheme=scheme) as shown:
        node(shown, "P5 P6").click()
        node(shown, "P5 P9").click()
        shown.get_by_role("button", name="Test yourself").click()
        shown.keyboard.press("1")
        shown.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
        low = [
            element for _, element in shown.evaluate(CONTRAST) if "<text" not in element and "<tspan" not in element
        ]
        assert low == []


@pytest.mark.parametrize("label", [HOSTILE[0], HOSTILE[1], "</script><script>document.title='PWNED'</script>"])
def test_a_hostile_label_is_only_text(chromium, page_of, label):
    with opened(chromium, page_of(attention(), label=label)) as shown:
        shown.get_by_role("button", name="Test yourself").click()
        assert label in shown.locator(".graph-question").inner_text()
        assert shown.title() == "whence: Small net"
        assert shown.locator(".graph img").count() == 2


def test_a_root_without_patches_stands_alone(chromium, page_of):
    graph = attention()
    nothing = SufficientSet((), 0.97, "minimum")
    alone = replace(graph.nodes[0], patches=(), value=0.97)
    path = page_of(replace(graph, roots=(nothing,), found=(nothing,), nodes=(alone,), edges=()))
    with opened(chromium, path) as shown:
        node(shown, "nothing").hover()
        assert said(shown).startswith("Nothing: probability 97 %")
        assert shown.get_by_text("With every patch taken away the picture still").is_visible()


def test_without_script_the_words_and_the_table_stand(chromium, plain):
    with opened(chromium, plain, java_script_enabled=False) as shown:
        assert shown.get_by_text("(P5 and P6) or (P2 and P5 and P9)").is_visible()
        assert not shown.locator(".graph-view").is_visible()
        shown.get_by_text("The graph as a table").click()
        rows = shown.locator(".graph-table tbody tr")
        assert rows.count() == len(attention().nodes)
        assert "P5 P6" in rows.first.inner_text()


def test_several_graphs_keep_to_themselves(chromium, page_of):
    with opened(chromium, page_of(attention(), attention(((1, 2),)))) as shown:
        second = shown.locator(".graph").nth(1)
        second.scroll_into_view_if_needed()
        second.locator(".graph-node").first.click()
        assert said(shown.locator(".graph").first).startswith("All patches")
        assert said(second).startswith("P1 P2:")
