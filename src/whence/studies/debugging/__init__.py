"""Wrong reasons: found as clusters of maps over a data set, and taken out of the model by training it again."""

from whence.studies.debugging.clusters import Clusters, clustered
from whence.studies.debugging.explained import Explained, explained, pooled
from whence.studies.debugging.reading import FolderPictures, folder_pictures, from_study
from whence.studies.debugging.regions import masked, masked_picture
from whence.studies.debugging.repair import Masked, repair, trials
from whence.studies.debugging.reporting import report, write
from whence.studies.debugging.search import Findings, search

__all__ = [
    "Clusters",
    "Explained",
    "Findings",
    "FolderPictures",
    "Masked",
    "clustered",
    "explained",
    "folder_pictures",
    "from_study",
    "masked",
    "masked_picture",
    "pooled",
    "repair",
    "report",
    "search",
    "trials",
    "write",
]
