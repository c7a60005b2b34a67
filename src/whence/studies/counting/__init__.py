"""Sub-explanation counting: do models build decisions from many parts together, or from one of several alone?

After Jiang, Khorram and Li, CVPR 2024, in the attention graphs of whole folders of pictures.
"""

from whence.studies.counting.counted import Counted, count
from whence.studies.counting.reading import from_study, write
from whence.studies.counting.summary import Case, groups

__all__ = ["Case", "Counted", "count", "from_study", "groups", "write"]
