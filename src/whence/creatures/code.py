"""The classes of the creatures: a code of four parts, of which any two decide.

The ternary tetracode [4, 2, 3] has the nine words (a, b, a + b, a + 2b) modulo 3. Two of its words agree in one place
at most, so that any two parts of a creature leave one class, and any one part leaves three.
"""

from collections.abc import Mapping
from itertools import combinations, product
from typing import Literal, get_args

Part = Literal["beak", "crest", "tail", "feet"]
Word = tuple[int, int, int, int]

PARTS: tuple[Part, ...] = get_args(Part)
VARIANTS: dict[Part, tuple[str, str, str]] = {
    "beak": ("cone", "hook", "spoon"),
    "crest": ("none", "spikes", "ball"),
    "tail": ("fan", "fork", "long"),
    "feet": ("claw", "web", "stilt"),
}

# The class with the index 3a + b is the word of a and b.
WORDS: tuple[Word, ...] = tuple((a, b, (a + b) % 3, (a + 2 * b) % 3) for a, b in product(range(3), repeat=2))
CLASSES = len(WORDS)

# A species bears the names of its beak and of its crest, since these two alone decide.
LABELS: tuple[str, ...] = tuple(map("".join, product(("cone", "hook", "spoon"), ("bare", "spike", "ball"))))

# The six minimal sufficient sets of parts, the same for every class.
SUFFICIENT: tuple[tuple[Part, Part], ...] = tuple(combinations(PARTS, 2))


def named(label: int) -> dict[Part, str]:
    """Return the names of a class's variants, such as ``{"beak": "hook", "crest": "none", ...}``."""
    return {part: VARIANTS[part][variant] for part, variant in zip(PARTS, WORDS[label], strict=True)}


def candidates(seen: Mapping[Part, int]) -> tuple[int, ...]:
    """Return the classes that fit the variants seen: nine for no part, three for one, at most one for more."""
    fits = [all(word[PARTS.index(part)] == variant for part, variant in seen.items()) for word in WORDS]
    return tuple(label for label, fit in enumerate(fits) if fit)
