"""The losses of filters, by name."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from jaxtyping import Bool, Float
from torch import Tensor

from whence.errors import OptionError, UnknownNameError, nearest
from whence.interpretable.information import mutual_information
from whence.interpretable.one_template import all_positive, label_aware, matlab, paper
from whence.registry import Facts

LOSSES: Mapping[str, Callable[..., Float[Tensor, " k"]]] = MappingProxyType(
    {
        "mutual-information": mutual_information,
        "paper": paper,
        "label-aware": label_aware,
        "all-positive": all_positive,
        "matlab": matlab,
    }
)
# Those that go by the categories of filters.
LABELLED = frozenset({"paper", "label-aware", "matlab"})
# Those of them that weigh pictures by how many there are of their class.
WEIGHED = frozenset({"label-aware", "matlab"})


def check(name: str) -> None:
    """Refuse a name that is no loss's.

    Raises
    ------
    UnknownNameError
        Naming those that are like it.
    """
    if name not in LOSSES:
        raise UnknownNameError(f"there is no filter loss {name!r}: {nearest(name, LOSSES)}")


def read(text: str) -> tuple[str, dict[str, object]]:
    """Read ``NAME`` or ``NAME:key=value,...`` as a loss and its options.

    Raises
    ------
    UnknownNameError, OptionError
        There is no such loss or option, or a value cannot be read.
    """
    name, _, rest = text.partition(":")
    check(name)
    known = Facts(name, LOSSES[name], name).options
    options: dict[str, object] = {}
    for pair in filter(None, rest.split(",")):
        key, equals, value = pair.partition("=")
        if not equals or key not in known:
            raise OptionError(f"{name} has no option {key!r}: {nearest(key, known)}")
        options[key] = known[key].read(value)
    return name, options


def filter_loss(
    name: str, x: Float[Tensor, "b k h w"], positive: Bool[Tensor, "b k"] | None = None, **options: object
) -> Float[Tensor, " k"]:
    """Return the loss of that name for each filter, of raw rectified maps [B, K, H, W].

    Parameters
    ----------
    name
        A key of ``LOSSES``.
    positive
        Whether each picture is of the category of each filter (``Categories.positive``); ``paper``, ``label-aware``
        and ``matlab`` need it, the others do without.
    options
        The loss's own.

    Raises
    ------
    UnknownNameError
        There is no such loss.
    OptionError
        The loss goes by categories and ``positive`` is missing.
    """
    check(name)
    if name not in LABELLED:
        return LOSSES[name](x, **options)
    if positive is None:
        raise OptionError(
            f"the filter loss {name!r} goes by the categories of filters: give positive=categories.positive(labels), "
            "or take 'all-positive' or 'mutual-information'"
        )
    return LOSSES[name](x, positive, **options)
