"""What the model says of sets of patches: asked once a set, in batches that mix several pictures' searches."""

from collections import Counter
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from whence.graphs.graph import State, Verdict
from whence.graphs.patches import PatchGrid
from whence.methods.masked import blended
from whence.models.session import Session
from whence.models.targets import Fixed, TargetSpec

T = TypeVar("T")
Asking = Generator[list[int], None, T]
"""A search: it yields the sets that it must know of, and goes on when they stand in its memo."""


class BudgetSpent(Exception):
    """A search may ask of no more sets."""


@dataclass(eq=False)
class Memo:
    """Every set of patches of one picture that the model was asked about; ``budget`` is how many these may be.

    ``spent`` counts them by the ``stage`` of the search that asked.
    """

    places: PatchGrid
    sufficient: Callable[[Verdict], bool]
    budget: int | None = None
    known: dict[int, Verdict] = field(default_factory=dict)
    state: State = "complete"
    stage: str = ""
    spent: Counter[str] = field(default_factory=Counter)

    def ask(self, sets: Iterable[int]) -> Asking[list[Verdict]]:
        """Return what the model says of each set, asking it of those not known.

        Raises
        ------
        BudgetSpent
            After as many of them as the budget allows.
        """
        wanted = list(sets)
        new = [one for one in dict.fromkeys(wanted) if one not in self.known]
        left = len(new) if self.budget is None else self.budget - len(self.known)
        if new[:left]:
            yield new[:left]
        if len(new) > left:
            raise BudgetSpent
        return [self.known[one] for one in wanted]

    def learn(self, one: int, verdict: Verdict) -> None:
        """Keep what the model says of a set that was asked about."""
        self.known[one] = verdict
        self.spent[self.stage] += 1

    def suffices(self, one: int) -> bool:
        """Return whether a known set suffices."""
        return self.sufficient(self.known[one])


def run(searches: Sequence[Asking[None]], memos: Sequence[Memo], look: Callable[..., None]) -> None:
    """Run searches side by side until the last one ends.

    ``look(asked)`` writes what the model says of pairs (picture, set) into the memos. Ctrl-C ends them all: their
    memos then say so, and hold what was found until then.
    """
    waiting = dict(enumerate(searches))
    try:
        while waiting:
            asked = []
            for row, search in list(waiting.items()):
                try:
                    asked += [(row, one) for one in next(search)]
                except StopIteration:
                    del waiting[row]
                except BudgetSpent:
                    memos[row].state = "budget"
                    del waiting[row]
            if asked:
                look(asked)
    except KeyboardInterrupt:
        for row in waiting:
            memos[row].state = "interrupted"


@dataclass(frozen=True, eq=False)
class Oracle:
    """Shows sets of patches to the model: x_S = base + (x - base) U(S), ``batch`` of them at a time.

    ``target`` holds each picture's settled target as it is measured.
    """

    model: Session
    x: Float[Tensor, "b c h w"]
    base: Float[Tensor, "b c h w"]
    target: Sequence[TargetSpec]
    memos: Sequence[Memo]
    batch: int

    def look(self, asked: Sequence[tuple[int, int]]) -> None:
        """Write what the model says of pairs (picture, set) into the pictures' memos."""
        self.model.expect(len(asked))
        for start in range(0, len(asked), self.batch):
            part = asked[start : start + self.batch]
            rows = torch.tensor([row for row, _ in part])
            masks = self.memos[0].places.masks([one for _, one in part], self.x)
            output = self.model.run(blended(self.x[rows], self.base[rows], masks), folded=self.model.many)
            for (row, one), verdict in zip(part, self.verdicts(output, rows), strict=True):
                self.memos[row].learn(one, verdict)

    def verdicts(self, output: Any, rows: Int[Tensor, " n"]) -> list[Verdict]:  # noqa: ANN401
        """Return what an output says of pictures that were made of the pictures ``rows``."""
        value = self.model.score(output, [self.target[row] for row in rows.tolist()], rows).value.detach()
        return [Verdict(*pair) for pair in zip(value.double().tolist(), self._first(output, rows), strict=True)]

    def _first(self, output: Any, rows: Int[Tensor, " n"]) -> list[bool]:  # noqa: ANN401
        """Return whether each one's class is the model's first; what has no class has no first one."""
        targets = [self.target[row] for row in rows.tolist()]
        classes = [target.classes[0] if isinstance(target, Fixed) else None for target in targets]
        if all(own is None for own in classes):
            return [False] * len(rows)
        first = self.model.logits(output).argmax(1).tolist()
        return [top == own for top, own in zip(first, classes, strict=True)]
