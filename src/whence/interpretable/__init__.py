"""CNNs whose filters mean one part each: a mask on one layer of any CNN, losses and filter categories to train with.

Zhang, Wu, Zhu, "Interpretable Convolutional Neural Networks", CVPR 2018 (arXiv:1710.00935).
"""

from whence.interpretable.information import Terms, mutual_information, terms
from whence.interpretable.losses import LOSSES, filter_loss
from whence.interpretable.one_template import all_positive, label_aware, matlab, paper
from whence.interpretable.strength import Strength
from whence.models.masked.categories import Categories
from whence.models.masked.mask import Mask
from whence.models.masked.wrapper import Interpretable, interpretable

__all__ = [
    "LOSSES",
    "Categories",
    "Interpretable",
    "Mask",
    "Strength",
    "Terms",
    "all_positive",
    "filter_loss",
    "interpretable",
    "label_aware",
    "matlab",
    "mutual_information",
    "paper",
    "terms",
]
