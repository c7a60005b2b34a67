"""Small results and pictures, drawn with numpy, for the tests of the reports."""

import copy
import shutil
from dataclasses import replace
from itertools import combinations

import numpy as np

from whence.graphs import AttentionGraph, Edge, Node, PatchGrid, SufficientSet, Verdict, bits, patches_of
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


def attention(roots=((5, 6), (2, 5, 9)), side=4, size=(48, 64), style="tents", power=2.0, **changes):
    """A graph with all pairs evaluated, in which a set is worth the largest part of a root that it holds."""
    whole, count = 0.98, side**2
    targets = [bits(root) for root in roots]

    def verdict(each):
        value = 0.95 * max((each & root).bit_count() / root.bit_count() for root in targets) ** power
        return Verdict(round(value + 0.001 * (each % 11), 4), value > 0.5)

    queue, edges = list(targets), []
    for at, each in enumerate(queue):
        for patch in patches_of(each) if verdict(each).value > 0.4 * whole else ():
            child = each & ~(1 << patch)
            if child not in queue:
                queue.append(child)
            edges.append(Edge(at, queue.index(child), patch))
    few = (bits(patches) for size in (1, 2) for patches in combinations(range(count), size))
    asked = {each: verdict(each) for each in (*queue, *few)}
    expanded = {edge.parent for edge in edges}
    graph = AttentionGraph(
        places=PatchGrid(side, size, style),
        baseline="black",
        threshold=0.9,
        criterion="ratio",
        overlap=1,
        expand=0.4,
        measured="probability",
        whole=whole,
        empty=0.001,
        roots=tuple(SufficientSet(root, asked[bits(root)].value, "minimal") for root in roots),
        found=tuple(SufficientSet(root, asked[bits(root)].value, "minimal") for root in roots),
        nodes=tuple(Node(patches_of(each), *asked[each], at in expanded) for at, each in enumerate(queue)),
        edges=tuple(edges),
        evaluated={**asked, (1 << count) - 1: Verdict(whole, True), 0: Verdict(0.001, False)},
    )
    return replace(graph, **changes)


def graphed(*graphs, label="tabby"):
    """Contents with one picture that has an explanation for each graph."""
    rows = [
        explanation(f"0/sag~{number}" if number > 1 else "0/sag", title="Attention graph", graph=graph.to_json())
        for number, graph in enumerate(graphs, 1)
    ]
    for row in rows:
        row["target"] |= {"label": label}
    made = sample(rows=[picture(0, rows)])
    pair = tuple(photograph(*graphs[0].places.size, seed) // (1 + 2 * seed) for seed in (0, 1))
    every = (pair,) * len(graphs)
    return Contents(made.result, made.maps, (replace(made.drawn[0], evidence=every, graphs=every),))
