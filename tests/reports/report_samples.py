"""Small results and pictures, drawn with numpy, for the tests of the reports."""

import copy
import shutil

import numpy as np

from whence.reports.contents import Contents, Drawn

BROWSERS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome", "google-chrome-stable")

HOSTILE = (
    "<script>document.title='PWNED'</script>",
    '"><img src=x onerror="document.title=\'PWNED\';alert(1)">',
    "</style><style>body{display:none}</style>",
    "' onmouseover='document.title=1' x='",
    "{{7*7}}{% raw %}",
    "\u202egpj.tac\u202c and \u05e9\u05dc\u05d5\u05dd",
    "x" * 300,
    "half a letter \udc80",
)


def browser():
    return next(filter(None, map(shutil.which, BROWSERS)), None)


def photograph(height=60, width=90, seed=0):
    """A picture with a gradient and some texture."""
    y, x = np.mgrid[:height, :width]
    noise = np.random.default_rng(seed).integers(0, 40, (height, width))
    return np.stack([100 + y + noise, 60 + x + noise, 150 - y + noise], axis=-1).clip(0, 255).astype(np.uint8)


def explanation(name="0/grad-cam", **changes):
    row = {
        "method": name.partition("/")[2].partition("~")[0],
        "title": "Grad-CAM",
        "options": {"layer": "features.3", "relu": False},
        "layer": "features.3",
        "target": {"index": 1, "label": "tabby", "probability": 0.92, "score": 11.2},
        "map": f"maps.npz#{name}",
        "shape": [7, 7],
        "reduce": "sum",
        "show": "positive",
        "residual": 2.1e-7,
        "passes": {"forward": 1, "backward": 1, "partial": 0},
        "seconds": 0.134,
        "evidence": {"share": 0.064, "baseline": "blurred", "removed": 0.11, "kept": 0.88},
        "graph": None,
        "notes": [],
    }
    return {**row, **changes}


def picture(index=0, explanations=None, **changes):
    row = {
        "path": f"holiday/cat-{index}.jpg",
        "sha256": "a" * 64,
        "decoded": ["EXIF orientation 6 applied"],
        "status": "ok",
        "size": [60, 90],
        "geometry": {"picture": [60, 90], "grid": [32, 32], "box": [6.0, 21.0, 54.0, 69.0]},
        "truth": "tabby",
        "top": [
            {"index": 1, "label": "tabby", "probability": 0.92},
            {"index": 2, "label": "tiger cat", "probability": 0.0004},
        ],
        "explanations": [explanation(f"{index}/grad-cam"), signed(index)] if explanations is None else explanations,
    }
    return {**row, **changes}


def signed(index):
    return explanation(
        f"{index}/gradient",
        title="Gradient",
        shape=[3, 32, 32],
        show="signed",
        layer=None,
        residual=None,
        notes=["the map is noisy by nature"],
    )


def failed(path="broken.jpg", status="'broken.jpg' is cut short: get the file again"):
    return picture(
        path=path, status=status, size=None, geometry=None, sha256=None, truth=None, top=[], explanations=[]
    )


def sample(pictures=2, rows=None):
    """Contents with two methods a picture."""
    rows = [picture(index) for index in range(pictures)] if rows is None else rows
    rng = np.random.default_rng(0)
    maps = {
        row["map"].removeprefix("maps.npz#"): rng.standard_normal(row["shape"]).astype(np.float32)
        for each in rows
        for row in each["explanations"]
    }
    result = {
        "schema": 1,
        "whence": "0.1.0",
        "versions": {"torch": "2.14.1"},
        "seed": 0,
        "report": "",
        "model": {"name": "Small net", "spec": "creatures", "fingerprint": "9f3c2b" * 10, "input": [3, 32, 32]},
        "pictures": copy.deepcopy(rows),
    }
    return Contents(result, maps, tuple(drawn(row, seed) for seed, row in enumerate(rows)))


def drawn(row, seed=0):
    if row["status"] != "ok":
        return None
    pair = (photograph(32, 32, seed), photograph(32, 32, seed + 1))
    return Drawn(photograph(seed=seed), tuple(pair if each["evidence"] else None for each in row["explanations"]))


def hostile():
    """Contents in which every text that comes from outside attacks."""
    rows = []
    for index, text in enumerate(HOSTILE):
        row = picture(index)
        row |= {"path": f"folder/{text}", "decoded": [text], "truth": text}
        row["top"][0]["label"] = text
        for each in row["explanations"]:
            each |= {"title": text, "layer": text, "options": {text: text}, "notes": [text]}
            each["target"] |= {"label": text}
            each["evidence"] |= {"baseline": text}
        rows.append(row)
    rows.append(failed(HOSTILE[1], HOSTILE[0]))
    contents = sample(rows=rows)
    contents.result["model"] |= {"name": HOSTILE[0] + HOSTILE[4], "spec": HOSTILE[1]}
    contents.result["versions"] = {HOSTILE[1]: HOSTILE[0]}
    return contents
