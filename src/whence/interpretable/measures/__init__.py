"""Measures of interpretable filters: does each filter mean one part, and does it stay there?"""

from whence.interpretable.measures.category_entropy import category_entropy
from whence.interpretable.measures.collecting import maps_of
from whence.interpretable.measures.effective import effective_radius
from whence.interpretable.measures.gathered import Measures, measured
from whence.interpretable.measures.location_instability import LocationInstability, location_instability
from whence.interpretable.measures.maps import Maps, Parts
from whence.interpretable.measures.part_interpretability import PartInterpretability, part_interpretability
from whence.interpretable.measures.peak_purity import PeakPurity, peak_purity
from whence.interpretable.measures.per_filter import PerFilter
from whence.interpretable.measures.receptive import ReceptiveFields, receptive_fields

__all__ = [
    "LocationInstability",
    "Maps",
    "Measures",
    "PartInterpretability",
    "Parts",
    "PeakPurity",
    "PerFilter",
    "ReceptiveFields",
    "category_entropy",
    "effective_radius",
    "location_instability",
    "maps_of",
    "measured",
    "part_interpretability",
    "peak_purity",
    "receptive_fields",
]
