"""Families of sets of patches that share few patches: which of many sets are shown together."""

from collections.abc import Mapping, Sequence


def family(sets: Mapping[int, float], overlap: int, count: int | None = None) -> list[int]:
    """Return the most sets, up to ``count``, of which no two share more than ``overlap`` patches.

    ``sets`` gives a value to each set of patches, by its bits. Among families of equally many sets it is the one
    whose sizes come first in order, the smallest size compared first; then the one with the largest sum of values.
    Exact, by branch and bound.
    """
    ordered = sorted(sets, key=lambda one: (one.bit_count(), -sets[one]))
    most = len(ordered) if count is None else count
    best: list[int] = []

    def key(chosen: Sequence[int]) -> tuple[int, list[int], float]:
        return -len(chosen), [one.bit_count() for one in chosen], -sum((sets[one] for one in chosen), 0.0)

    def grow(chosen: list[int], rest: Sequence[int]) -> None:
        nonlocal best
        best = min(best, chosen, key=key)
        for at, one in enumerate(rest):
            # The most that may still come of it: that all of the next ones fit.
            hoped = key([*chosen, *rest[at : at + most - len(chosen)]])
            if len(chosen) == most or hoped >= key(best):
                return
            grow([*chosen, one], [other for other in rest[at + 1 :] if (other & one).bit_count() <= overlap])

    grow([], ordered)
    return best
