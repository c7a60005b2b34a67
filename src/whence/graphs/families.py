"""Families of sets of patches that share few patches: which of many sets are shown together."""

from collections.abc import Mapping, Sequence

# After so many choices the best family until then is taken: hundreds of sets may leave billions.
_MOST_LOOKS = 20_000


def family(sets: Mapping[int, float], overlap: int, count: int | None = None) -> list[int]:
    """Return the most sets, up to ``count``, of which no two share more than ``overlap`` patches.

    ``sets`` gives a value to each set of patches, by its bits. Among families of equally many sets it is the one
    whose sizes come first in order, the smallest size compared first; then the one with the largest sum of values.
    By branch and bound: exact, unless it takes more than 20,000 choices (of some hundred sets, and of many more than
    a few to be chosen), when the best one until then is returned.
    """
    ordered = sorted(sets, key=lambda one: (one.bit_count(), -sets[one]))
    most = len(ordered) if count is None else count
    best: list[int] = []
    looks = 0

    def key(chosen: Sequence[int]) -> tuple[int, list[int], float]:
        return -len(chosen), [one.bit_count() for one in chosen], -sum((sets[one] for one in chosen), 0.0)

    def grow(chosen: list[int], rest: Sequence[int]) -> None:
        nonlocal best, looks
        best = min(best, chosen, key=key)
        for at, one in enumerate(rest):
            looks += 1
            room = min(most - len(chosen), _at_most(rest[at:], overlap))
            # The most that may still come of it: that the next ones fit, as many as there is room for.
            if not room or looks > _MOST_LOOKS or key([*chosen, *rest[at : at + room]]) >= key(best):
                return
            grow([*chosen, one], [other for other in rest[at + 1 :] if (other & one).bit_count() <= overlap])

    grow([], ordered)
    return best


def _at_most(sets: Sequence[int], overlap: int) -> int:
    """Return a number that no family of these sets exceeds: of sets that all share too much one at most is in it."""
    groups: list[list[int]] = []
    for one in sets:
        for group in groups:
            if all((one & other).bit_count() > overlap for other in group):
                group.append(one)
                break
        else:
            groups.append([one])
    return len(groups)
