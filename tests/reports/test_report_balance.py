"""Where the relevance went, in one line: honest where shares are negative, cancel out or are tiny; many layers."""

import json
import re

import numpy as np
import pytest

from report_samples import HOSTILE, explanation, picture, sample
from whence.errors import OutputError
from whence.reports import notebook, page
from whence.reports.balance import balance
from whence.reports.contents import Contents
from whence.reports.folder import redraw, write
from whence.reports.overlay import on_grid
from whence.reports.small import MOST_LAYERS, drawn_layers
from whence.reports.words import plain, share

NOTHING = {"input": 0.0, "bias": 0.0, "constants": 0.0, "stabiliser": 0.0, "other": {}, "layers": {}}


def row(start=10.0, layer=None, **got):
    return explanation(
        "0/lrp", title="LRP", layer=layer, show="signed", balance={**NOTHING, "start": start, **got}, layers=[]
    )


def text(*args, **got):
    return plain(balance(row(*args, **got)).text)


@pytest.mark.parametrize(
    ("value", "said"),
    [(0.41, "41 %"), (1.18, "118 %"), (-0.18, "-18 %"), (0.0, "0 %"), (0.00063, "0.1 %"), (0.0000111, "0.00111 %"),
     (-0.0001, "-0.01 %"), (0.99994, "> 99.9 %"), (1.0, "100 %"), (-1.0, "-100 %")],
)  # fmt: skip
def test_a_share_is_never_rounded_to_nothing_or_everything(value, said):
    assert plain(share(value)) == said


def test_the_line_tells_who_got_what():
    assert text(input=4.1, bias=5.7, stabiliser=0.2) == "of 10: input 41 %, biases 57 %, stabilisers 2 %"
    assert text(input=4.1, bias=5.9, stabiliser=-1e-4) == "of 10: input 41 %, biases 59 %"
    assert text(input=10.0) == "of 10: input 100 %, biases 0 %"
    assert text(input=3.0, constants=2.0, bias=1.0, other={"softmax": 4.0}) == (
        "of 10: input 30 %, biases 10 %, constants 20 %, softmax 40 %"
    )


def test_negative_shares_and_those_above_the_whole_are_told_as_they_are():
    assert text(input=-1.8, bias=11.8) == "of 10: input -18 %, biases 118 %"
    # Of a negative start, what has its sign is a part of it.
    assert text(-2.0, input=0.5, bias=-2.5) == "of -2: input -25 %, biases 125 %"


def test_what_nobody_got_is_told():
    assert text(input=4.0, bias=5.0) == "of 10: input 40 %, biases 50 %, unaccounted for 10 %"


def test_of_a_start_that_cancels_out_amounts_are_told():
    assert text(1e-8, input=2.5, bias=-2.5 + 1e-8) == "of 0: input 2.5, biases -2.5"
    assert text(0.1, input=2.5, bias=-2.4) == "of 0.1: input 2.5, biases -2.4"
    assert text(0.0) == "of 0: input 0, biases 0"
    assert text(0.0, layer="top", layers={"top": 3.0}) == "of 0: 3 at top; in the end input 0, biases 0"


def test_at_a_layer_its_share_comes_first():
    made = balance(row(layer="top", input=0.1, bias=9.9, layers={"top": 9.2, "stem": 1.0}))
    assert plain(made.text) == "of 10: 92 % at top; in the end input 1 %, biases 99 %"
    assert made.widths == (92.0,)
    assert not made.says_little


def test_a_bar_is_drawn_of_parts_of_a_whole_only():
    assert balance(row(input=4.1, bias=5.7, stabiliser=0.2)).widths == (41.0, 57.0, 2.0)
    assert balance(row(input=-1.8, bias=11.8)).widths == ()
    assert balance(row(1e-8, input=2.5, bias=-2.5)).widths == ()


def test_methods_without_a_balance_have_no_line():
    assert balance(explanation()) is None
    assert balance(explanation(balance=None)) is None
    assert "Balance" not in page.html(sample()).partition("<main>")[2].partition("</ol>")[2]


def page_of(explained, more=None):
    made = sample(rows=[picture(0, [explained])])
    return Contents(made.result, {**made.maps, **(more or {})}, made.drawn)


def test_the_page_and_the_notebook_show_it():
    contents = page_of(row(input=4.1, bias=5.7, stabiliser=0.2))
    html = page.html(contents)
    assert "of 10: input 41 %, biases 57 %, stabilisers 2 %" in html.replace("\N{NO-BREAK SPACE}", " ")
    widths = re.findall(r'class="part" x="([\d.]+)" width="([\d.]+)"', html)
    assert [(float(x), float(w)) for x, w in widths] == [(0, 41), (41, 57), (98, 2)]
    assert "Next to nothing" not in html
    assert "input 41 %" in notebook.html(contents).replace("\N{NO-BREAK SPACE}", " ")


def test_a_map_that_next_to_nothing_came_to_says_so():
    assert "Next to nothing of what was handed back is in this map" in page.html(page_of(row(input=0.01, bias=9.99)))
    layer = row(layer="top", input=0.01, bias=9.99, layers={"top": 9.0})
    assert "Next to nothing" not in page.html(page_of(layer))


def test_a_map_of_tiny_values_keeps_its_sign_its_colours_and_its_numbers():
    contents = page_of(row(input=1e-30, bias=10.0))
    tiny = {name: (values * 1e-30).astype(np.float32) for name, values in contents.maps.items()}
    text = page.html(Contents(contents.result, tiny, contents.drawn))
    assert "blue speaks against the class, orange for it" in text
    assert re.search(r"<span>−[\d.]+e−30</span><span>0</span><span>[\d.]+e−30</span>", text)


def of_many(count, shapes=((7, 7),)):
    """An explanation with ``count`` layers, of these shapes in turn, and its maps."""
    layers = [{"name": f"block.{n}", "shape": list(shapes[n % len(shapes)])} for n in range(count)]
    sums = {one["name"]: 0.1 * n for n, one in enumerate(layers)}
    made = {**row(input=4.0, bias=6.0, layers=sums), "layers": layers}
    maps = {f"0/lrp.layer-{n}": np.ones(one["shape"], np.float32) for n, one in enumerate(layers)}
    return made, maps


@pytest.mark.parametrize("count", [1, MOST_LAYERS, MOST_LAYERS + 1, 100])
def test_of_many_layers_a_few_are_drawn_from_the_first_to_the_last(count):
    chosen = drawn_layers(of_many(count)[0])
    assert len(chosen) == len(set(chosen)) == min(count, MOST_LAYERS)
    assert (chosen[0], chosen[-1]) == (0, count - 1)
    assert chosen == sorted(chosen)


def test_the_page_of_many_layers_stays_small_and_tells_all_sums():
    made, maps = of_many(60)
    html = page.html(page_of(made, maps)).replace("\N{NO-BREAK SPACE}", " ")
    assert html.count('alt="Map at the layer') == MOST_LAYERS
    assert f"Drawn are {MOST_LAYERS} of 60 layers" in html
    assert "All 60 layers" in html
    table = html[html.index('<table class="layers">') : html.index("</details>")]
    assert table.count("<tr>") == 61
    assert re.search(r"block\.41.*?7 × 7.*?>4\.1<.*?>41 %<", table, re.S)
    assert "The map above is that of the input." in html


def test_few_layers_are_all_drawn_with_their_shares():
    made, maps = of_many(3)
    html = page.html(page_of(made, maps)).replace("\N{NO-BREAK SPACE}", " ")
    assert "<details" not in html
    assert re.search(r"block\.2</bdi><br><span class=\"value\">2 %</span>", html)


def test_a_layer_without_places_is_kept_and_told_and_never_drawn(tmp_path):
    made, maps = of_many(4, shapes=((5,), (3, 7, 7), (5, 1, 1), (1,)))
    assert drawn_layers(made) == [1]
    write(page_of(made, maps), tmp_path / "out")
    text = (tmp_path / "out" / "report.html").read_text("utf-8")
    assert text.count('alt="Map at the layer') == 1
    assert "Drawn are 1 of 4 layers" in text
    redraw(tmp_path / "out")
    assert (tmp_path / "out" / "report.html").read_text("utf-8") == text
    with np.load(tmp_path / "out" / "maps.npz") as stored:
        assert stored["0/lrp.layer-0"].shape == (5,)


def test_an_explanation_of_a_layer_without_places_is_drawn_even():
    contents = page_of(row(layer="head", input=4.0, bias=6.0, layers={"head": 10.0}) | {"shape": [5]})
    html = page.html(contents)
    assert "at <bdi>head</bdi>" in html
    assert (on_grid(np.array([1, 2, 3.5], np.float32), "sum", (4, 6)) == 6.5).all()


def test_a_result_with_a_balance_fits_the_schema_and_is_checked(tmp_path):
    jsonschema = pytest.importorskip("jsonschema")
    from whence.reports.contents import schema

    made, maps = of_many(2, shapes=((5,), (3, 7, 7)))
    write(page_of(made, maps), tmp_path / "out")
    path = tmp_path / "out" / "result.json"
    result = json.loads(path.read_text())
    jsonschema.validate(result, schema())
    result["pictures"][0]["explanations"][0]["balance"]["other"] = {"softmax": "much"}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(result, schema())
    path.write_text(json.dumps(result))
    with pytest.raises(OutputError, match="softmax"):
        redraw(tmp_path / "out")


@pytest.mark.parametrize("text", HOSTILE[:6])
def test_names_in_a_balance_are_escaped(text):
    made = row(layer=text, input=1.0, bias=2.0, other={text: 7.0}, layers={text: 3.0})
    for html in (page.html(page_of(made)), notebook.html(page_of(made))):
        assert "<script>document" not in html
        assert "<img src=x" not in html
