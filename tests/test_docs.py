"""The docs hold what they say: a page for every method, made parts up to date, and commands that exist."""

import ast
import importlib.util
import re
import shlex
from pathlib import Path

import pytest
import typer

from whence.asking import requests
from whence.cli import app
from whence.registry import METHODS

ROOT = Path(__file__).parents[1]
PAGES = ROOT / "docs" / "methods"
DOCS = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
# What `explain` and `attribute` take beside the options of methods.
OWN = {"target", "share", "truth", "seed", "bits", "evidence"}


@pytest.fixture(scope="module")
def maker():
    pytest.importorskip("torchvision")
    spec = importlib.util.spec_from_file_location("make_pages", ROOT / "docs" / "make_pages.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def blocks(language):
    """Return the code blocks of a language, with the page that each is on."""
    fence = re.compile(rf"^```{language}\n(.*?)^```", re.S | re.M)
    return [(path, code) for path in DOCS for code in fence.findall(path.read_text("utf-8"))]


def links():
    """Return the links of the docs to files beside them."""
    link = re.compile(r"\]\(([^)#\s]+)\)")
    found = [(path, target) for path in DOCS for target in link.findall(path.read_text("utf-8"))]
    return [(path, target) for path, target in found if "://" not in target]


def test_what_the_docs_link_to_is_there():
    assert not [f"{path.name}: {target}" for path, target in links() if not (path.parent / target).exists()]


def commands():
    lines = [
        (path, line.strip())
        for path, code in blocks("(?:sh|bash|console)")
        for line in code.replace("\\\n", " ").splitlines()
    ]
    return [(path, line.removeprefix("$ ")) for path, line in lines if re.match(r"(\$ )?whence ", line)]


def named(pairs):
    return [pytest.param(*pair, id=f"{pair[0].stem}: {pair[1][:60]}") for pair in pairs]


@pytest.mark.parametrize("method", METHODS.names())
def test_every_method_has_a_page_with_its_parts(method):
    page = (PAGES / f"{method}.md").read_text("utf-8")
    head, _, rest = page.partition("<!-- facts -->")
    title, _, first = head.strip().partition("\n")
    assert title.startswith("# ")
    assert len(first.split()) > 15
    for section in ("When it lies", "Example"):
        _, heading, text = rest.partition(f"\n## {section}\n")
        assert heading, section
        assert len(text.partition("\n## ")[0].split()) > 8, section


@pytest.mark.parametrize("method", METHODS.names())
def test_the_facts_on_a_page_are_those_of_the_method(method, maker):
    page = (PAGES / f"{method}.md").read_text("utf-8")
    assert page == maker.made(page, method), "run `make docs`"


@pytest.mark.parametrize("method", [name for name in METHODS.names() if METHODS.facts(name).needs == "attention"])
def test_the_cost_of_an_attention_method_is_that_on_attention_maps(method, maker):
    """LeGrad runs the head once and back for each of twelve blocks, and what comes after the last block once more."""
    expected = {
        "attention-rollout": "1 forward",
        "generic-attention": "1 forward, 1 backward",
        "transformer-attribution": "2 forward, 2 backward",
    }
    assert maker.planned(METHODS.facts(method)) == (
        f"{expected.get(method, '1 forward, 25 partial')} (planned; a ViT of 12 blocks, 224 pixels)"
    )


def test_the_readme_fits_a_screen():
    lines = (ROOT / "README.md").read_text("utf-8").splitlines()
    assert not [line for line in lines if len(line) > 120 and not line.startswith("|")]


def test_the_index_is_that_of_all_methods(maker):
    assert (PAGES / "README.md").read_text("utf-8") == maker.index(), "run `make docs`"


def test_the_readme_links_all_methods(maker):
    readme = (ROOT / "README.md").read_text("utf-8")
    assert readme == maker.listed(readme), "run `make docs`"
    assert all(f"docs/methods/{name}.md" in readme for name in METHODS.names())
    assert len(readme.splitlines()) <= 200


def test_making_a_page_twice_changes_nothing_by_hand(maker):
    page = "# Gradient\n\nWords.\n\n<!-- facts -->\n\n## Example\n\nMore words.\n"
    once = maker.made(page, "gradient")
    assert once == maker.made(once, "gradient")
    assert re.sub("<!-- facts -->.*<!-- end of facts -->", "<!-- facts -->", once, flags=re.S) == page
    assert "https://arxiv.org/abs/1312.6034" in once


@pytest.mark.parametrize(("path", "line"), named(commands()))
def test_a_command_in_the_docs_exists(path, line):
    command, arguments = typer.main.get_command(app), shlex.split(line, comments=True)[1:]
    context = None
    while hasattr(command, "commands"):
        name = arguments[0]
        if name.startswith("--"):
            return
        command, arguments = command.commands[name], arguments[1:]
    context = command.make_context(name, arguments)
    if method := context.params.get("method"):
        layer = context.params.get("layer")
        requests([method] if isinstance(method, str) else method, {"layer": layer[0]} if layer else {})


def calls():
    """Return the calls of `explain` and `attribute` in the docs' Python, with methods that are written out."""
    found = []
    for path, code in blocks("python"):
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("whence.explain", "whence.attribute"):
                given = [*node.args[2:3], *(k.value for k in node.keywords if k.arg == "method")]
                if given and isinstance(given[0], ast.Constant | ast.List):
                    found.append((path, ast.unparse(node)))
    return found


@pytest.mark.parametrize(("path", "code"), named(calls()))
def test_a_call_in_the_docs_names_methods_and_options_that_exist(path, code):
    node = ast.parse(code, mode="eval").body
    given = {k.arg: k.value for k in node.keywords if k.arg}
    method = ast.literal_eval(given.pop("method", None) or node.args[2])
    methods = [method] if isinstance(method, str) else method
    for name in given.keys() - OWN:
        assert any(name in METHODS.facts(one.partition(":")[0]).options for one in methods), name
    requests(methods, {})
