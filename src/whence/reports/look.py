"""How maps are drawn: the mode, the sign, where the scale ends, and the colours."""

from dataclasses import asdict, dataclass, replace
from typing import Literal, cast, get_args

from whence.errors import OptionError, nearest
from whence.reports.colours import OURS, Sign, table
from whence.reports.contents import Contents, LookRow, Result
from whence.results import Reduce

Mode = Literal["heat-map", "blended", "original", "masked", "alpha-scaling"]

# What Captum calls the same.
_CAPTUM = {
    "heat_map": "heat-map",
    "blended_heat_map": "blended",
    "original_image": "original",
    "masked_image": "masked",
    "alpha_scaling": "alpha-scaling",
    "absolute_value": "absolute",
}
# The modes that show the picture itself, by how much of it: they have no room for a second sign.
_OF_ONE_SIGN = ("masked", "alpha-scaling")


@dataclass(frozen=True)
class Look:
    """How maps are drawn.

    Attributes
    ----------
    mode
        ``blended``: the picture under the map. ``heat-map``: the map alone. ``original``: the picture alone.
        ``masked``: the picture, darker the less a place counts. ``alpha-scaling``: the picture, fading to white.
    sign
        ``positive``, ``negative``, ``absolute`` or ``all``; None for what the method states of its map.
    outlier_perc
        The largest values that make up this share of the sum, in per cent, are drawn as the end of the scale.
    colours
        ``whence``, or the name of a colour map of matplotlib's.
    bar
        Whether a colour bar with numbers stands under the map.
    """

    mode: Mode = "blended"
    sign: Sign | None = None
    outlier_perc: float | int = 0
    colours: str = OURS
    bar: bool = True

    @classmethod
    def read(
        cls,
        mode: str = "blended",
        sign: str | None = None,
        outlier_perc: float | int = 0,
        colours: str = OURS,
        bar: bool = True,
    ) -> "Look":
        """Return the look that these words mean; Captum's names mean what they mean there.

        Raises
        ------
        OptionError
            A word is unknown, the share is none, or the mode cannot show both signs.
        MissingExtraError
            The colours are matplotlib's, which is not installed.
        """
        read_mode = _word("mode", mode, get_args(Mode))
        read_sign = None if sign is None else _word("sign", sign, get_args(Sign))
        if isinstance(outlier_perc, bool) or not 0 <= outlier_perc < 100:
            raise OptionError(f"outlier_perc={outlier_perc}: give a share in per cent, from 0 to less than 100")
        if read_sign == "all" and read_mode in _OF_ONE_SIGN:
            raise OptionError(
                f"the mode {read_mode!r} shows one sign and cannot tell two apart: "
                "take sign positive, negative or absolute, or the mode blended or heat-map"
            )
        table("all", colours)
        return cls(cast(Mode, read_mode), cast(Sign | None, read_sign), outlier_perc, colours, bar)

    @classmethod
    def of(cls, result: Result) -> "Look":
        """Return the look that a result was drawn in; raises as ``read``."""
        row = result.get("look")
        return DEFAULT if row is None else cls.read(**row)

    def sign_for(self, show: Literal["positive", "signed"], reduce: Reduce) -> Sign:
        """Return which values of a method's map are drawn."""
        sign = self.sign or ("all" if show == "signed" and self.mode not in _OF_ONE_SIGN else "positive")
        # A map made of absolute values has no second sign for which to keep half of the colours.
        return "absolute" if sign == "all" and reduce != "sum" else sign


DEFAULT = Look()


def looked(contents: Contents, look: Look) -> Contents:
    """Return the contents to be drawn in this look; the default is not written down."""
    result = {key: value for key, value in contents.result.items() if key != "look"}
    if look != DEFAULT:
        result["look"] = cast(LookRow, asdict(look))
    return replace(contents, result=cast(Result, result))


def _word(what: str, given: str, known: tuple[str, ...]) -> str:
    word = _CAPTUM.get(given, given)
    if word not in known:
        raise OptionError(f"there is no {what} {given!r}: {nearest(given, known)}")
    return word
