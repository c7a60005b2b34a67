"""What a drawn map's colours mean, in words: true for its sign, its colours and the way it was reduced."""

from whence.reports import words
from whence.reports.colours import OURS, Scale, Sign
from whence.reports.look import Look, Mode
from whence.results import Reduce

_HATCHED = " Hatched: the margin that the model did not see."
_ON_PICTURE: dict[Mode, str] = {
    "blended": "On the picture.",
    "heat-map": "The map on the picture’s own pixels.",
    "original": "The picture alone.",
    "masked": "The picture times the map: black at 0, unchanged at the end of the scale.",
    "alpha-scaling": "The picture, as opaque as the map is strong: white at 0, unchanged at the end of the scale.",
}
_SHORT: dict[Mode, str] = {
    "blended": "map",
    "heat-map": "map alone",
    "original": "picture alone",
    "masked": "picture times map",
    "alpha-scaling": "picture, opaque as the map",
}


def on_picture(mode: Mode, whole: bool) -> str:
    """Return what stands under the map on the picture; ``whole`` where the model saw all of it."""
    return _ON_PICTURE[mode] + ("" if whole or mode == "original" else _HATCHED)


def short(mode: Mode, whole: bool) -> str:
    """Return the same in a few words."""
    return _SHORT[mode] + ("" if whole or mode == "original" else " (hatched: not seen)")


def nothing(sign: Sign) -> str:
    """Return what is said of a map of which nothing is drawn, in a few words."""
    return f"no {sign} value to draw" if sign in ("positive", "negative") else "the map is zero everywhere"


OF_SETS = "Share of the sets shown that hold each place. It counts sets: it says nothing of what a place is worth."


def of_scale(scale: Scale, reduce: Reduce, look: Look, *, agnostic: bool = False) -> str:
    """Return what the colours of a map say; an ``agnostic`` one is the same for every class."""
    if scale.top == 0:
        return _of_nothing(scale, reduce, agnostic)
    said = _of_agnostic(scale) if agnostic and reduce == "sum" else _of_colours(scale, reduce)
    if look.outlier_perc:
        share = words.percent(look.outlier_perc / 100)
        said += f" The largest values, which make up {share} of the sum, are drawn as the end of the scale."
    return said


def _more(scale: Scale) -> str:
    return "brighter places" if scale.colours == OURS else "places in colours further right on the scale"


def _sides(scale: Scale) -> tuple[str, str]:
    return ("blue", "orange") if scale.colours == OURS else ("the left half of the scale", "the right half")


def _of_agnostic(scale: Scale) -> str:
    """Return what a map says that never looked at the class."""
    more, (less, greater) = _more(scale), _sides(scale)
    if scale.sign == "all":
        return f"Value of the map: {greater} counts more and {less} less, whatever the class."
    if scale.sign == "absolute":
        return f"Size of the map’s value: {more} lie farther from 0, whatever the class."
    if scale.sign == "negative":
        return f"Value of the map: {more} count less, whatever the class. Positive values are drawn as 0."
    return f"Value of the map: {more} count more, whatever the class. Negative values are drawn as 0."


def _of_colours(scale: Scale, reduce: Reduce) -> str:
    more = _more(scale)
    if reduce != "sum":
        return f"Value of the map: {more} count more. It tells how strongly, not whether for the class or against it."
    if scale.sign == "all":
        sides = _sides(scale)
        return f"Value of the map: {sides[0]} speaks against the class, {sides[1]} for it."
    if scale.sign == "absolute":
        return f"Size of the map’s value: {more} count more, whether for the class or against it."
    if scale.sign == "negative":
        return f"Value of the map: {more} speak more against the class. Positive values are drawn as 0."
    return f"Value of the map: {more} speak more for the class. Negative values are drawn as 0."


def _of_nothing(scale: Scale, reduce: Reduce, agnostic: bool) -> str:
    """Return why nothing is drawn."""
    if agnostic and reduce == "sum":
        other = {"positive": ", or has only negative values", "negative": ", or has only positive values"}
        return f"The map is zero everywhere{other.get(scale.sign, '')}: there is nothing to draw, whatever the class."
    if reduce != "sum":
        if scale.sign == "negative":
            return "Nothing is drawn: this map says how strongly a place counts, and has no negative values."
        return "The map is zero everywhere: no place counts."
    if scale.sign == "positive":
        return "The map is zero everywhere, or speaks only against the class: no place speaks for the class."
    if scale.sign == "negative":
        return "The map is zero everywhere, or speaks only for the class: no place speaks against it."
    return "The map is zero everywhere: no place speaks for the class or against it."
