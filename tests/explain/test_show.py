"""show(): in a notebook there, elsewhere in the system's viewer."""

import sys
from types import SimpleNamespace

from PIL import Image

import whence
from whence.creatures import draw


def test_show_opens_the_figure_in_the_viewer(monkeypatch):
    shown = []
    monkeypatch.setattr(Image.Image, "show", lambda self: shown.append(self.size))
    monkeypatch.setitem(sys.modules, "IPython", None)
    whence.explain(whence.load_model("creatures"), draw(0).pixels).show()
    assert len(shown) == 1
    assert shown[0][0] > 500


def test_show_displays_in_a_notebook(monkeypatch):
    shown = []
    notebook = SimpleNamespace(get_ipython=object, display=SimpleNamespace(display=shown.append))
    monkeypatch.setitem(sys.modules, "IPython", notebook)
    whence.explain(whence.load_model("creatures"), draw(0).pixels).show()
    assert isinstance(shown[0], Image.Image)
