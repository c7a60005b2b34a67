"""How good is a map? One file per metric, and the one ranking of places that all of them use."""

from whence.metrics.claim import Claim
from whence.metrics.measuring import measure
from whence.registry import METRICS

names = METRICS.names
facts = METRICS.facts

__all__ = ["Claim", "facts", "measure", "names"]
