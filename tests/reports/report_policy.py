"""What holds of every page: its policy allows its own style and its images, and nothing on it acts or loads."""

import base64
import hashlib
import re

from test_report_page import Page


def policed(text, images="data:"):
    page = Page(text)
    policy = next(m["content"] for m in page.all("meta") if m.get("http-equiv") == "Content-Security-Policy")
    (style,) = re.findall("<style>(.*?)</style>", text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert policy == (
        f"default-src 'none'; img-src {images}; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    )
    assert page.all("script") == page.all("link") == []
    for name, attributes in page.elements:
        assert not [key for key in attributes if key == "style" or key.startswith("on")]
        assert "src" not in attributes or name == "img"
    return page


def stays_inside(page):
    assert all(a["src"].startswith("data:image/") for a in page.all("img"))
    assert all(a["href"].startswith("#") for _, a in page.elements if "href" in a)
