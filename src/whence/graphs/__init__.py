"""Structured attention graphs: sets of patches that suffice for a decision, and what is left without each patch."""

from whence.graphs.graph import (
    AttentionGraph,
    Criterion,
    Edge,
    Measured,
    Node,
    Proof,
    State,
    SufficientSet,
    Verdict,
    name,
)
from whence.graphs.patches import Patches, PatchGrid, Style, bits, members, patches_of

__all__ = [
    "AttentionGraph",
    "Criterion",
    "Edge",
    "Measured",
    "Node",
    "PatchGrid",
    "Patches",
    "Proof",
    "State",
    "Style",
    "SufficientSet",
    "Verdict",
    "bits",
    "members",
    "name",
    "patches_of",
]
