"""The numbers of docs/saturation.md, and that the page quotes what its command prints."""

import sys
from importlib.util import module_from_spec, spec_from_file_location
from math import exp, log, log1p
from pathlib import Path
from types import ModuleType

import pytest

DOCS = Path(__file__).parents[1] / "docs"


@pytest.fixture(scope="module")
def page() -> ModuleType:
    spec = spec_from_file_location("saturation", DOCS / "saturation.py")
    module = module_from_spec(spec)
    sys.modules["saturation"] = module
    spec.loader.exec_module(module)
    return module


def score(t: float) -> float:
    """t - log(1 + exp(20 (t - 1))) / 20, less a quarter."""
    return t - 0.25 - log1p(exp(20 * (t - 1))) / 20


def test_where_the_score_is_flat_the_gradient_is_nothing_and_integrated_gradients_the_whole(page: ModuleType) -> None:
    made = page.explained([0.0, 1.0, 2.0])
    at_zero, at_one, at_two = (
        {name: float(v[i]) for name, v in made.items()} for i in range(3)
    )  # fmt: skip
    for t, found in ((0, at_zero), (1, at_one), (2, at_two)):
        assert found["score"] == pytest.approx(score(t), abs=1e-12)
        assert found["Integrated Gradients"] == pytest.approx(score(t) - score(0), abs=1e-6)
    assert at_zero["gradient"] == pytest.approx(1, abs=1e-8)
    assert at_one["gradient"] == pytest.approx(0.5, abs=1e-12)
    assert 0 < at_two["gradient"] < 1e-3
    assert at_one["Integrated Gradients"] == pytest.approx(1 - log(2) / 20, abs=1e-6)
    assert at_two["Integrated Gradients"] == pytest.approx(1, abs=1e-6)


def test_the_page_quotes_what_its_command_prints(page: ModuleType) -> None:
    assert page.table() in (DOCS / "saturation.md").read_text("utf-8")


def test_the_figure_is_the_committed_one(page: ModuleType) -> None:
    from PIL import Image, ImageChops, ImageStat

    drawn = page.figure().convert("RGB")
    with Image.open(page.FIGURE) as committed:
        assert committed.size == drawn.size
        # Fonts differ from system to system, curves do not.
        assert max(ImageStat.Stat(ImageChops.difference(drawn, committed.convert("RGB"))).mean) < 2
