"""Insertion: how fast the probability rises along the map's ranking of places."""

from typing import Literal

from torch import Tensor

from whence.metrics import curves
from whence.metrics.claim import Claim
from whence.registry import metric
from whence.results import Measured


@metric(
    "insertion", title="Insertion", family="faithfulness", paper="arXiv:1806.07421", needs="scores", better="higher"
)
def insertion(
    claim: Claim,
    *,
    grid: int | Literal["map", "pixels"] = "map",
    substrate: str | Tensor = "blurred",
    steps: int = 50,
    scale: curves.Scale = "probability",
    edges: curves.Edges = "soft",
    variant: Literal["exact", "igos-pp"] = "exact",
    batch: int | None = None,
    seed: int = 0,
) -> Measured:
    """Area under the probability while the places that matter most, by the map, are put in one after the other.

    Petsiuk et al. 2018, section 3.2: a map that is right makes the probability rise at once.
    Trapezoid over ``steps`` equal parts of the area, the first point included; places that are tied go together, in
    equal parts. ``grid`` says what is ranked: the map's own cells, the input's pixels, or so many cells a side, whose
    borders are ``soft`` (bilinear) or ``sharp``. ``substrate`` stands where the picture is gone. ``scale`` divides by
    the whole picture's probability, or by the range between it and that of the substrate alone. ``variant="igos-pp"``
    is the sum of the I-GOS++ repository, its last step included, on the map's own cells.
    """
    if variant == "igos-pp":
        return curves.igos_pp(claim, "insertion", substrate=substrate, batch=batch, seed=seed)
    return curves.measured(
        claim,
        "insertion",
        grid=grid,
        substrate=substrate,
        steps=steps,
        scale=scale,
        edges=edges,
        batch=batch,
        seed=seed,
    )
