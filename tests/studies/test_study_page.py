"""From a study to its page: what is shown of it, how much is read for that, and what is wrong with its folder."""

import json
from dataclasses import replace
from html import unescape

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from study_samples import FAILED, METRIC, drawn, job, row, study
from whence.cli import app
from whence.errors import OutputError
from whence.studies import page, parts
from whence.studies.page import reported, write_page
from whence.studies.thumbnails import SIDE
from whence.studies.thumbnails import drawn as drawn_map


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("study")
    return study(root / "out", job(root / "in", drawn(root / "in", 9)))


@pytest.fixture(scope="module")
def report(made):
    return reported(made)


def test_the_counts_are_those_of_the_rows(report):
    assert (report.pictures, report.explained, report.rows, report.failures.rows) == (9, 9, 27, 1)
    assert [(line.model, line.method, line.pictures, line.failed) for line in report.lines] == [
        ("a", "grad-cam", 8, 1), ("a", "gradient", 9, 0), ("b", "gradient", 9, 0),
    ]  # fmt: skip
    assert report.failures.reasons == [("the picture is empty: get the file again", 1)]
    assert report.failures.shown == [("002.png", "the picture is empty: get the file again")]
    assert report.notes == [("told", 3)]


def test_the_means_are_those_of_the_columns(report):
    others = [n for n in range(9) if n != FAILED]
    first, second, last = (line.estimates for line in report.lines)
    assert first[METRIC].mean == pytest.approx(np.mean([n / 50 for n in others]))
    assert second[METRIC].mean == pytest.approx(np.mean([n / 50 + 0.1 for n in range(9)]))
    assert last["residual"].mean == pytest.approx(np.mean([10.0 ** -(n + 1) for n in range(9)]))
    assert "residual" not in first
    assert [one.text for one in report.quantities] == ["probability", METRIC, "residual"]
    assert report.lines[0].seconds == 0.5
    assert report.lines[0].passes == "1 forward, 1 through a part"


def test_accuracy_is_of_every_picture_that_was_classified(report):
    assert [(one.model, one.share.mean, one.share.count) for one in report.accuracies] == [
        ("a", 4 / 8, 8), ("b", 5 / 9, 9),
    ]  # fmt: skip


def test_the_best_are_those_with_the_lowest_deletion(report):
    best = next(one for one in report.galleries if one.title == "Best: a, gradient")
    worst = next(one for one in report.galleries if one.title == "Worst: a, gradient")
    assert [tile.name for tile in best.tiles] == [f"{n:03d}.png" for n in range(5)]
    assert [tile.name for tile in worst.tiles] == [f"{n:03d}.png" for n in (8, 7, 6, 5)]
    assert best.tiles[1].said == "owl, 99\N{NO-BREAK SPACE}%; it is dog"
    assert [tile.wrong for tile in best.tiles] == [False, True, False, True, False]
    assert all(tile.image for one in report.galleries for tile in one.tiles)


def test_the_surest_mistakes_come_first(report):
    tiles = next(one.tiles for one in report.galleries if one.title == "Most confident mistakes: a, grad-cam")
    assert [tile.name for tile in tiles] == [f"{n:03d}.png" for n in (1, 3, 5, 7)]


def test_without_a_metric_the_probability_ranks(tmp_path):
    plain = reported(study(tmp_path / "out", job(tmp_path / "in", drawn(tmp_path / "in", 4), metrics=())))
    best = next(one for one in plain.galleries if one.title == "Most probable: a, gradient")
    assert [tile.name for tile in best.tiles] == ["000.png", "001.png"]
    assert [one.text for one in plain.quantities] == ["probability", "residual"]


def test_a_map_lies_where_the_model_saw_the_picture(made):
    pixels = np.full((16, 24, 3), 128, np.uint8)
    picture = replace(made.picture(0), pixels=torch.tensor(pixels).permute(2, 0, 1))
    values = torch.zeros(1, 2, 2)
    values[0, 0, 0] = 1.0
    shown = drawn_map(picture, values, {"method": "grad-cam", "graph": None, "box": [0, 4, 16, 20]}, (8, 8))
    assert shown.shape == (16, 24, 3)
    # What the model did not see is grey and dim; the corner of the map is bright, the one across is dark.
    assert (shown[:, :4] == shown[:, :4, :1]).all()
    assert shown[1, 5].astype(int).sum() > shown[14, 18].astype(int).sum() + 200
    beside = drawn_map(picture, values, {"method": "grad-cam", "graph": None}, (8, 8))
    assert beside.shape == (16, 24 + 4 + 16, 3)
    assert (beside[:, :24] == 128).all()
    alone = drawn_map(picture, None, {"method": "grad-cam", "graph": None}, (8, 8))
    assert (alone == 128).all()


def test_large_pictures_are_shrunk(made):
    wide = replace(made.picture(0), pixels=torch.zeros(3, 300, 900, dtype=torch.uint8))
    assert drawn_map(wide, None, {}, (8, 8)).shape == (round(SIDE / 3), SIDE, 3)


def test_an_attention_graph_is_spread_in_its_own_style(made):
    values = torch.zeros(1, 2, 2)
    values[0, 0, 0] = 1.0
    boxes, tents = (
        drawn_map(
            made.picture(0), values, {"method": "sag", "graph": json.dumps({"style": style}), "box": [0, 0, 16, 24]},
            (8, 8),
        )
        for style in ("boxes", "tents")
    )  # fmt: skip
    assert not np.array_equal(boxes, tents)


def test_pictures_that_are_gone_or_changed_are_said_to_be(tmp_path):
    names = drawn(tmp_path / "in", 3)
    made = study(tmp_path / "out", job(tmp_path / "in", names))
    (tmp_path / "in" / names[0]).unlink()
    (tmp_path / "in" / names[1]).write_bytes((tmp_path / "in" / names[2]).read_bytes())
    tiles = {tile.name: tile for one in reported(made).galleries for tile in one.tiles}
    assert tiles["000.png"].image is tiles["001.png"].image is None
    assert "is another picture than when the study began" in tiles["001.png"].missing
    assert tiles["002.png"].image
    text = unescape(write_page(made).read_text())
    assert "'001.png' is another picture" in text


def test_studies_without_maps_or_truth_have_a_page(tmp_path):
    def untold(job, number, place):
        return {**row(job, number, place), "truth": None, "truth_index": None, "correct": None}

    made = study(tmp_path / "out", job(tmp_path / "in", drawn(tmp_path / "in", 4), maps="none"), untold)
    report = reported(made)
    assert report.accuracies == []
    assert not report.classes[0].known
    assert not any("mistakes" in one.title for one in report.galleries)
    assert report.galleries[0].tiles[0].image
    assert "Class given" in write_page(made).read_text()


def test_an_unfinished_or_wholly_failed_study_has_a_page(tmp_path):
    def lost(job, number, place):
        return {**row(job, number, 1 if place == 0 else place), "status": "PictureError", "error": "lost"}

    made = study(tmp_path / "out", job(tmp_path / "in", drawn(tmp_path / "in", 4)), lost)
    assert "4 pictures: <bdi>lost</bdi>" in write_page(made).read_text()
    for shard in made.job.shards:
        parts.path(made.folder, shard).unlink()
    assert "0 of 4 pictures are explained" in write_page(made).read_text()


def test_the_page_does_not_grow_with_the_rows(tmp_path):
    def size(count):
        made = study(tmp_path / str(count), job(tmp_path, [f"{n:05d}" for n in range(count)], shard=512))
        return write_page(made).stat().st_size

    small, large = size(60), size(300)
    assert large < small + 3000


def test_all_pictures_have_a_place_in_the_gallery(tmp_path, monkeypatch):
    monkeypatch.setattr("whence.studies.gallery._PICTURES", 4)
    made = study(tmp_path / "out", job(tmp_path / "in", drawn(tmp_path / "in", 9)))
    assert "All pictures" not in write_page(made).read_text()
    text = write_page(made, gallery=True).read_text()
    assert 'href="gallery/00001.html"' in text
    gallery = made.folder / "gallery"
    assert sorted(path.name for path in gallery.glob("*.html")) == [f"{n:05d}.html" for n in (1, 2, 3)]
    assert len(list(gallery.glob("*/*.jpg"))) == 26
    first, middle, last = (path.read_text() for path in sorted(gallery.glob("*.html")))
    assert 'href="../report.html"' in first
    assert "'002.png' is empty" in unescape(first)
    assert 'href="00001.html">Previous' in middle
    assert 'href="00003.html">Next' in middle
    assert "Next" not in last
    for shown in (first, middle, last):
        assert shown.count('loading="lazy"') == shown.count("<img")
    with Image.open(gallery / "00001" / "0000000-0.jpg") as image:
        assert image.height == 16
    assert [path for path in made.folder.iterdir() if path.name.startswith(".")] == []
    assert 'href="gallery/00001.html"' in write_page(made).read_text()


def test_a_strange_folder_is_not_taken_for_the_gallery(tmp_path):
    made = study(tmp_path / "out", job(tmp_path / "in", drawn(tmp_path / "in", 2)))
    (made.folder / "gallery").mkdir()
    (made.folder / "gallery" / "mine.txt").write_text("mine")
    with pytest.raises(OutputError, match="gallery holds what whence did not make"):
        write_page(made, gallery=True)
    assert (made.folder / "gallery" / "mine.txt").read_text() == "mine"


def test_a_gallery_that_fails_leaves_the_last_one(tmp_path, monkeypatch):
    made = study(tmp_path / "out", job(tmp_path / "in", drawn(tmp_path / "in", 2)))
    write_page(made, gallery=True)
    monkeypatch.setattr("whence.studies.gallery.sheet", lambda one: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_page(made, gallery=True)
    assert (made.folder / "gallery" / "00001.html").is_file()
    assert not (made.folder / ".gallery").exists()


def test_only_the_pictures_shown_are_read(tmp_path, monkeypatch):
    made = study(tmp_path / "out", job(tmp_path / "in", drawn(tmp_path / "in", 40), shard=8))
    asked = []
    read = page.drawn
    monkeypatch.setattr(page, "drawn", lambda picture, *more: (asked.append(picture.name), read(picture, *more))[1])
    write_page(made)
    assert len(asked) == 3 * 24 + 2 * 12


def test_the_command_draws_a_page_again(tmp_path):
    made = study(tmp_path / "out", job(tmp_path / "in", drawn(tmp_path / "in", 2)))
    runner = CliRunner()
    result = runner.invoke(app, ["report", str(made.folder), "--json"])
    assert result.exit_code == 0
    assert json.loads(result.stdout)["report"] == str(made.folder / "report.html")
    assert runner.invoke(app, ["report", str(made.folder)]).stdout == f"{made.folder / 'report.html'}\n"
    assert runner.invoke(app, ["report", str(made.folder), "--sign", "all"]).exit_code != 0


def test_a_failed_picture_may_have_a_name_that_is_no_text(tmp_path):
    def odd(job, number, place):
        return {**row(job, number, place), "picture": "a?.png"}

    made = study(tmp_path / "out", job(tmp_path / "in", drawn(tmp_path / "in", 4)), odd)
    assert reported(made).failures.shown[0][0] == "a?.png"
