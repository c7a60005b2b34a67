"""Cross-testing: maps of one model judged on another, the matrix of all pairs, and the landscape that it spans.

After Jiang, Khorram and Li, CVPR 2024: models that look at the same things serve each other's maps well.
"""

from whence.studies.crossing.judging import Judged, asked, carried, judged, same_labels
from whence.studies.crossing.landscape import landscape
from whence.studies.crossing.matrix import Judgements, matrix
from whence.studies.crossing.naming import columns
from whence.studies.crossing.reading import crossed, from_study, write

__all__ = [
    "Judged",
    "Judgements",
    "asked",
    "carried",
    "columns",
    "crossed",
    "from_study",
    "judged",
    "landscape",
    "matrix",
    "same_labels",
    "write",
]
