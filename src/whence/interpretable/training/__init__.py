"""Training: the loop, and the phases of an interpretable one."""

from whence.interpretable.labelled import Progress
from whence.interpretable.training.fitting import accuracy, fit
from whence.interpretable.training.plan import Plan, fast_precision
from whence.interpretable.training.recipe import Recipe
from whence.interpretable.training.train import Trained, train

__all__ = ["Plan", "Progress", "Recipe", "Trained", "accuracy", "fast_precision", "fit", "train"]
