import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from report_samples import explanation, failed, photograph, picture, sample
from whence.errors import NotFiniteError, OutputError, WhenceError
from whence.reports import folder as folders
from whence.reports import page, swap
from whence.reports.contents import Contents, Drawn, schema
from whence.reports.folder import check, read, redraw, write

FILES = {"report.html", "result.json", "maps.npz", "pictures"}


def _everything(place):
    return {str(p.relative_to(place)): p.read_bytes() if p.is_file() else None for p in place.rglob("*")}


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


def test_a_report_is_written_whole(out):
    result = write(sample(), out)
    assert {p.name for p in out.iterdir()} == FILES
    assert result["report"] == str(out / "report.html")
    assert json.loads((out / "result.json").read_text()) == result
    names = {p.name for p in (out / "pictures").iterdir()}
    kinds = [f"{method}-{kind}" for method in ("grad-cam", "gradient") for kind in ("overlay", "removed", "kept")]
    assert names == {f"{index}-{kind}.png" for index in range(2) for kind in ("original", *kinds)}
    assert "data:image/webp" in (out / "report.html").read_text("utf-8")


def test_the_result_written_fits_the_published_schema(out):
    jsonschema = pytest.importorskip("jsonschema")
    write(sample(rows=[picture(0), failed()]), out)
    jsonschema.validate(json.loads((out / "result.json").read_text()), schema())


def test_raw_maps_come_back_to_the_bit(out):
    contents = sample()
    write(contents, out)
    with np.load(out / "maps.npz", allow_pickle=False) as stored:
        assert set(stored.files) == set(contents.maps)
        for name, values in contents.maps.items():
            assert stored[name].dtype == np.float32
            assert (stored[name] == values).all()


def test_reading_gives_back_what_was_written(out):
    contents = sample(rows=[picture(0), failed(), picture(2, [explanation("2/grad-cam", evidence=None)])])
    result = write(contents, out)
    again = read(out)
    assert again.result == result
    assert all((again.maps[name] == values).all() for name, values in contents.maps.items())
    assert again.drawn[1] is None
    assert again.drawn[2].evidence == (None,)
    assert (again.drawn[0].original == contents.drawn[0].original).all()
    for there, here in zip(again.drawn[0].evidence, contents.drawn[0].evidence, strict=True):
        assert all((a == b).all() for a, b in zip(there, here, strict=True))


def test_redrawing_changes_nothing(out):
    write(sample(), out)
    before = _everything(out)
    redraw(out)
    assert _everything(out) == before


def test_writing_twice_gives_the_same_bytes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(sample(), "out")
    before = _everything(tmp_path / "out")
    shutil.rmtree(tmp_path / "out")
    write(sample(), "out")
    assert _everything(tmp_path / "out") == before


def test_large_pictures_are_kept_smaller_and_their_geometry_still_holds(out):
    contents = sample(pictures=1)
    big = np.asarray(Image.fromarray(photograph()).resize((1800, 1200)))
    write(Contents(contents.result, contents.maps, (Drawn(big, contents.drawn[0].evidence),)), out)
    kept = read(out).drawn[0].original
    assert kept.shape == (683, 1024, 3)
    redraw(out)


def test_a_second_occurrence_of_a_method_has_files_of_its_own(out):
    write(sample(rows=[picture(0, [explanation("0/grad-cam"), explanation("0/grad-cam~2")])]), out)
    assert (out / "pictures" / "0-grad-cam~2-overlay.png").exists()


@pytest.mark.parametrize("name", ["../../escape", "0/../x", "0/a/b", "0/.hidden", "0/a b", "0/a\0", "0/", "maps"])
def test_names_of_files_never_leave_the_folder(tmp_path, out, name):
    with pytest.raises(OutputError, match="names no map"):
        write(sample(rows=[picture(0, [explanation(name, method="cam")])]), out)
    assert list(tmp_path.iterdir()) == []


# Where a folder may not be written.


def test_a_folder_of_somebody_else_is_refused(out):
    out.mkdir()
    (out / "thesis.tex").write_text("five years of work")
    for refuse in (check, lambda place: write(sample(), place)):
        with pytest.raises(OutputError, match="was not made by whence"):
            refuse(out)
    assert _everything(out) == {"thesis.tex": b"five years of work"}


@pytest.mark.parametrize("text", ["{}", "[]", "not json", '{"schema": 1}', "[" * 100_000])
def test_a_result_of_another_program_is_somebody_elses(out, text):
    out.mkdir()
    (out / "result.json").write_text(text)
    with pytest.raises(OutputError, match="was not made by whence"):
        check(out)
    with pytest.raises(OutputError, match="holds no result"):
        read(out)


def test_a_folder_of_whence_is_replaced_and_other_files_in_it_are_kept(out):
    write(sample(), out)
    (out / "notes.txt").write_text("mine")
    write(sample(pictures=1), out)
    assert {p.name for p in out.iterdir()} == FILES | {"notes.txt"}
    assert not (out / "pictures" / "1-original.png").exists()
    assert (out / "notes.txt").read_text() == "mine"
    assert [p.name for p in out.parent.iterdir()] == ["out"]


def test_what_a_user_puts_into_the_folders_is_kept(out):
    write(sample(1), out)
    own = ("pictures/3-labels.json", "pictures/0-cam.png.bak", "graphs/7-My-plot.png", "graphs/notes.txt")
    (out / "graphs").mkdir(exist_ok=True)
    for name in own:
        (out / name).write_text("mine")
    write(sample(1), out)
    assert all((out / name).read_text() == "mine" for name in own)


def test_a_user_s_file_where_a_folder_goes_is_refused_before_any_work(out):
    write(sample(1), out)
    before = _everything(out)
    (out / "graphs").write_text("mine")
    with pytest.raises(OutputError, match="holds a file 'graphs'"):
        write(sample(1), out)
    assert (out / "graphs").read_text() == "mine"
    (out / "graphs").unlink()
    assert _everything(out) == before
    assert [p.name for p in out.parent.iterdir()] == ["out"]


def test_an_empty_folder_is_used_and_missing_parents_are_made(tmp_path, out):
    out.mkdir()
    check(out)
    write(sample(), out)
    write(sample(), tmp_path / "a" / "b")
    assert {p.name for p in (tmp_path / "a" / "b").iterdir()} == FILES


def test_a_link_stays_a_link(tmp_path, out):
    (tmp_path / "real").mkdir()
    out.symlink_to(tmp_path / "real")
    write(sample(), out)
    assert out.is_symlink()
    assert {p.name for p in (tmp_path / "real").iterdir()} == FILES


@pytest.mark.parametrize("inner", ["", "inner", "inner/most"])
def test_a_file_in_the_way_is_refused(out, inner):
    out.write_text("a file")
    with pytest.raises(OutputError, match="is a file"):
        check(out / inner)


def test_the_current_folder_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OutputError, match="current folder"):
        check(".")


def test_an_unwritable_place_is_refused(out, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(OutputError, match="may not be written"):
        check(out)


def test_a_refusal_is_one_sentence(out):
    out.write_text("a file")
    with pytest.raises(OutputError) as caught:
        check(out)
    assert "\n" not in str(caught.value)


# Whatever fails, at whatever step.

STEPS = [
    (Path, "mkdir", 1),
    (Path, "mkdir", 2),
    (Path, "write_text", 1),
    (Path, "write_text", 2),
    (Path, "write_bytes", 1),
    (Path, "write_bytes", 5),
    (Path, "rename", 1),
    (Path, "rename", 2),
    (np, "savez_compressed", 1),
    (folders, "picture_view", 2),
    (folders, "page", 1),
    (folders, "png", 3),
    (swap, "_swap", 1),
]
# A new folder takes one rename, a replaced one two.
CASES = [(step, old) for step in STEPS for old in (False, True) if old or step[1:] != ("rename", 2)]
FULL = OSError(28, "No space left on device")


def _fail(monkeypatch, owner, name, call, error):
    real, calls = getattr(owner, name), []

    def failing(*args, **kwargs):
        calls.append(1)
        if len(calls) == call:
            raise error
        return real(*args, **kwargs)

    monkeypatch.setattr(owner, name, failing)


def _case(part):
    return f"{part[1]}-{part[2]}" if isinstance(part, tuple) else ("replaced" if part else "new")


@pytest.mark.parametrize("error", [FULL, KeyboardInterrupt(), MemoryError()], ids=repr)
@pytest.mark.parametrize(("step", "old"), CASES, ids=_case)
def test_nothing_half_written_is_left(tmp_path, out, monkeypatch, step, old, error):
    if old:
        write(sample(pictures=1), out)
    before = _everything(tmp_path)
    with monkeypatch.context() as patch:
        _fail(patch, *step, error)
        expected = OutputError if isinstance(error, OSError) else type(error)
        with pytest.raises(expected):
            write(sample(), out)
    assert _everything(tmp_path) == before


def test_a_full_disk_is_said_so(out, monkeypatch):
    _fail(monkeypatch, Path, "write_bytes", 2, FULL)
    with pytest.raises(OutputError, match="No space left on device"):
        write(sample(), out)


def test_a_map_that_is_not_finite_is_never_drawn(tmp_path, out):
    contents = sample()
    contents.maps["0/grad-cam"][3, 3] = np.nan
    with pytest.raises(NotFiniteError, match="0/grad-cam"):
        write(contents, out)
    assert list(tmp_path.iterdir()) == []


def test_json_is_strict(out):
    contents = sample()
    contents.result["pictures"][0]["explanations"][0]["options"]["tol"] = float("nan")
    with pytest.raises(NotFiniteError, match="JSON"):
        write(contents, out)


def test_a_missing_map_or_picture_is_named(out):
    contents = sample()
    with pytest.raises(OutputError, match="0/gradient"):
        write(Contents(contents.result, {"0/grad-cam": contents.maps["0/grad-cam"]}, contents.drawn), out)
    with pytest.raises(OutputError, match="pixels of picture 1"):
        write(Contents(contents.result, contents.maps, (contents.drawn[0], None)), out)


# Folders that are damaged, or come from a stranger.


def test_no_folder_at_all(out):
    with pytest.raises(OutputError, match="holds no result"):
        read(out)


@pytest.mark.parametrize(
    "name", ["result.json", "maps.npz", "pictures/0-original.png", "pictures/1-gradient-kept.png"]
)
@pytest.mark.parametrize("damage", ["missing", "empty", "cut"])
def test_damage_is_a_typed_error_or_shows_less(out, name, damage):
    write(sample(), out)
    file = out / name
    data = file.read_bytes()
    file.unlink()
    if damage != "missing":
        file.write_bytes(b"" if damage == "empty" else data[: len(data) // 2])
    if name.endswith("kept.png") and damage == "missing":
        assert read(out).drawn[1].evidence[1] is None
        return
    with pytest.raises(WhenceError):
        read(out)


def test_pickled_maps_are_refused(out):
    write(sample(), out)
    np.savez(out / "maps.npz", **{"0/grad-cam": np.array([{"code": "runs"}], dtype=object)})
    with pytest.raises(OutputError, match="holds a damaged result"):
        read(out)


def test_a_newer_schema_is_refused(out):
    write(sample(), out)
    result = json.loads((out / "result.json").read_text())
    (out / "result.json").write_text(json.dumps(result | {"schema": 2}))
    with pytest.raises(OutputError, match="schema 2"):
        read(out)


# Large reports.


def test_the_images_of_a_large_report_lie_beside_it(out, monkeypatch):
    monkeypatch.setattr(page, "MOST_PICTURES", 1)
    write(sample(), out)
    text = (out / "report.html").read_text("utf-8")
    assert "data:image" not in text
    assert 'loading="lazy"' in text
    assert "its images lie beside this page" in text
    assert "img-src data: &#39;self&#39; file:" in text
    addresses = {part.partition('"')[0] for part in text.split('src="')[1:]}
    assert addresses
    assert all((out / address).is_file() for address in addresses)
