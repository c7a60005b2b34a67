"""Every error that a user can meet: one sentence that says what was asked, what is wrong and what to do."""

from collections.abc import Iterable
from difflib import get_close_matches


class WhenceError(Exception):
    """Base of all errors that whence raises on purpose; the command line ends with exit code 2 on one."""


class PictureError(WhenceError):
    """A picture cannot be read, or is not what the model can take."""


class ModelError(WhenceError):
    """A model cannot be found, built, loaded or run."""


class TrustError(WhenceError):
    """A file would run code of a stranger, and trust was not given."""


class MissingExtraError(WhenceError):
    """An optional library is needed, and is not installed or does not fit."""


class UnknownNameError(WhenceError):
    """A method, metric, baseline or other registered name does not exist."""


class OptionError(WhenceError):
    """An option does not exist for this method, or its value is not allowed."""


class SizeError(OptionError):
    """An option does not fit the size of a picture; it may fit another's."""


class LayerError(WhenceError):
    """A layer does not exist, never ran, or has no map."""


class UnknownLayerError(LayerError):
    """The model has no layer of that name, whatever the picture."""


class UnsupportedError(WhenceError):
    """A method cannot explain this model; another one can."""


class TargetError(WhenceError):
    """The number to be explained cannot be found: a class out of range, an unknown or ambiguous label."""


class NotFiniteError(WhenceError):
    """NaN or infinity in the picture, a parameter, an activation, a gradient, the score or the map."""


class OutputError(WhenceError):
    """A result cannot be written where it was asked for, or a folder holds none."""


def nearest(word: str, known: Iterable[str], count: int = 3) -> str:
    """Return the end of an error message: the known names closest to ``word``, or all when they are few."""
    names = sorted(set(known))
    close = get_close_matches(word, names, n=count, cutoff=0.5)
    if close:
        return f"did you mean {' or '.join(repr(name) for name in close)}?"
    if 0 < len(names) <= 40:
        return f"there are: {', '.join(names)}"
    return f"none of the {len(names)} known names is like it" if names else "there are none"
