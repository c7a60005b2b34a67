"""Roots on a finer grid: each patch of a root becomes several, and what is missing grows beside them."""

from collections.abc import Sequence

from whence.graphs.patches import PatchGrid, bits, members
from whence.methods.sag.oracle import Asking, Memo
from whence.methods.sag.search import certify, shrink
from whence.methods.sag.sufficient import Wanted


def finer(memo: Memo, coarse: PatchGrid, roots: Sequence[int], wanted: Wanted) -> Asking[None]:
    """Ask about sets of a finer grid until each coarse root has become one that is minimal there.

    A root starts as the fine patches of its patches. While that does not suffice, the best of the patches beside it
    is added; then all goes that need not be there.
    """
    for root in roots:
        one = _children(root, coarse, memo.places)
        yield from memo.ask([one])
        while not memo.suffices(one):
            larger = [one | 1 << patch for patch in _beside(one, memo.places.side)]
            yield from memo.ask(larger)
            one = max(larger, key=lambda grown: memo.known[grown].value)
        yield from shrink(memo, one)
    yield from certify(memo, wanted)


def _children(root: int, coarse: PatchGrid, fine: PatchGrid) -> int:
    """Return the fine patches that a coarse set's patches are cut into."""
    factor = fine.side // coarse.side
    places = [divmod(patch, coarse.side) for patch in members(root)]
    return bits(
        fine.side * (factor * row + down) + factor * column + across
        for row, column in places
        for down in range(factor)
        for across in range(factor)
    )


def _beside(one: int, side: int) -> list[int]:
    """Return the patches that touch a set's, also at a corner."""
    near = {
        (row + down, column + across)
        for row, column in (divmod(patch, side) for patch in members(one))
        for down in (-1, 0, 1)
        for across in (-1, 0, 1)
    }
    inside = sorted(side * row + column for row, column in near if 0 <= row < side and 0 <= column < side)
    return [patch for patch in inside if not one >> patch & 1]
