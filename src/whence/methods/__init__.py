"""One file per method: a function and its facts."""

from whence.registry import METHODS

names = METHODS.names
facts = METHODS.facts

__all__ = ["facts", "names"]
