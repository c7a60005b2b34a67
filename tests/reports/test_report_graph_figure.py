import io
import json
import re
import xml.etree.ElementTree as ET
from collections import defaultdict
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from graph_samples import graph, pixels
from report_samples import HOSTILE, explanation, failed, picture, sample
from whence.errors import OutputError, WhenceError
from whence.graphs.graph import AttentionGraph
from whence.reports import contents as kinds
from whence.reports.contents import checked, schema
from whence.reports.folder import read, redraw, write
from whence.reports.graph_drawing import Box, Fan, Shown, Text, drawing
from whence.reports.graph_figure import SCALE, png, stretched, svg
from whence.reports.graph_layout import crossings, rows
from whence.reports.images import resized

SVG = "{http://www.w3.org/2000/svg}"
LINK = "{http://www.w3.org/1999/xlink}href"
MANY = ((1, 2, 3, 4, 5), (3, 4, 5, 6, 7), (10, 11, 12, 13, 14), (20, 21, 22))

sets = st.sets(st.integers(0, 48), max_size=5).map(lambda one: tuple(sorted(one)))
several = st.lists(sets, max_size=4, unique=True)


# The layers.


def _below(one):
    joined = defaultdict(list)
    for edge in one.edges:
        joined[edge.parent].append(edge.child)
    return joined


@settings(deadline=None, max_examples=40)
@given(several)
def test_every_node_stands_once_in_the_layer_of_its_size(roots):
    one = graph(roots, expand=0.1)
    order = rows(one.to_json())
    assert sorted(number for row in order for number in row) == list(range(len(one.nodes)))
    sizes = [{len(one.nodes[number].patches) for number in row} for row in order]
    assert all(len(size) == 1 for size in sizes)
    assert [min(size) for size in sizes] == sorted({len(node.patches) for node in one.nodes}, reverse=True)
    assert rows(one.to_json()) == order


@settings(deadline=None, max_examples=40)
@given(several)
def test_no_more_lines_cross_than_before(roots):
    one = graph(roots, expand=0.1)
    order = rows(one.to_json())
    unsorted = tuple(tuple(sorted(row)) for row in order)
    assert crossings(order, _below(one)) <= crossings(unsorted, _below(one))


def test_crossings_are_counted_pair_by_pair():
    one = graph([(1, 2, 3, 4), (2, 3, 4, 5), (1, 6, 7)], expand=0.1)
    order = tuple(tuple(sorted(row)) for row in rows(one.to_json()))
    place = {number: at for row in order for at, number in enumerate(row)}
    expected = sum(
        (place[a.parent] - place[b.parent]) * (place[a.child] - place[b.child]) < 0
        for i, a in enumerate(one.edges)
        for b in one.edges[:i]
        if any(a.parent in row and b.parent in row for row in order)
    )
    assert crossings(order, _below(one)) == expected > 0


def test_a_chain_of_sets_is_drawn_without_a_crossing():
    one = graph([(9, 18), (2, 9), (18, 30)])
    order = rows(one.to_json())
    assert crossings(tuple(tuple(sorted(row)) for row in order), _below(one)) > 0
    assert crossings(order, _below(one)) == 0


# The figure.


def _drawn(one, label="tabby, 98 %"):
    return drawing(one, rows(one.to_json()), label)


def _svg(one, label="tabby, 98 %"):
    return svg(one.to_json(), one.picture, one.base, label)


def _png(one, label="tabby, 98 %"):
    return Image.open(io.BytesIO(png(one.to_json(), one.picture, one.base, label)))


def _said(one):
    return [shape.said for shape in _drawn(one).shapes if isinstance(shape, Text)]


FIGURES = {
    "two roots": graph(),
    "none": graph([], state="budget"),
    "nothing needed": graph([()]),
    "one patch": graph([(4,)], side=3, size=(20, 30), expand=0.1),
    "several sizes": graph([(1, 2, 3), (2, 3, 4), (20, 21)], expand=0.2),
    "many": graph(MANY, state="interrupted", expand=0.2),
    "centred": graph([(1, 20)], side=14, size=(42, 28), measured="score", whole=0.4),
    "flat": graph([(1, 2)], side=7, size=(16, 224)),
}


@pytest.mark.parametrize("name", FIGURES)
def test_both_formats_have_the_size_of_the_drawing(name):
    drawn, root = _drawn(FIGURES[name]), ET.fromstring(_svg(FIGURES[name]))
    assert (int(root.get("width")), int(root.get("height"))) == (drawn.width, drawn.height)
    shown = _png(FIGURES[name])
    assert shown.size == (drawn.width * SCALE, drawn.height * SCALE)
    assert shown.format == "PNG"


@pytest.mark.parametrize("name", sorted(FIGURES.keys() - {"many"}))
def test_pictures_in_the_figure_are_what_the_model_saw(name):
    one = FIGURES[name]
    drawn, canvas = _drawn(one), np.asarray(_png(one))
    shown = [shape for shape in drawn.shapes if isinstance(shape, Shown)]
    assert (shown[0].pixels == one.picture).all()
    assert len(shown) == 1 + len(one.nodes)
    for shape, number in zip(shown[1:], (n for row in rows(one.to_json()) for n in row), strict=True):
        expected = resized(one.seen(one.nodes[number].patches), (round(2 * shape.h), round(2 * shape.w)))
        assert (stretched(shape) == expected).all()
        top, left = round(2 * shape.y), round(2 * shape.x)
        assert (canvas[top : top + len(expected), left : left + expected.shape[1]] == expected).all()


@pytest.mark.parametrize("name", FIGURES)
def test_nothing_leaves_the_sheet_or_lies_on_another(name):
    drawn = _drawn(FIGURES[name])
    boxes = [shape for shape in drawn.shapes if isinstance(shape, Shown | Box)]
    assert all(min(s.x, s.y) >= 0 and s.x + s.w <= drawn.width and s.y + s.h <= drawn.height for s in boxes)
    labels = [shape for shape in boxes if isinstance(shape, Box) and not shape.width]
    frames = [shape for shape in boxes if isinstance(shape, Box) and shape.width]
    apart = [*labels, *frames]
    for i, a in enumerate(apart):
        for b in apart[:i]:
            beside = a.x + a.w <= b.x or b.x + b.w <= a.x or a.y + a.h <= b.y or b.y + b.h <= a.y
            assert beside, (a, b)


@pytest.mark.parametrize("name", FIGURES)
def test_the_svg_loads_nothing(name):
    text = _svg(FIGURES[name])
    root = ET.fromstring(text)
    links = [element.get(LINK) for element in root.iter() if element.get(LINK)]
    assert len(links) == sum(isinstance(shape, Shown) for shape in _drawn(FIGURES[name]).shapes)
    assert all(link.startswith("data:image/png;base64,") for link in links)
    assert {element.tag.removeprefix(SVG) for element in root.iter()} <= {
        *("svg", "title", "rect", "text", "line", "image"),
    }
    plain = re.sub(r'(xmlns(:\w+)?|xlink:href)="[^"]*"', "", text)
    assert "://" not in plain
    assert "url(" not in plain


@pytest.mark.parametrize("label", [*HOSTILE, "a\0b\x1bc\ufffed", "]]>&amp;<!--"])
def test_a_hostile_label_is_only_text(label):
    root = ET.fromstring(_svg(graph(), label))
    assert {element.tag for element in root.iter()} == {
        element.tag for element in ET.fromstring(_svg(graph())).iter()
    }
    assert root.find(f"{SVG}title").text.strip()
    ET.fromstring(_svg(graph(baseline=label)))
    _png(graph(baseline=label), label)


def test_nodes_say_their_share_and_roots_their_proof():
    said = _said(graph(proof="1-minimal"))
    for text in ("tabby, 98 %", "66 %", "64 %", "33 %", "P9 P18", "P2 P9"):
        assert text in said
    assert said.count("1-minimal") == 2
    assert "Suffices: (P9 and P18) or" in said
    assert "(P2 and P9)" in said
    assert said.count("P18 −33") == 1
    assert "Suffices: no set of patches" in _said(graph([]))
    assert "Suffices: nothing at all" in _said(graph([()]))
    assert any("stopped by its budget" in text for text in _said(graph([], state="budget")))


def test_rising_shares_and_tiny_ones_are_said_as_such():
    one = graph([(9,)], expand=0.1)
    first, second = one.nodes
    one = replace(one, nodes=(replace(first, value=0.5), replace(second, value=0.9)))
    assert "P9 +41" in _said(one)
    one = replace(one, nodes=(replace(first, value=1.2), replace(second, value=0.0001)))
    assert {"122 %", "< 1 %"} <= set(_said(one))


def test_borders_say_what_a_set_is():
    one = graph(expand=0.325)
    frames = [shape for shape in _drawn(one).shapes if isinstance(shape, Box) and shape.width]
    legend, nodes = frames[:3], frames[3:]
    assert len({(box.colour, box.width) for box in legend}) == 3
    order = [number for row in rows(one.to_json()) for number in row]
    for number, box in zip(order, nodes, strict=True):
        node = one.nodes[number]
        kind = 0 if one.suffices(node) else 1 if node.value / one.whole > one.expand else 2
        assert box.colour == legend[kind].colour
    assert {box.colour for box in nodes} == {box.colour for box in legend}


def test_lines_are_as_wide_as_their_loss_and_end_at_their_sets():
    one = graph()
    (fan,) = (shape for shape in _drawn(one).shapes if isinstance(shape, Fan))
    lost = [one.nodes[edge.parent].value - one.nodes[edge.child].value for edge in one.edges]
    by_loss = sorted(range(len(lost)), key=lambda n: lost[n])
    assert [fan.lines[n].width for n in by_loss] == sorted(line.width for line in fan.lines)
    middles = {round(s.x + s.w / 2, 6) for s in _drawn(one).shapes if isinstance(s, Shown)}
    assert {round(x, 6) for line in fan.lines for x in (line.x, line.to_x)} <= middles


def test_a_row_too_wide_keeps_roots_what_goes_on_and_what_costs_most_and_says_so():
    one = graph(MANY, expand=0.2)
    order = rows(one.to_json())
    widest = max(order, key=len)
    assert len(widest) > 14
    drawn = _drawn(one)
    assert drawn.width <= 1260
    shown = [shape for shape in drawn.shapes if isinstance(shape, Shown)][1:]
    assert len(shown) == sum(min(14, len(row)) for row in order)
    assert f"14 of {len(widest)} sets of 3 patches are shown" in _said(one)
    root = next(number for number in widest if one.nodes[number].patches == (20, 21, 22))
    others = sorted(set(widest) - {root}, key=lambda at: (not one.nodes[at].expanded, one.nodes[at].value))
    best = [root, *others[:13]]
    expected = [stretched(replace(shown[0], pixels=one.seen(one.nodes[number].patches))) for number in best]
    there = [stretched(replace(shown[0], pixels=shape.pixels)) for shape in shown]
    assert all(any((a == b).all() for b in there) for a in expected)


def test_patches_are_drawn_where_the_model_sees_them():
    one = graph(size=(56, 56))
    numbers = [shape for shape in _drawn(one).shapes if isinstance(shape, Text) and shape.outline]
    assert [shape.said for shape in numbers] == [str(patch) for patch in range(49)]
    left = _drawn(one).shapes[1].x
    edges = one.places.edges(1)
    for patch in range(7):
        middle = left + 300 * (edges[patch] + edges[patch + 1]) / 2
        assert numbers[patch].x == pytest.approx(middle)


# The folder.

FILES = {"0-sag.svg", "0-sag.png", "0-sag.graphml", "0-sag.dot", "0-sag.json"}


def _contents(one, **changes):
    """Two pictures and a broken one; the first picture has a graph and an explanation without."""
    sag = explanation("0/sag", title="SAG", graph=one.to_json(), evidence=None)
    made = sample(rows=[picture(0, [sag, explanation("0/grad-cam")]), picture(1), failed()])
    seen = None if one.picture is None else (one.picture, one.base)
    return replace(made, drawn=(replace(made.drawn[0], graphs=(seen, None)), *made.drawn[1:]))


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


@pytest.mark.parametrize("name", FIGURES)
def test_a_graph_comes_back_to_the_bit(out, name):
    one = FIGURES[name]
    contents = _contents(one)
    write(contents, out)
    again = read(out)
    assert {entry.name for entry in (out / "graphs").iterdir()} == FILES
    assert again.result["pictures"][0]["explanations"][0]["graph"] == one.to_json()
    (seen, base), nothing = again.drawn[0].graphs
    assert (seen == one.picture).all()
    assert (base == one.base).all()
    assert nothing is None
    assert again.drawn[1].graphs == ()
    assert again.drawn[2] is None


def test_the_files_hold_the_graph(out):
    one = graph()
    write(_contents(one), out)
    home = out / "graphs"
    assert json.loads((home / "0-sag.json").read_text("utf-8")) == one.to_json()
    assert (home / "0-sag.graphml").read_text("utf-8") == one.to_graphml()
    assert (home / "0-sag.dot").read_text("utf-8") == one.to_dot()
    assert (home / "0-sag.svg").read_text("utf-8") == _svg(one, "tabby, 92\N{NO-BREAK SPACE}%")
    assert (home / "0-sag.png").read_bytes() == png(one.to_json(), one.picture, one.base, "tabby, 92 %")


def test_a_graph_without_its_pictures_has_no_figure(out):
    write(_contents(graph(pictures=False)), out)
    assert {entry.name for entry in (out / "graphs").iterdir()} == {"0-sag.graphml", "0-sag.dot", "0-sag.json"}
    assert read(out).drawn[0].graphs == (None, None)


def test_without_a_graph_there_is_no_folder(out):
    write(sample(), out)
    assert not (out / "graphs").exists()


def test_redrawing_a_graph_changes_nothing(out):
    write(_contents(graph()), out)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    redraw(out)
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


def test_a_folder_with_graphs_is_replaced_and_other_files_in_it_are_kept(out):
    write(_contents(graph()), out)
    (out / "graphs" / "for the paper.svg").write_text("mine")
    write(_contents(graph([(3, 4)])), out)
    assert {entry.name for entry in (out / "graphs").iterdir()} == FILES | {"for the paper.svg"}
    assert "P9" not in (out / "graphs" / "0-sag.dot").read_text("utf-8")
    write(sample(), out)
    assert {entry.name for entry in (out / "graphs").iterdir()} == {"for the paper.svg"}
    (out / "graphs" / "for the paper.svg").unlink()
    (out / "graphs").rmdir()
    write(_contents(graph()), out)
    write(sample(), out)
    assert not (out / "graphs").exists()


@pytest.mark.parametrize("name", ["0-sag-seen.png", "0-sag-base.png"])
@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "small"])
def test_damaged_pictures_of_a_graph_are_a_typed_error_or_show_less(out, name, damage):
    write(_contents(graph()), out)
    file = out / "pictures" / name
    data = file.read_bytes()
    file.unlink()
    if damage == "missing":
        assert read(out).drawn[0].graphs == (None, None)
        return
    small = io.BytesIO()
    Image.fromarray(pixels((5, 5))).save(small, "PNG")
    file.write_bytes({"empty": b"", "cut": data[: len(data) // 2], "small": small.getvalue()}[damage])
    with pytest.raises(WhenceError):
        read(out)


@pytest.mark.parametrize("key", ["nodes", "evaluated", "roots"])
def test_a_damaged_graph_is_a_typed_error(out, key):
    write(_contents(graph()), out)
    result = json.loads((out / "result.json").read_text("utf-8"))
    row = result["pictures"][0]["explanations"][0]["graph"]
    row[key][0]["patches"] = [10**6]
    (out / "result.json").write_text(json.dumps(result), "utf-8")
    with pytest.raises(OutputError, match="graph is damaged"):
        read(out)
    del row[key]
    (out / "result.json").write_text(json.dumps(result), "utf-8")
    with pytest.raises(OutputError, match=f"{key} is missing"):
        read(out)


def test_pictures_that_do_not_fit_the_graph_are_refused_whole(tmp_path, out):
    contents = _contents(graph())
    drawn = replace(contents.drawn[0], graphs=((pixels((5, 5)), pixels((5, 5))), None))
    with pytest.raises(OutputError, match="its picture is"):
        write(replace(contents, drawn=(drawn, *contents.drawn[1:])), out)
    assert list(tmp_path.iterdir()) == []


# The published row.


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("graph", kinds.GraphRow),
        ("sufficient", kinds.SufficientRow),
        ("verdict", kinds.VerdictRow),
        ("node", kinds.NodeRow),
        ("edge", kinds.EdgeRow),
    ],
)
def test_the_schema_and_the_types_of_a_graph_have_the_same_keys(name, kind):
    part = schema()["$defs"][name]
    assert set(part["required"]) == kind.__required_keys__ == set(part["properties"])
    assert not kind.__optional_keys__


@pytest.mark.parametrize("name", FIGURES)
def test_a_graph_fits_the_published_schema(name):
    jsonschema = pytest.importorskip("jsonschema")
    result = json.loads(json.dumps(_contents(FIGURES[name]).result))
    assert checked(result) is result
    jsonschema.validate(result, schema(), cls=jsonschema.Draft202012Validator)
    assert set(FIGURES[name].to_json()) == kinds.GraphRow.__required_keys__
    result["pictures"][0]["explanations"][0]["graph"]["style"] = "waves"
    with pytest.raises(OutputError, match="style"):
        checked(result)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(result, schema(), cls=jsonschema.Draft202012Validator)


def test_the_row_is_all_that_a_figure_needs():
    one = graph()
    again = AttentionGraph.from_json(json.loads(json.dumps(one.to_json())), one.picture, one.base)
    assert _svg(again) == _svg(one)
