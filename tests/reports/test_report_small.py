"""How a map came about: channels and layers are kept, drawn, drawn again, and never a danger."""

import json
from pathlib import Path

import numpy as np
import pytest

from report_samples import HOSTILE, explanation, photograph, picture, sample
from whence.errors import NotFiniteError, OutputError
from whence.reports import page
from whence.reports.colours import Scale
from whence.reports.contents import Contents
from whence.reports.folder import read, redraw, write
from whence.reports.names import map_name
from whence.reports.small import small

WEIGHTS = (0.5, -0.25, 0.125)
CHANNELS = [{"index": 7 * n, "weight": weight} for n, weight in enumerate(WEIGHTS)]
LAYERS = [{"name": "features.2", "shape": [14, 14]}, {"name": "features.3", "shape": [7, 7]}]


def with_channels(layers=LAYERS, **changes):
    row = explanation("0/grad-cam", channels=CHANNELS, channels_total=64, layers=layers, **changes)
    made = sample(rows=[picture(0, [row])])
    rng = np.random.default_rng(1)
    more = {"0/grad-cam.channels": rng.random((3, 7, 7)).astype(np.float32)}
    more |= {f"0/grad-cam.layer-{n}": rng.random(one["shape"]).astype(np.float32) for n, one in enumerate(layers)}
    return Contents(made.result, {**made.maps, **more}, made.drawn)


def test_all_maps_are_kept_and_come_back(tmp_path):
    contents = with_channels()
    write(contents, tmp_path / "out")
    with np.load(tmp_path / "out" / "maps.npz") as stored:
        assert set(stored.files) == set(contents.maps)
    again = read(tmp_path / "out")
    assert again.result["pictures"] == contents.result["pictures"]
    assert all((again.maps[name] == values).all() for name, values in contents.maps.items())


def test_the_page_shows_them_closed_and_is_drawn_again(tmp_path):
    write(with_channels(), tmp_path / "out")
    text = (tmp_path / "out" / "report.html").read_text("utf-8")
    details = text[text.index("<details") : text.index("</details>")]
    assert details.startswith('<details class="channels">')
    assert details.count("<img") == len(CHANNELS) + 1
    assert "3 of 64 channels" in details
    assert "Sum of all 64 channels" in details
    for said in ("Channel 0", "× 0.5", "Channel 7", "× −0.25", "Channel 14", "× 0.125"):
        assert said in details
    assert "features.2" in text[: text.index("<details")]
    redraw(tmp_path / "out")
    assert (tmp_path / "out" / "report.html").read_text("utf-8") == text


def test_a_method_without_channels_shows_none(tmp_path):
    write(sample(), tmp_path / "out")
    text = (tmp_path / "out" / "report.html").read_text("utf-8")
    assert "<details" not in text
    assert "<h4>Layers</h4>" not in text


def test_eight_channels_of_a_photo_take_less_than_60_kilobytes():
    photo = photograph(224, 224)
    row = explanation(channels=[{"index": n, "weight": 1.0} for n in range(8)], channels_total=8)
    contents = sample(rows=[picture(0, [row], geometry=None)])
    maps = {**contents.maps, "0/grad-cam.channels": np.random.default_rng(0).random((8, 7, 7)).astype(np.float32)}
    drawn = (type(contents.drawn[0])(photo, contents.drawn[0].evidence),)
    text = page.html(Contents(contents.result, maps, drawn))
    assert text.index("</details>") - text.index("<details") < 60_000


def test_channels_are_drawn_times_their_weights_on_one_scale():
    """Of two equal channels the heavier is drawn stronger, and a negative weight in the other colour."""
    row = explanation(shape=[1, 1], channels=[{"index": n, "weight": w} for n, w in enumerate((1.0, 0.5, -1.0, 0.0))])
    maps = {"0/grad-cam": np.ones((1, 1), np.float32), "0/grad-cam.channels": np.full((4, 1, 1), 2, np.float32)}
    grey = np.full((8, 8, 3), 128, np.uint8)
    drawn = small(row, maps, grey, Scale("positive", 1.0)).channels
    full, half, against, nothing = (channel[0, 0].astype(int) for channel in drawn)
    assert full.sum() < half.sum() < nothing.sum()
    assert full[0] > full[2]
    assert against[2] > against[0]


def test_the_images_beside_a_large_page_are_replaced_with_it(tmp_path, monkeypatch):
    """Their names are ours, also those of a combination's, so that nothing old is kept for the user's."""
    monkeypatch.setattr(page, "MOST_PICTURES", 0)
    contents = with_channels()
    row = contents.result["pictures"][0]["explanations"][0]
    row |= {"method": "noise.grad-cam", "map": "maps.npz#0/noise.grad-cam"}
    renamed = {name.replace("grad-cam", "noise.grad-cam"): values for name, values in contents.maps.items()}
    write(Contents(contents.result, renamed, contents.drawn), tmp_path / "out")
    names = {path.name for path in (tmp_path / "out" / "pictures").iterdir()}
    assert {"0-noise.grad-cam-page-channel-7.webp", "0-noise.grad-cam-page-layer-0.webp"} <= names
    monkeypatch.setattr(page, "MOST_PICTURES", 9)
    write(sample(pictures=1), tmp_path / "out")
    assert not [path.name for path in (tmp_path / "out" / "pictures").iterdir() if "noise" in path.name]


@pytest.mark.parametrize("name", ["0/grad-cam.channels", "0/grad-cam.layer-1"])
def test_a_map_that_is_missing_damaged_or_not_finite_is_named(tmp_path, name):
    contents = with_channels()
    for change, error in (
        (lambda maps: maps.pop(name), OutputError),
        (lambda maps: maps.update({name: maps[name][0]}), OutputError),
        (lambda maps: maps.update({name: maps[name] * np.float32("nan")}), NotFiniteError),
    ):
        maps = dict(contents.maps)
        change(maps)
        with pytest.raises(error, match=name):
            write(Contents(contents.result, maps, contents.drawn), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "name", ["../x", "0/../x", "/etc/x", "0/.channels", "0/a b", "0/a~b", "x/cam", "0/cam~2.channels"]
)
def test_what_names_a_map_stays_strict(name):
    with pytest.raises(OutputError, match="names no map"):
        map_name(explanation(map=f"maps.npz#{name}"))


@pytest.mark.parametrize("text", HOSTILE[:6])
def test_names_of_layers_and_methods_left_out_are_escaped(text):
    contents = with_channels(layers=[{"name": text, "shape": [7, 7]}])
    contents.result["pictures"][0]["left_out"] = [{"method": text, "reason": text}]
    html = page.html(contents)
    assert "<script>document" not in html
    assert "<img src=x" not in html
    assert "Left out" in html


def test_what_is_of_the_wrong_type_is_an_error(tmp_path):
    write(with_channels(), tmp_path / "out")
    path = Path(tmp_path / "out" / "result.json")
    good = json.loads(path.read_text())
    for key, wrong in (("channels", [{"index": 1.5, "weight": 1}]), ("channels", {}), ("layers", [{"name": 3}])):
        result = json.loads(json.dumps(good))
        result["pictures"][0]["explanations"][0][key] = wrong
        path.write_text(json.dumps(result))
        with pytest.raises(OutputError, match=key):
            redraw(tmp_path / "out")
