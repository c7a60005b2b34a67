"""The names of maps inside maps.npz, after which files are named too."""

import re

from whence.errors import OutputError
from whence.reports.contents import ExplanationRow

_MAP = re.compile(r"maps\.npz#(\d+/[A-Za-z0-9][A-Za-z0-9_.+-]*(?:~\d+)?)")


def map_name(explanation: ExplanationRow) -> str:
    """Return the name of an explanation's map inside maps.npz, which names its files too.

    Raises
    ------
    OutputError
        It is none: made of an index, the method's name and perhaps a count.
    """
    found = _MAP.fullmatch(explanation["map"])
    if found is None:
        raise OutputError(f"the result is damaged: {explanation['map'][:80]!r} names no map, as maps.npz#0/cam does")
    return found[1]


def channels_name(name: str) -> str:
    """Return the name inside maps.npz of the largest channels of the map ``name``."""
    return f"{name}.channels"


def layer_name(name: str, number: int) -> str:
    """Return the name inside maps.npz of one of the layers of the map ``name``."""
    return f"{name}.layer-{number}"


def part_name(name: str, part: str) -> str:
    """Return the name inside maps.npz of one of the extra maps that belong to the map ``name``."""
    return f"{name}.part-{part}"
