"""All measures of a layer's filters at once."""

from dataclasses import dataclass

from jaxtyping import Bool, Int
from torch import Tensor

from whence.interpretable.measures.category_entropy import category_entropy
from whence.interpretable.measures.location_instability import LocationInstability, location_instability
from whence.interpretable.measures.maps import Maps, Parts
from whence.interpretable.measures.part_interpretability import PartInterpretability, Region, part_interpretability
from whence.interpretable.measures.peak_purity import PeakPurity, peak_purity
from whence.interpretable.measures.per_filter import PerFilter
from whence.models.masked.categories import Statistic


@dataclass(frozen=True, eq=False)
class Measures:
    """What is known of each filter; ``dead`` are those that are silent on all pictures.

    ``interpretability``, ``instability`` and ``purity`` are None where the parts are not known.
    """

    dead: Bool[Tensor, " k"]
    entropy: PerFilter
    interpretability: PartInterpretability | None = None
    instability: LocationInstability | None = None
    purity: PeakPurity | None = None

    def summary(self) -> dict[str, float]:
        """Return how many filters there are and how many are dead, and each measure's mean over filters.

        Means leave out the filters of which nothing can be said, and are NaN where there is no other.
        """
        found: dict[str, float] = {"filters": float(len(self.dead)), "dead": float(self.dead.sum())}
        if self.interpretability is not None:
            found["part-interpretability"] = self.interpretability.filters.mean
            found["part-interpretability-active"] = self.interpretability.active.mean
        if self.instability is not None:
            found["location-instability"] = self.instability.filters.mean
        if self.purity is not None:
            found["peak-purity"] = self.purity.filters.mean
        return found | {"category-entropy": self.entropy.mean}


def measured(
    maps: Maps,
    parts: Parts | None = None,
    categories: Int[Tensor, " k"] | None = None,
    *,
    quantile: float = 0.005,
    region: Region = "round",
    radius: float | None = None,
    top: int = 100,
    margin: float = 2.0,
    statistic: Statistic = "max",
) -> Measures:
    """Measure the filters; without parts no more than category entropy and dead filters can be said.

    The options are those of the measures of the same names.

    Raises
    ------
    OptionError
        The parts are not of the same pictures, or an option is out of range.
    """
    dead, entropy = ~maps.active.any(0), category_entropy(maps, statistic=statistic)
    if parts is None:
        return Measures(dead, entropy)
    return Measures(
        dead,
        entropy,
        part_interpretability(maps, parts, categories, quantile=quantile, region=region, radius=radius, top=top),
        location_instability(maps, parts, top=top),
        peak_purity(maps, parts, top=top, margin=margin),
    )
