"""Which of the sets that a memo knows suffice, what is proven of them, and which of them are shown together."""

from collections.abc import Iterator, Sequence
from itertools import combinations
from math import comb

from whence.graphs.graph import Proof
from whence.graphs.patches import members
from whence.methods.sag.oracle import Memo

# Sets of more patches have too many subsets to ask about them all: 2^8 - 1 = 255.
MOST_CERTIFIED = 8


def without_one(one: int) -> list[int]:
    """Return the sets that lack one patch of a set."""
    return [one & ~(1 << patch) for patch in members(one)]


def parts(one: int) -> Iterator[int]:
    """Yield all proper subsets of a set, the empty one last."""
    part = one
    while part:
        part = (part - 1) & one
        yield part


def smallest(memo: Memo) -> list[int]:
    """Return the known sets that suffice and hold no other known set that does, smallest and surest first."""
    found: list[int] = []
    enough = [one for one in memo.known if memo.suffices(one)]
    for one in sorted(enough, key=lambda one: (one.bit_count(), -memo.known[one].value)):
        if not any(held & one == held for held in found):
            found.append(one)
    return found


def proof(memo: Memo, one: int) -> Proof:
    """Return what the memo proves of a set that suffices."""

    def insufficient(part: int) -> bool:
        return part in memo.known and not memo.suffices(part)

    if not all(map(insufficient, without_one(one))):
        return "sufficient"
    if one.bit_count() > MOST_CERTIFIED or not all(map(insufficient, parts(one))):
        return "1-minimal"
    return "minimum" if _all_smaller_known(memo, one.bit_count()) else "minimal"


def _all_smaller_known(memo: Memo, size: int) -> bool:
    """Return whether every set of fewer patches is known, and none of them suffices."""
    smaller = [one for one in memo.known if one.bit_count() < size]
    every = sum(comb(memo.places.count, k) for k in range(size))
    return len(smaller) == every and not any(map(memo.suffices, smaller))


def all_of_size(count: int, size: int) -> Iterator[int]:
    """Yield all sets of ``size`` of ``count`` patches."""
    for patches in combinations(range(count), size):
        yield sum(1 << patch for patch in patches)


def family(memo: Memo, candidates: Sequence[int], overlap: int, count: int) -> list[int]:
    """Return the most sets, up to ``count``, of which no two share more than ``overlap`` patches.

    Among families of equally many sets that whose sizes, smallest first, come first in order; then that of the
    highest sum of values. Exact, by branch and bound: candidates come smallest first, so that a family's sizes are
    known to be no less than its next candidate's.
    """
    ordered = sorted(candidates, key=lambda one: (one.bit_count(), -memo.known[one].value))
    best: list[int] = []

    def key(chosen: Sequence[int]) -> tuple[int, list[int], float]:
        return -len(chosen), [one.bit_count() for one in chosen], -sum((memo.known[one].value for one in chosen), 0.0)

    def grow(chosen: list[int], rest: Sequence[int]) -> None:
        nonlocal best
        best = min(best, chosen, key=key)
        for at, one in enumerate(rest):
            # The most that may still come of it: that all of the next ones fit.
            hoped = key([*chosen, *rest[at : at + count - len(chosen)]])[:2]
            if len(chosen) == count or hoped > key(best)[:2]:
                return
            grow([*chosen, one], [other for other in rest[at + 1 :] if (other & one).bit_count() <= overlap])

    grow([], ordered)
    return best
