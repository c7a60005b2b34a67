"""The only file that writes HTML: one page that loads nothing from outside and runs no script but its own."""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from whence.reports import words
from whence.reports.contents import Contents, ExplanationRow, Result
from whence.reports.figures import figures
from whence.reports.images import Encoded
from whence.reports.overlay import OPACITY
from whence.reports.views import PictureView, picture_view

# Above either, the page's images lie beside it: at up to 180 KB an explanation, one file would pass 50 MB.
MOST_PICTURES = 200
MOST_EXPLANATIONS = 280
# Above this many pictures the page has a table of contents.
_FEW = 3


def is_large(result: Result) -> bool:
    """Return whether the page's images are to lie beside it."""
    pictures = result["pictures"]
    return len(pictures) > MOST_PICTURES or sum(len(p["explanations"]) for p in pictures) > MOST_EXPLANATIONS


def html(contents: Contents) -> str:
    """Return the page with all its images inside."""
    views = [
        picture_view(index, row, drawn, inline)
        for index, (row, drawn) in enumerate(zip(contents.result["pictures"], figures(contents), strict=True))
    ]
    return page(contents.result, views, beside=False)


def inline(name: str, encoded: Encoded) -> str:
    """Return an image's address that holds the image itself; its name is not needed."""
    return encoded.address


def page(result: Result, pictures: Sequence[PictureView], *, beside: bool) -> str:
    """Return the page for pictures whose images are kept already, ``beside`` it or inside."""
    graphs = any(row["graph"] is not None for row in _explanations(result))
    style = asset("report.css", *(["graph.css"] if graphs else []))
    script = asset("report.js", *(["graph_picture.js", "graph.js"] if graphs else []))
    return render(
        "report.html.j2",
        {
            "result": result,
            "pictures": pictures,
            "style": style,
            "script": script,
            "policy": policy(style, script, beside),
            "beside": beside,
            "graphs": graphs,
            "opacity": round(100 * OPACITY),
            "contents": len(pictures) > _FEW,
            "methods": len({row["method"] for row in _explanations(result)}),
            "share": _share(result),
        },
    )


def render(template: str, values: Mapping[str, object]) -> str:
    """Return a template of this package with all values escaped."""
    text = _environment().get_template(template).render(values)
    # A file name that is no text holds halves of letters, which no page can.
    return text.encode("utf-8", "replace").decode("utf-8")


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("whence.reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":")}
    environment.filters["percent"] = words.percent
    environment.globals["measured"] = words.measured
    return environment


def asset(*names: str) -> Markup:
    """Return some of the page's own files, one after the other, which need no escaping."""
    texts = (files(__package__).joinpath("templates", name).read_text("utf-8").strip() for name in names)
    return Markup("\n".join(texts))


def policy(style: str, script: str = "", beside: bool = False) -> str:
    """Return the Content-Security-Policy: the page's own style and script, known by their hashes, and its images."""
    return "; ".join(
        (
            "default-src 'none'",
            "img-src data: 'self' file:" if beside else "img-src data:",
            f"style-src '{_hash(style)}'",
            *((f"script-src '{_hash(script)}'",) if script else ()),
            "base-uri 'none'",
            "form-action 'none'",
        )
    )


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")


def _explanations(result: Result) -> list[ExplanationRow]:
    return [row for picture in result["pictures"] for row in picture["explanations"]]


def _share(result: Result) -> str | None:
    """Return the share of the area that the evidence is about, None where there is none or more than one."""
    shares = {row["evidence"]["share"] for row in _explanations(result) if row["evidence"]}
    return words.percent(shares.pop()) if len(shares) == 1 else None
