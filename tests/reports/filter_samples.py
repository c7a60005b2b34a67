"""A small page about filters, of synthetic maps and pictures."""

from math import nan

import numpy as np

from report_samples import photograph
from whence.reports.filters import (
    Entry,
    Filter,
    FilterReport,
    Measure,
    Net,
    Pair,
    Shot,
    Step,
    Templates,
    Walk,
)

MEASURES = (
    Measure("location_instability", "Location instability", "lower", "spread of the peak's distance to the parts"),
    Measure("peak_purity", "Peak purity", "higher", "share of the top peaks inside the filter's best part"),
    Measure("dead", "Dead filters", "lower", "filters that are never active", digits=0),
)
N = 8


def cone(i, j, floor=-1.0):
    rows, columns = np.mgrid[:N, :N]
    return np.maximum(1 - 4 * (abs(rows - i) + abs(columns - j)) / N, floor)


def spot(i, j, size=(60, 90)):
    y, x = np.mgrid[: size[0], : size[1]]
    return (y - size[0] * (i + 0.5) / N) ** 2 + (x - size[1] * (j + 0.5) / N) ** 2 < 150


def shot(seed, said):
    return Shot(f"{said}-{seed}.png", said, 3.25 - 0.1 * seed, photograph(seed=seed), spot(seed % N, seed % 5))


def one(seed, said, category, part, shots=6):
    values = {"location_instability": 0.02 * seed, "peak_purity": nan if part is None else 0.9}
    parts = {} if part is None else {"peak_purity": part}
    return Filter(category, part, values, parts, [shot(s, said) for s in range(shots)])


def course():
    plain = [Entry("plain", e, 0.2 * e, 2.0 / e) for e in (1, 2, 3, 4)]
    control = [Entry("control", e, 0.8 + 0.05 * e, 0.5 / e) for e in (1, 2, 3)]
    terms = {"prior": -4.17, "filters": 12.0, "weight": 0.3}
    masked = [
        Entry("interpretable", e, 0.7 + 0.08 * e, 0.6 / e, **terms, inter_category=0.4 / e, spatial=0.02 * e,
              changed=None if e == 1 else 4 - e)
        for e in (1, 2, 3)
    ]  # fmt: skip
    return [*plain, *control, *masked]


def walk(said, part="wing"):
    raw = cone(2, 3, 0.0) * 4.0
    steps = [Step(k, said, part, 1.5 - k, (2, 3), raw + 0.2, cone(2, 3), raw, spot(2, 3)) for k in range(3)]
    return Walk(f"{said}.png", said, said, 0.93, photograph(), steps)


def report(said="finch", parts=True, trained=True, ordinary=True, left_out=3):
    """``said`` stands wherever a text comes from outside."""
    part = said if parts else None
    keys = ("plain", "masked", "control", "interpretable") if ordinary else ("interpretable",)
    nets = [
        Net(key, f"The {key} net", {"location_instability": 0.06 / (n + 1), "peak_purity": 0.8 if parts else nan,
                                    "dead": float(n)})
        for n, key in enumerate(keys)
    ]  # fmt: skip
    pairs = [
        Pair(
            k,
            one(k, said, None if k > 3 else f"{said} {k // 2}", part),
            one(k, said, said, part) if ordinary else None,
        )
        for k in range(5)
    ]
    return FilterReport(
        whence="0.1.0",
        model=said,
        facts={"Data": said, "Layer": said},
        recipe={said: said} if trained else {},
        accuracy={"plain": 0.95, "interpretable": 0.96} if trained else {},
        measures=MEASURES,
        nets=nets,
        templates=Templates(
            N * N, (4.0, 4.0), "argmax", [((0, 0), cone(0, 0)), ((4, 4), cone(4, 4))], np.full((N, N), -1.0)
        ),
        course=course() if trained else [],
        ordinary="Control" if ordinary else None,
        pairs=pairs,
        left_out=left_out,
        walks=[walk(said, part)],
        parts=[said] if parts else [],
        notes=[said],
    )
