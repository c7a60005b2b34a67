"""Evidence as curves: measured by deletion and insertion, kept, and drawn."""

import json
import re

import pytest
import torch

import whence
from whence.cli import run
from whence.creatures import draw
from whence.creatures.files import write
from whence.errors import OptionError
from whence.pictures.read import read
from whence.reports.contents import schema

PIXELS = [draw(seed).pixels for seed in range(2)]


@pytest.fixture(scope="module")
def model():
    return whence.load_model("creatures")


@pytest.fixture(scope="module")
def made(model):
    return whence.explain(model, PIXELS[0], "grad-cam", evidence="curves")


def test_the_curves_are_the_metrics_own(model, made):
    x = model.preprocess(read(PIXELS[0])).input[None]
    answer = whence.attribute(model, x, "grad-cam")
    assert list(made.evidence.curves) == ["deletion", "insertion"]
    for name, curve in made.evidence.curves.items():
        found = whence.metrics.measure(model, x, answer, name)
        assert curve.area == pytest.approx(float(found.value[0]), abs=1e-5)
        assert curve.share == pytest.approx(found.curve.share.tolist())
        assert curve.value == pytest.approx(found.curve.value[0].tolist(), abs=1e-4)
        assert curve.area == pytest.approx(float(torch.trapezoid(torch.tensor(curve.value), dx=1 / 50)), abs=1e-5)
    deletion, insertion = made.evidence.curves.values()
    assert deletion.value[0] == pytest.approx(made.probability, abs=1e-5)
    assert insertion.value[-1] == pytest.approx(made.probability, abs=1e-5)


def test_a_batch_gives_what_single_pictures_give(model, made):
    together = whence.explain(model, PIXELS, "grad-cam", evidence="curves")
    assert together[0].evidence.curves["deletion"].value == pytest.approx(
        made.evidence.curves["deletion"].value, abs=1e-4
    )
    assert together[0].evidence.curves["deletion"].area != pytest.approx(
        together[1].evidence.curves["deletion"].area, abs=1e-4
    )


def test_by_itself_there_are_none_and_the_rest_is_the_same(model, made):
    plain = whence.explain(model, PIXELS[0], "grad-cam")
    assert plain.evidence.curves == {}
    assert (plain.evidence.removed, plain.evidence.kept) == (made.evidence.removed, made.evidence.kept)
    assert plain.passes == made.passes
    with pytest.raises(OptionError, match="share or curves"):
        whence.explain(model, PIXELS[0], evidence="curve")


def test_where_no_class_is_explained_the_curves_are_of_the_score(model):
    made = whence.explain(model, PIXELS[0], "gradient", target=lambda logits: logits[:, 0], evidence="curves")
    assert made.evidence.curves["deletion"].value[0] == pytest.approx(float(made.attribution.score[0]), rel=1e-4)


def test_they_come_back_and_fit_the_schema(made, tmp_path):
    jsonschema = pytest.importorskip("jsonschema")
    made.save(tmp_path / "one")
    found = whence.Explanation.load(tmp_path / "one")
    assert found.evidence == made.evidence
    found.save(tmp_path / "two")
    one, two = (json.loads((tmp_path / name / "result.json").read_text()) for name in ("one", "two"))
    assert one["pictures"] == two["pictures"]
    jsonschema.validate(one, schema())
    pages = [(tmp_path / name / "report.html").read_text("utf-8") for name in ("one", "two")]
    assert pages[0] == pages[1]


def test_the_report_draws_them_where_they_are(model, made, tmp_path):
    page = made.save(tmp_path / "with").read_text("utf-8")
    assert len(re.findall(r'<polyline class="stroke stroke-[01]"', page)) == 2
    for name, curve in made.evidence.curves.items():
        assert f"{name.title()} <span" in page
        assert f"area {curve.area:.3f}" in page
        first, last = (curve.value[i] for i in (0, -1))
        assert f'points="52.0,{162 - 154 * first:.1f} ' in page
        assert f' 312.0,{162 - 154 * last:.1f}"' in page
    without = whence.explain(model, PIXELS[0], "grad-cam").save(tmp_path / "without").read_text("utf-8")
    assert "<polyline" not in without


def test_the_command_prints_two_more_columns(tmp_path, capsys):
    write(tmp_path / "drawn", 1, 0)
    arguments = ["explain", str(tmp_path / "drawn"), "--model", "creatures", "--out", str(tmp_path / "out")]
    assert run([*arguments, "--evidence", "curves"]) == 0
    head, _, line, *_ = capsys.readouterr().out.splitlines()
    assert head.split()[-3:] == ["deletion", "insertion", "notes"]
    evidence = json.loads((tmp_path / "out" / "result.json").read_text())["pictures"][0]["explanations"][0][
        "evidence"
    ]
    assert line.split()[-2:] == [f"{evidence[name]['area']:.3f}" for name in ("deletion", "insertion")]
    assert run(arguments) == 0
    assert "deletion" not in capsys.readouterr().out
    assert run([*arguments, "--evidence", "all"]) == 2
