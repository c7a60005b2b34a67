"""What each variant takes where an option is not given, and what it costs."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import floor, log
from typing import Any, Literal

from whence.errors import OptionError
from whence.methods.igos.objective import Term
from whence.methods.igos.search import LEAST, SHORTER, Search
from whence.methods.numbers import at_least
from whence.results import Passes

Variant = Literal["area", "paper", "igos-pp"]


@dataclass(frozen=True)
class Settings:
    """What a variant takes where an option is not given; ``sigma`` in units of the pixel range."""

    iterations: int
    steps: int
    l1: int | float
    tv: int | float
    sigma: int | float
    rate: int | float
    search: Search | None = None
    direction: Literal["integrated", "gradient"] | None = None


# The authors state noise and edges for inputs whose standard deviation is 1, which is 0.225 of the pixel range.
UNIT = 0.225
SETTINGS: Mapping[Variant, Settings] = {
    "area": Settings(iterations=100, steps=1, l1=0, tv=0, sigma=0, rate=0.2),
    "paper": Settings(20, 15, 1, 20, 0.2 * UNIT, 1000, "point", "integrated"),
    "igos-pp": Settings(20, 15, 1, 20, 0.2, 1000, "path", "integrated"),
}
# Steps over areas by the number of terms: each of them is measured once in a step.
_AREA_STEPS = {1: 30, 2: 40, 4: 100}


def settings(options: Mapping[str, Any], terms: Sequence[Term]) -> Settings:
    """Return the variant's settings with the given options over them.

    Raises
    ------
    OptionError
        An option has no meaning in the variant, or a value is too small.
    """
    own = SETTINGS[options["variant"]]
    if own.search is None:
        own = replace(own, iterations=_AREA_STEPS[len(terms)])
    given = {name: options[name] for name in vars(own) if options[name] is not None}
    if own.search is None:
        for name in ("l1", "search", "direction"):
            if given.get(name, getattr(own, name)) != getattr(own, name):
                raise OptionError(f"{name}={given[name]}: variant=area has none, it is for variant=paper and igos-pp")
    least = {"iterations": 1, "steps": 1, "mask": 1, "batch": 1, "rate": 0, "l1": 0, "tv": 0, "sigma": 0}
    at_least(**{name: (options[name], bound) for name, bound in least.items()})
    return replace(own, **given)


def cost_of(terms: Sequence[Term]) -> Callable[[Mapping[str, Any], Any], Passes]:
    """Return the plan of cost: how many passes a picture takes, at most where steps are searched."""

    def cost(options: Mapping[str, Any], model: Any) -> Passes:  # noqa: ANN401
        s = settings(options, terms)
        slopes = s.iterations * len(terms) * (1 if s.direction == "gradient" else s.steps)
        # The value before a step, and every step that is tried until it is too short.
        values = 2 + max(0, floor(log(s.rate / LEAST, 1 / SHORTER))) if s.rate else 2
        tries = 0 if s.search in (None, "nag") else s.iterations * len(terms) * values
        return Passes(forward=1 + slopes + tries * (s.steps if s.search == "path" else 1), backward=slopes)

    return cost
