"""whence: from where in the picture does the decision of an image classifier come?

The public face. Everything is imported on first use, so that ``import whence`` costs next to nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from whence import adapters, interpretable, methods, metrics, studies
    from whence.attribution import attribute
    from whence.evaluation.evaluate import evaluate
    from whence.evaluation.result import Evaluation
    from whence.explaining import explain
    from whence.explanation import Explanation
    from whence.graphs.graph import AttentionGraph
    from whence.models.classifier import Classifier
    from whence.models.load import load_model

_HOMES = {
    "AttentionGraph": "whence.graphs.graph",
    "Classifier": "whence.models.classifier",
    "Evaluation": "whence.evaluation.result",
    "Explanation": "whence.explanation",
    "attribute": "whence.attribution",
    "evaluate": "whence.evaluation.evaluate",
    "explain": "whence.explaining",
    "load_model": "whence.models.load",
}
_PACKAGES = ("adapters", "interpretable", "methods", "metrics", "studies")

__all__ = [
    "AttentionGraph",
    "Classifier",
    "Evaluation",
    "Explanation",
    "adapters",
    "attribute",
    "evaluate",
    "explain",
    "interpretable",
    "load_model",
    "methods",
    "metrics",
    "studies",
]


def __getattr__(name: str) -> Any:  # noqa: ANN401  (the type checker reads the imports above)
    """Import a public name from its home."""
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    if name in _PACKAGES:
        return import_module(f"whence.{name}")
    if name == "__version__":
        return import_module("importlib.metadata").version("whence")
    raise AttributeError(f"module 'whence' has no attribute {name!r}")


def __dir__() -> list[str]:
    """Return the public names."""
    return [*__all__, "__version__"]
