"""ROAD: the probability while places are removed, without the traces that removing them leaves."""

from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from whence.errors import OptionError
from whence.methods.numbers import at_least
from whence.metrics.claim import Claim
from whence.metrics.ranking import Ranking
from whence.metrics.substrates import filling
from whence.models.session import chunk_size
from whence.registry import metric
from whence.results import Curve, Measured


@metric(
    "road",
    title="ROAD",
    family="faithfulness",
    paper="arXiv:2202.00449",
    needs="scores",
    better="higher",
    lower_when={"order": "most"},
)
def road(
    claim: Claim,
    *,
    order: Literal["combined", "most", "least"] = "combined",
    percentiles: tuple[float, ...] = (10.0, 20.0, 30.0, 40.0, 50.0, 60.0, 70.0, 80.0, 90.0),
    substrate: str | Tensor = "noisy-linear",
    batch: int | None = None,
    seed: int = 0,
) -> Measured:
    """Mean probability while the pixels that matter least, by the map, are imputed, less that for the most, halved.

    Rong et al. 2022, with the probability in place of the accuracy. ``percentiles`` are the removed shares of the
    input's pixels, ties in equal parts. ``order="most"`` gives the probability without those that matter most (lower
    is better), ``least`` without those that matter least (higher is better), and ``combined`` half their difference.
    """
    at_least(batch=(batch, 1))
    if not all(0 < one < 100 for one in percentiles):
        raise OptionError(
            f"road: percentiles={percentiles}: give shares of the picture between 0 and 100, such as 50"
        )
    share = torch.tensor(percentiles, dtype=torch.float64) / 100
    # High where it goes first.
    maps = {"most": claim.heat, "least": -claim.heat}
    asked = ["least", "most"] if order == "combined" else [order]
    ranking = Ranking.of(torch.cat([maps[name] for name in asked]))
    places = torch.arange(len(ranking.higher)).repeat_interleave(len(share))
    rows = places % len(claim.x)
    with claim.opened() as session:
        fill = filling(session, claim.x, substrate, seed)

        def changed(numbers: Int[Tensor, " n"]) -> Float[Tensor, "n c h w"]:
            gone = ranking.top(share[numbers % len(share)], places[numbers])[:, None].to(claim.x)
            return fill(rows[numbers], 1 - gone)

        found = session.scores(changed, rows, claim.measured, batch or chunk_size(claim.x))
        passes = session.passes
    curves = found.reshape(len(asked), len(claim.x), len(share))
    value = (curves[0] - curves[1]) / 2 if order == "combined" else curves[0]
    return Measured(value.mean(1), Curve(share, value), passes)
