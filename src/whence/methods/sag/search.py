"""The search for small sets of patches that suffice: up from single patches, down from the picture, and beside."""

from collections.abc import Callable, Sequence
from itertools import islice

from whence.graphs.patches import bits, members
from whence.methods.sag.oracle import Asking, Memo
from whence.methods.sag.sufficient import (
    Wanted,
    all_of_size,
    is_small,
    parts,
    proof,
    shown,
    smallest,
    without_one,
)
from whence.methods.sag.surrogate import Surrogate

# Sets asked about at once, between two fits of the surrogate.
_ROUND = 8
# The first root is looked for among sets of 2 to 6 patches, a further one among three sizes, before the search turns
# to go down from all patches that it may take.
_FIRST, _UP, _UP_AGAIN = 2, 5, 3
# So many rounds in a row without a smaller set end the way down from a first root, and from a further one.
_PATIENCE, _PATIENCE_AGAIN = 6, 2

Allowed = Callable[[int], bool]


def search(memo: Memo, surrogate: Surrogate, wanted: Wanted) -> Asking[None]:
    """Ask about sets until the roots that will be shown are found and proven."""
    whole = memo.places.whole
    yield from memo.ask([whole, 0])
    if not memo.suffices(whole):
        return
    yield from memo.ask(1 << patch for patch in range(memo.places.count))
    if not memo.suffices(0):
        size = min(one.bit_count() for one in smallest(memo))
        if size > 1:
            first = yield from _find(memo, surrogate, whole, _anything, range(_FIRST, _FIRST + _UP))
            size = yield from _descend(memo, surrogate, _anything, first.bit_count(), _PATIENCE)
        yield from _further(memo, surrogate, wanted, size)
    yield from certify(memo, wanted)


def _anything(_: int) -> bool:
    return True


def _find(memo: Memo, surrogate: Surrogate, region: int, allowed: Allowed, sizes: Sequence[int]) -> Asking[int]:
    """Return a set that suffices: of one of ``sizes``, else what is left of ``region`` when nothing more can go."""
    memo.stage = "up"
    for size in sizes:
        hits = yield from _round(memo, surrogate, size, allowed)
        if hits:
            return hits[0]
    memo.stage = "down from all"
    surrogate.fit()
    needed = sorted(members(region), key=lambda patch: -float(surrogate.alone[patch]))
    return (yield from shrink(memo, (yield from _cut(memo, needed))))


def _round(memo: Memo, surrogate: Surrogate, size: int, allowed: Allowed) -> Asking[list[int]]:
    """Ask about the most promising sets of a size that hold no known root; return those that suffice."""
    roots = smallest(memo)

    def new(one: int) -> bool:
        return allowed(one) and not any(root & one == root for root in roots)

    asked = surrogate.best(size, _ROUND, new)
    yield from memo.ask(asked)
    return [one for one in asked if memo.suffices(one)]


def shrink(memo: Memo, one: int) -> Asking[int]:
    """Take patches away while the set suffices, those first without which it is worth most."""
    while True:
        smaller = without_one(one)
        yield from memo.ask(smaller)
        if not any(memo.suffices(part) for part in smaller):
            return one
        # By criterion top1 a set may suffice that is worth less than one that does not.
        order = sorted(members(one), key=lambda patch: _worth(memo, one & ~(1 << patch)))
        one = yield from _cut(memo, order)


def _worth(memo: Memo, one: int) -> tuple[bool, float]:
    return memo.suffices(one), memo.known[one].value


def _cut(memo: Memo, needed: Sequence[int]) -> Asking[int]:
    """Return a set that suffices of the patches that come first in an order, by bisection; all of them suffice."""
    low, high = 0, len(needed)
    while high - low > 1:
        middle = (low + high) // 2
        yield from memo.ask([bits(needed[:middle])])
        low, high = (low, middle) if memo.suffices(bits(needed[:middle])) else (middle, high)
    return bits(needed[:high])


def _descend(memo: Memo, surrogate: Surrogate, allowed: Allowed, size: int, patience: int) -> Asking[int]:
    """Look for ever smaller sets that suffice, until ``patience`` rounds in a row find none; return their size.

    This is where patches of known roots are swapped for others.
    """
    memo.stage = "swaps"
    failed = 0
    while failed < patience and size > 1:
        hits = yield from _round(memo, surrogate, size - 1, allowed)
        size, failed = (size - 1, 0) if hits else (size, failed + 1)
    return size


def _further(memo: Memo, surrogate: Surrogate, wanted: Wanted, least: int) -> Asking[None]:
    """Look for roots that share few patches with those found, while there may be more; ``least`` is the first's size.

    What is left to them is all that the roots do not hold, and of each root as many patches as may be shared.
    """
    tried: set[tuple[int, ...]] = set()
    while True:
        roots = shown(memo, wanted)
        if len(roots) >= wanted.roots or tuple(roots) in tried:
            return
        tried.add(tuple(roots))

        def allowed(one: int, roots: Sequence[int] = roots) -> bool:
            return all((one & root).bit_count() <= wanted.overlap for root in roots)

        memo.stage = "further roots"
        left = _left(memo, surrogate, roots, wanted.overlap)
        yield from memo.ask([left])
        if not memo.suffices(left):
            return
        start = max(1, min(root.bit_count() for root in roots))
        found = yield from _find(memo, surrogate, left, allowed, range(start, start + _UP_AGAIN))
        if found.bit_count() > least:
            yield from _descend(memo, surrogate, allowed, found.bit_count(), _PATIENCE_AGAIN)


def _left(memo: Memo, surrogate: Surrogate, roots: Sequence[int], overlap: int) -> int:
    """Return the patches that no root holds, with the most promising ones of each root that may be shared."""
    surrogate.fit()
    free = memo.places.whole
    for root in roots:
        free &= ~root
    shared = free
    for root in roots:
        shared |= bits(sorted(members(root), key=lambda patch: -float(surrogate.alone[patch]))[:overlap])
    return shared if all((shared & root).bit_count() <= overlap for root in roots) else free


def certify(memo: Memo, wanted: Wanted) -> Asking[None]:
    """Ask about the subsets of the roots that will be shown, until all is known that proves them.

    A smaller root that turns up on the way takes its superset's place.
    """
    memo.stage = "proof"
    while True:
        roots = shown(memo, wanted)
        asked = next((part for root in roots if (part := _unproven(memo, root))), None)
        if asked is None and wanted.minimum and roots:
            asked = _smaller(memo, roots[0].bit_count())
        if asked is None:
            return
        yield from memo.ask(asked)


def _unproven(memo: Memo, root: int) -> list[int] | None:
    """Return what must be known next of a root: what it is without one patch, then all of its parts."""
    if missing := [part for part in without_one(root) if part not in memo.known]:
        return missing
    certified = not is_small(root) or proof(memo, root) in ("minimal", "minimum")
    return None if certified else [part for part in parts(root) if part not in memo.known]


def _smaller(memo: Memo, size: int) -> list[int] | None:
    """Return the sets of the smallest size below ``size`` that are not all known."""
    for k in range(size):
        unknown = (one for one in all_of_size(memo.places.count, k) if one not in memo.known)
        # More than the budget allows are never asked about, and there may be too many to list.
        if missing := list(islice(unknown, memo.budget)):
            return missing
    return None
