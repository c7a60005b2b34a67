"""The published search for sufficient sets (Shitole et al. 2021), step by step, on the memo.

On the same guide it finds the authors' roots in the authors' order: their beam holds copies, is one wider than its
width, and takes ties as they fall. The memo answers repetitions, so that each set is asked of once.
"""

from collections.abc import Generator, Sequence
from math import floor, log

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor

from whence.graphs.patches import members
from whence.methods.igos.objective import TERMS, Noise, Objective
from whence.methods.igos.search import LEAST, SHORTER, Descent, found
from whence.methods.masked import searched_type
from whence.methods.sag.oracle import Asking, Memo
from whence.models.session import Session
from whence.models.targets import TargetSpec
from whence.results import Passes

WIDTH, SUCCESSORS, MOST_ROOTS = 3, 15, 10
# Of a node's patches so many are taken away, one at a time, where its share has more per cent than this.
CHILDREN, EXPANDED = 3, 40

_PATH, _L1, _TV = 20, 1, 20
# Their line search looks at its limit after a step: the first one below it is tried too, and taken where all fail.
_DESCENT = Descent("point", iterations=2, rate=200, plain=False, bounded=False, give_up=False, least=LEAST * SHORTER)
_TRIES = 1 + floor(log(_DESCENT.rate / _DESCENT.least, 1 / SHORTER))
# The most that a picture's guide takes.
COST = Passes(
    forward=_DESCENT.iterations * (_PATH + 1 + _TRIES),
    backward=_DESCENT.iterations * _PATH,
)
# The noise is meant to have 0.2 everywhere. The authors' code doubles it, and leaves all channels but the first out.
_SPREAD, _SPREAD_OF_COLOURS = 0.2, (0.4, 0.0, 0.0)


def search(memo: Memo, guide: Float[Tensor, "g g"]) -> Asking[list[int]]:
    """Return all roots that the beam search finds, in the order in which it finds them.

    Each set of the beam is tried with every one of the ``SUCCESSORS`` absent patches of lowest guide; from the most
    probable on, those that suffice are minimised and kept as roots, the others make the next beam. ``guide`` is in
    [0, 1], low where it matters. The memo knows the whole picture.
    """
    low = guide.cpu().float().numpy().ravel()
    roots: list[int] = []
    beam = [0]
    for _ in range(memo.places.count):
        successors = [more for one in beam for more in _successors(low, one)]
        if not successors:
            break
        yield from memo.ask(successors)
        enough, beam = _parted(memo, sorted(successors, key=lambda one: memo.known[one].value, reverse=True))
        minimal = yield from _minimised(memo, enough)
        roots = list(dict.fromkeys([*roots, *minimal]))
        if len(roots) > MOST_ROOTS:
            break
    return roots


def _successors(low: Float32[np.ndarray, " n"], one: int) -> list[int]:
    """Return the set with each of the absent patches of lowest guide."""
    values, present = low.copy(), list(members(one))
    values[present] = 2
    # Most values of a guide are exactly 1. Which of them come first decides about the roots, and numpy's unstable
    # sort says it, of the whole row anew for every set: no fixed order gives the same. It goes by the type of the
    # numbers, numpy's release and the processor, for the authors as for us.
    order = np.argsort(values)[: min(SUCCESSORS, len(values) - len(present))]
    return [one | 1 << patch for patch in order.tolist()]


def _parted(memo: Memo, ranked: Sequence[int]) -> tuple[list[int], list[int]]:
    """Return the sets that suffice, and the beam: the others, until there are one more than its width."""
    enough: list[int] = []
    beam: list[int] = []
    for one in ranked:
        (enough if memo.suffices(one) else beam).append(one)
        if len(beam) > WIDTH:
            break
    return enough, beam


def _minimised(memo: Memo, sets: Sequence[int]) -> Asking[list[int]]:
    """Return each set without what it does not need; what they all wait for is asked together."""
    minimal: dict[int, int] = {}
    waiting = {one: _shrunk(memo, one) for one in sets}
    while waiting:
        asked = []
        for one, shrinking in list(waiting.items()):
            try:
                asked.append(next(shrinking))
            except StopIteration as end:
                minimal[one] = end.value
                del waiting[one]
        yield from memo.ask(asked)
    return [minimal[one] for one in sets]


def _shrunk(memo: Memo, one: int) -> Generator[int, None, int]:
    """Return a set 1-minimal: passes in raster order, each patch dropped at once where it is not needed.

    Yields each set that must be known first.
    """
    before = None
    while one != before:
        before = one
        for patch in members(before):
            less = one & ~(1 << patch)
            if less not in memo.known:
                yield less
            one = less if memo.suffices(less) else one
    return one


def shown(roots: Sequence[int], overlap: int, count: int) -> list[int]:
    """Return the first ``count`` roots of a largest choice of which any two share at most ``overlap`` patches.

    Of several largest choices it is the one that depth-first search in the roots' order finds first.
    """
    largest: list[int] = []

    def extend(chosen: list[int], left: Sequence[int]) -> None:
        nonlocal largest
        largest = chosen if len(chosen) > len(largest) else largest
        for at, root in enumerate(left):
            # What cannot become larger cannot be found first: leaving it out changes the time alone.
            if len(chosen) + len(left) - at <= len(largest):
                return
            extend([*chosen, root], [one for one in left[at + 1 :] if (one & root).bit_count() <= overlap])

    extend([], roots)
    return largest[:count]


def children(one: int) -> list[int]:
    """Return a node's children in the patch deletion tree: without each of its first patches; none of one patch."""
    return [one & ~(1 << patch) for patch in list(members(one))[:CHILDREN]] if one.bit_count() > 1 else []


def expanded(memo: Memo, one: int) -> bool:
    """Return whether a known set's children stand in the tree, by its share in whole per cent, cut off."""
    share = memo.known[one].value / memo.known[memo.places.whole].value
    return int(round(share, 3) * 100) > EXPANDED


def tree(memo: Memo, roots: Sequence[int]) -> Asking[None]:
    """Ask for all nodes of the patch deletion tree under these roots. The memo knows the whole picture."""
    level = list(roots)
    while level:
        yield from memo.ask(level)
        level = [child for one in dict.fromkeys(level) if expanded(memo, one) for child in children(one)]


def guides(
    model: Session,
    x: Float[Tensor, "b c h w"],
    base: Float[Tensor, "b c h w"],
    measured: Sequence[TargetSpec],
    side: int,
    batch: int,
    seed: int,
) -> Float[Tensor, "b g g"]:
    """Return I-GOS masks on the grid, in [0, 1], low where it matters, by the authors' settings.

    ``measured`` are settled targets as they are measured. The noise has the spread that the authors' code really
    gives it: 0.4 in the first of three channels and none in the others (0.2 in a model of other channels), in units
    of the model's input. It is drawn from ``seed``; theirs has none, so that no two of their runs agree.
    """
    objective = Objective(
        model, x, base, measured, TERMS["igos"], _PATH, _L1, _TV, batch, edges=None, weights=(1.0,), aligned=True,
        kink=True,
    )  # fmt: skip
    # One by one: roundings that change with the batch would change which values are ties.
    return torch.cat([_guide(objective, row, side, seed) for row in range(len(x))])


def _guide(objective: Objective, row: int, side: int, seed: int) -> Float[Tensor, "1 g g"]:
    x, generator = objective.x, torch.Generator().manual_seed(seed)
    spread = torch.tensor(_SPREAD_OF_COLOURS if x.shape[1] == 3 else [_SPREAD] * x.shape[1])

    def draws(new: bool) -> Noise:
        noise = torch.randn(1, _PATH, *x.shape[1:], generator=generator)
        return (noise * spread[:, None, None]).to(x)

    start = torch.ones(1, 1, side, side, dtype=searched_type(x), device=x.device)
    return found(objective, start, torch.tensor([row]), _DESCENT, draws).masks[:, 0]
