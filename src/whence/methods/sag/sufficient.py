"""Which of the sets that a memo knows suffice, what is proven of them, and which of them are shown together."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from math import comb

from whence.graphs.families import family
from whence.graphs.graph import Proof
from whence.graphs.patches import members
from whence.methods.sag.oracle import Memo

# Sets of more patches have too many subsets to ask about them all: 2^8 - 1 = 255.
MOST_CERTIFIED = 8


@dataclass(frozen=True)
class Wanted:
    """How many roots are wanted, how many patches two of them may share, and whether the smallest size is proven."""

    roots: int
    overlap: int
    minimum: bool = False


def is_small(one: int) -> bool:
    """Return whether all subsets of a set can be asked about."""
    return one.bit_count() <= MOST_CERTIFIED


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
    """Return the known sets that suffice and hold no other known set that does, smallest and surest first.

    There are none where the whole picture does not suffice.
    """
    found: list[int] = []
    if not memo.suffices(memo.places.whole):
        return found
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
    if not is_small(one) or not all(map(insufficient, parts(one))):
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


def shown(memo: Memo, wanted: Wanted) -> list[int]:
    """Return the roots to be shown of all that the memo knows."""
    return family({one: memo.known[one].value for one in smallest(memo)}, wanted.overlap, wanted.roots)
