"""Captum's way of showing: its numbers, its modes, said truly, kept in the folder."""

import json
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import whence
from report_samples import explanation, photograph, picture, sample, signed
from whence.cli import run
from whence.creatures import draw
from whence.creatures.files import write as write_creatures
from whence.errors import MissingExtraError, OptionError
from whence.reports import colours, legend
from whence.reports.colours import Scale, scale_of, table
from whence.reports.contents import schema
from whence.reports.folder import read, redraw, write
from whence.reports.look import DEFAULT, Look, looked
from whence.reports.notebook import figure
from whence.reports.overlay import OPACITY, lay, placed
from whence.reports.page import html
from whence.results import CLASS_AGNOSTIC

SIGNS = {"positive": "positive", "negative": "negative", "absolute": "absolute_value", "all": "all"}
MODES = ("blended", "heat-map", "original", "masked", "alpha-scaling")


def heat(seed=0, shape=(30, 40)):
    return np.random.default_rng(seed).standard_normal(shape) ** 3


def laid(look, sign="positive", values=None, shown=(30, 40), box=(0, 0, 30, 40)):
    values = heat() if values is None else values
    row = {"picture": list(shown), "grid": list(values.shape), "box": list(map(float, box))}
    return lay(photograph(*shown), values.astype(np.float32), sign, placed(row, shown), look)


# Captum's numbers.


@pytest.mark.parametrize("outlier_perc", [0.5, 2, 10, 50, 99])
@pytest.mark.parametrize("sign", SIGNS)
@pytest.mark.parametrize("seed", range(3))
def test_values_are_normalised_as_captum_does(sign, outlier_perc, seed):
    theirs = pytest.importorskip("captum.attr._utils.visualization")._normalize_attr
    values = heat(seed)
    found = scale_of(values, sign, outlier_perc).normalised(values)
    assert np.abs(found - theirs(values, SIGNS[sign], outlier_perc)).max() < 1e-10


def test_without_outliers_the_scale_ends_at_the_largest_value_where_captum_fails():
    """Captum compares the sum with itself times 0.01 times 100, which rounding can make larger."""
    theirs = pytest.importorskip("captum.attr._utils.visualization")._normalize_attr
    failed = 0
    for seed in range(30):
        values = heat(seed)
        found = scale_of(values, "all").normalised(values)
        assert np.abs(found).max() == 1
        try:
            assert np.abs(found - theirs(values, "all", 0)).max() < 1e-10
        except IndexError:
            failed += 1
    assert failed > 0


@pytest.mark.parametrize("sign", SIGNS)
def test_single_precision_ends_at_the_same_value_as_captums(sign):
    theirs = pytest.importorskip("captum.attr._utils.visualization")._normalize_attr
    values = heat(4, (224, 224)).astype(np.float32)
    found = scale_of(values, sign, 2).normalised(values)
    assert found.dtype == np.float32
    assert (found == theirs(values, SIGNS[sign], 2)).all()


def test_the_scale_ends_where_the_sum_reaches_the_rest():
    values = np.array([[1.0, 2.0], [-3.0, 4.0]])
    assert scale_of(values, "absolute", 40).top == 3
    assert scale_of(values, "absolute", 39).top == 4
    assert scale_of(values, "positive", 58).top == 2
    assert scale_of(values, "negative", 50).normalised(values).tolist() == [[0, 0], [1, 0]]
    assert scale_of(values, "negative", 50).ticks == (0, -1.5, -3)
    assert scale_of(values, "all", 40).normalised(values).tolist() == [[1 / 3, 2 / 3], [-1, 1]]


@pytest.mark.parametrize("sign", SIGNS)
@pytest.mark.parametrize("outlier_perc", [0, 2, 99.9])
def test_zeros_and_one_value_are_drawn_without_a_fault(sign, outlier_perc):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for values in (np.zeros((3, 3)), np.full((1, 1), 2.0), np.full((2, 2), -1e-30), np.full((2, 2), 5e-324)):
            unit = scale_of(values, sign, outlier_perc).unit(values)
            assert ((unit >= 0) & (unit <= 1)).all()


# The modes, in pixels.


def test_the_default_is_what_it_was():
    for sign in ("positive", "all"):
        one = laid(DEFAULT, sign)
        top = max(one.scale.top, 0)
        values = heat().astype(np.float32)
        assert top == np.float32(values.max() if sign == "positive" else np.abs(values).max())
        assert (one.drawn() == one.blended(OPACITY)).all()
    contents = sample()
    assert looked(contents, Look.read()).result == contents.result
    assert html(looked(contents, Look.read(mode="blended_heat_map", colours="whence"))) == html(contents)


def test_the_modes():
    masked, faded = laid(Look(mode="masked")), laid(Look(mode="alpha-scaling"))
    photo, share = photograph(30, 40), masked.scale.unit(heat().astype(np.float32))[..., None]
    assert (laid(Look(mode="original")).drawn() == photo).all()
    assert (laid(Look(mode="heat-map")).drawn() == masked.scale.rgb(heat().astype(np.float32))).all()
    assert (masked.drawn() == np.clip((photo * share).astype(int), 0, 255)).all()
    on_white = photo * (alpha := np.floor(share * 255) / 255) + 255 * (1 - alpha)
    assert np.abs(faded.drawn() - on_white).max() <= 0.5
    at = np.unravel_index(heat().argmax(), (30, 40))
    assert (masked.drawn()[at] == photo[at]).all()
    assert (faded.drawn()[at] == photo[at]).all()
    zero = heat() <= 0
    assert (masked.drawn()[zero] == 0).all()
    assert (faded.drawn()[zero] == 255).all()


@pytest.mark.parametrize("sign", ["positive", "negative", "absolute"])
def test_a_masked_picture_is_captums(sign):
    vis = pytest.importorskip("captum.attr._utils.visualization")
    values = heat().astype(np.float32)
    found = laid(Look(mode="masked", outlier_perc=2), sign).drawn()
    share = vis._normalize_attr(values, SIGNS[sign], 2)
    assert (found == vis._prepare_image(photograph(30, 40) * share[..., None])).all()


@pytest.mark.parametrize("mode", ["heat-map", "masked", "alpha-scaling"])
def test_what_the_model_did_not_see_stays_hatched(mode):
    one = laid(Look(mode=mode), box=(5, 10, 25, 30))
    unseen = np.ones((30, 40), bool)
    unseen[5:25, 10:30] = False
    assert (one.drawn()[unseen] == one.base[unseen]).all()
    assert (one.drawn()[~unseen] != one.base[~unseen]).any()


def test_any_colour_map_of_matplotlibs():
    matplotlib = pytest.importorskip("matplotlib")
    for name in ("viridis", "RdBu", "tab10"):
        expected = matplotlib.colormaps[name](np.linspace(0, 1, 256))[:, :3] * 255
        for sign in SIGNS:
            assert np.abs(table(sign, name) - expected).max() < 1
    scale = Scale("all", 2.0, "RdBu")
    assert (scale.rgb(np.array([-2.0, 2.0])) == table("all", "RdBu")[[0, 255]]).all()


def test_without_matplotlib_the_error_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'whence\[matplotlib\]'"):
        colours._foreign("viridis")
    assert Look.read(colours="whence").colours == "whence"


# What may be asked.


def test_captums_words_mean_the_same():
    look = Look.read("masked_image", "absolute_value", 2)
    assert look == Look("masked", "absolute", 2)
    assert [Look.read(f).mode for f in ("heat_map", "blended_heat_map", "original_image", "alpha_scaling")] == [
        "heat-map", "blended", "original", "alpha-scaling",
    ]  # fmt: skip


BAD = (
    ({"mode": "maskd"}, "did you mean 'masked'"),
    ({"sign": "up"}, "there is no sign 'up'"),
    ({"outlier_perc": 100.0}, "from 0 to less than 100"),
    ({"outlier_perc": -1.0}, "from 0 to less than 100"),
    ({"outlier_perc": float("nan")}, "from 0 to less than 100"),
    ({"mode": "masked", "sign": "all"}, "cannot tell two apart"),
    ({"mode": "alpha-scaling", "sign": "all"}, "cannot tell two apart"),
    ({"colours": "no such"}, "there are no colours 'no such'"),
)


@pytest.mark.parametrize(("words", "said"), BAD)
def test_other_words_are_refused(words, said):
    if "colours" in words:
        pytest.importorskip("matplotlib")
    with pytest.raises(OptionError, match=said):
        Look.read(**words)


def test_the_sign_is_the_methods_unless_asked_for():
    assert DEFAULT.sign_for("positive", "sum") == "positive"
    assert DEFAULT.sign_for("signed", "sum") == "all"
    assert Look(mode="masked").sign_for("signed", "sum") == "positive"
    assert Look(sign="negative").sign_for("positive", "sum") == "negative"
    assert Look(sign="all").sign_for("positive", "abs-max") == "absolute"
    assert DEFAULT.sign_for("positive", "abs-max") == "positive"


# What is said.


def test_the_legend_is_true_for_each_sign():
    def said(sign, reduce="sum", top=1.0, look=DEFAULT, name="whence"):
        return legend.of_scale(Scale(sign, top, name), reduce, look)

    assert (
        said("positive")
        == "Value of the map: brighter places speak more for the class. Negative values are drawn as 0."
    )
    assert "against the class. Positive values" in said("negative")
    assert "for the class or against it" in said("absolute")
    assert "blue speaks against the class, orange for it" in said("all")
    for sign in SIGNS:
        assert "speak" not in said(sign, "abs-max")
        assert "speak" not in said(sign, "abs-sum", top=0.0)
        foreign = said(sign, name="viridis")
        assert not any(word in foreign for word in ("bright", "blue", "orange"))
    assert "2\N{NO-BREAK SPACE}% of the sum" in said("all", look=Look(outlier_perc=2))
    assert said("positive", top=0.0).startswith("The map is zero everywhere, or speaks only against")
    assert said("negative", top=0.0).startswith("The map is zero everywhere, or speaks only for")
    assert "has no negative values" in said("negative", "abs-max", top=0.0)


def test_a_map_of_absolute_values_is_not_said_to_speak_for_the_class():
    rows = [picture(0, [explanation("0/gradient", reduce="abs-max", shape=[3, 32, 32])])]
    page = html(sample(rows=rows))
    assert "It tells how strongly, not whether for the class or against it." in page
    assert "speak more for the class" not in page
    assert "speak more for the class" in html(sample())


@pytest.mark.parametrize("mode", MODES)
def test_the_page_in_each_mode(mode):
    page = html(looked(sample(), Look(mode=mode)))
    assert page.count('class="slider"') == (4 if mode == "blended" else 0)
    assert page.count('class="layer"') == (4 if mode == "blended" else 0)
    assert legend._ON_PICTURE[mode] in page
    assert ("Hatched" in page) == (mode != "original")
    assert page.count('<figure class="scale">') == 4
    assert page.count('<div class="ticks">') == 4


def test_a_map_that_never_looked_at_the_class_does_not_speak_for_it():
    for sign in SIGNS:
        for top in (0.0, 1.0):
            said = legend.of_scale(Scale(sign, top, "whence"), "sum", DEFAULT, agnostic=True)
            assert "speak" not in said
            assert "whatever the class" in said
    plain = sample()
    assert "whatever the class" not in html(plain)
    for row in (row for one in plain.result["pictures"] for row in one["explanations"]):
        row["notes"] = [CLASS_AGNOSTIC]
    assert "count more, whatever the class" in html(plain)


def test_without_a_bar_there_are_no_numbers():
    without = looked(sample(), Look(bar=False))
    assert '<div class="ticks">' not in html(without)
    assert "speak more for the class" in html(without)
    tall = np.asarray(figure(sample()))
    assert (np.asarray(figure(without)) != tall).any()


@pytest.mark.parametrize("mode", MODES)
def test_the_figure_in_each_mode(mode):
    shown = np.asarray(figure(looked(sample(pictures=1), Look(mode=mode))))
    plain = np.asarray(figure(sample(pictures=1)))
    assert shown.shape == plain.shape
    assert (shown != plain).any() == (mode != "blended")


# What is kept.


@pytest.mark.parametrize("mode", MODES[1:])
def test_a_folder_is_drawn_again_as_it_was(tmp_path, mode):
    jsonschema = pytest.importorskip("jsonschema")
    out = tmp_path / "out"
    write(looked(sample(), Look(mode=mode, sign="negative", outlier_perc=2)), out)
    jsonschema.validate(json.loads((out / "result.json").read_text()), schema())
    before = {p.name: p.read_bytes() for p in out.rglob("*") if p.is_file()}
    redraw(out)
    assert {p.name: p.read_bytes() for p in out.rglob("*") if p.is_file()} == before
    assert Look.of(read(out).result) == Look(mode=mode, sign="negative", outlier_perc=2)


def test_a_folder_is_drawn_again_in_another_look(tmp_path):
    write(sample(), tmp_path / "plain")
    write(looked(sample(), Look(mode="masked")), tmp_path / "out")
    redraw(tmp_path / "out", Look(mode="heat-map"))
    assert Look.of(read(tmp_path / "out").result).mode == "heat-map"
    redraw(tmp_path / "out", DEFAULT)
    for name in ("result.json", "report.html"):
        text = (tmp_path / "out" / name).read_text().replace(str(tmp_path / "out"), "X")
        assert text == (tmp_path / "plain" / name).read_text().replace(str(tmp_path / "plain"), "X")


def test_the_overlay_file_is_the_masked_picture(tmp_path):
    contents = looked(sample(rows=[picture(0, [signed(0)])]), Look(mode="masked"))
    write(contents, tmp_path / "out")
    overlay = np.asarray(Image.open(tmp_path / "out" / "pictures" / "0-gradient-overlay.png"))
    (row,) = contents.result["pictures"]
    values = contents.maps["0/gradient"].sum(0)
    expected = lay(
        contents.drawn[0].original, values, "positive", placed(row["geometry"], (60, 90)), Look(mode="masked")
    )
    assert (overlay == expected.drawn()).all()


@pytest.fixture(scope="module")
def made():
    return whence.explain(whence.load_model("creatures"), draw(0).pixels, "grad-cam")


def test_show_and_save_take_the_look(made, tmp_path, monkeypatch):
    shown = []
    monkeypatch.setitem(sys.modules, "IPython", None)
    monkeypatch.setattr(Image.Image, "show", lambda self: shown.append(np.asarray(self)))
    made.show()
    made.show(mode="masked", sign="absolute", outlier_perc=2, colours="whence", bar=False)
    assert (shown[0] != shown[1]).any()
    with pytest.raises(OptionError, match="no mode"):
        made.show(mode="x")
    report = made.save(tmp_path / "out", mode="alpha_scaling", sign="negative")
    assert json.loads((report.parent / "result.json").read_text())["look"]["mode"] == "alpha-scaling"
    with pytest.raises(OptionError):
        made.save(tmp_path / "other", outlier_perc=100)
    assert not (tmp_path / "other").exists()
    made.save(tmp_path / "plain")
    assert "look" not in json.loads((tmp_path / "plain" / "result.json").read_text())


@pytest.mark.parametrize(("words", "said"), [pair for pair in BAD if pair[0].get("outlier_perc") != -1.0])
def test_bad_words_on_the_command_line_end_with_2_and_write_nothing(words, said, tmp_path, capsys):
    options = [part for name, value in words.items() for part in (f"--{name.replace('_', '-')}", str(value))]
    write_creatures(tmp_path / "creatures", 1, 0)
    assert run(["explain", str(tmp_path / "creatures"), *options, "--out", str(tmp_path / "out")]) == 2
    told = capsys.readouterr().err
    assert said in told
    assert told.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_the_commands_take_the_look(tmp_path):
    write_creatures(tmp_path / "creatures", 1, 0)
    out = tmp_path / "out"
    options = ["--mode", "masked", "--sign", "absolute", "--outlier-perc", "2", "--model", "creatures"]
    assert run(["explain", str(tmp_path / "creatures"), *options, "--out", str(out)]) == 0
    result = json.loads((out / "result.json").read_text())
    assert result["look"] == {
        "mode": "masked", "sign": "absolute", "outlier_perc": 2.0, "colours": "whence", "bar": True,
    }  # fmt: skip
    before = (out / "report.html").read_bytes()
    assert run(["report", str(out)]) == 0
    assert (out / "report.html").read_bytes() == before
    assert run(["report", str(out), "--mode", "heat-map"]) == 0
    assert json.loads((out / "result.json").read_text())["look"]["mode"] == "heat-map"
    assert run(["report", str(out), "--mode", "x"]) == 2


def test_a_look_that_a_damaged_result_states_is_one_clear_error(tmp_path, capsys):
    out = tmp_path / "out"
    write(looked(sample(), Look(mode="masked")), out)
    path = Path(out / "result.json")
    for change in ({"mode": "x"}, {"colours": "no such"}, {"outlier_perc": 100}, {"sign": "all"}, {"bar": 3}):
        result = json.loads(path.read_text())
        path.write_text(json.dumps(result | {"look": result["look"] | change}))
        assert run(["report", str(out)]) == 2
        assert capsys.readouterr().err.startswith("error: ")
        path.write_text(json.dumps(result))
