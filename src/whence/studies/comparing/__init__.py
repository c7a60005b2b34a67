"""Two checkpoints of one model: where their maps of the same pictures differ most."""

from whence.studies.comparing.averaging import Compared, Distances, Means, compared
from whence.studies.comparing.reading import comparable
from whence.studies.comparing.reporting import from_study, write

__all__ = ["Compared", "Distances", "Means", "comparable", "compared", "from_study", "write"]
