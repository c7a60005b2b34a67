"""What the combinators share: the inner method on changed pictures, and its maps brought together one by one."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from whence.models.session import Session, chunk_size
from whence.models.targets import TargetSpec
from whence.results import Answer, Passes, Score

Inner = Callable[..., Answer]
"""The method that is combined, ``inner(model, x, target)``; a partial where it has options."""
Variant = Literal["mean", "square", "variance"]


def times(passes: Passes, count: int) -> Passes:
    """Return what ``count`` runs take."""
    return sum([passes] * count, Passes())


def settled(
    model: Session, x: Float[Tensor, "b *shape"], target: Sequence[TargetSpec]
) -> tuple[Score, list[TargetSpec]]:
    """Return the unchanged pictures' scores, and their targets with the classes that these have, in one pass."""
    output = model.run(x)
    return model.score(output, target), model.fixed(output, target)


def runs(
    inner: Inner,
    model: Session,
    x: Float[Tensor, "b *shape"],
    target: Sequence[TargetSpec],
    changed: Iterable[Float[Tensor, "b *shape"]],
) -> Iterator[Answer]:
    """Yield the inner method's answer for each changed batch; as many run together as one chunk holds."""
    batches = iter(changed)
    names = model.names
    options = inner.keywords if isinstance(inner, partial) else {}
    while together := list(islice(batches, max(1, chunk_size(x) // len(x)))):
        # Each copy is told by its picture's name.
        model.names = [*names] * len(together)
        try:
            copies = {name: _repeated(value, len(x), len(together)) for name, value in options.items()}
            answer = inner(model, torch.cat(together), [*target] * len(together), **copies)
        finally:
            model.names = names
        for start in range(0, len(answer.values), len(x)):
            yield _rows(answer, slice(start, start + len(x)))


def _repeated(value: object, pictures: int, count: int) -> object:
    """Return an option for copies of a batch: a tensor [B, C, H, W] holds one entry a picture."""
    if isinstance(value, tuple):
        return tuple(_repeated(one, pictures, count) for one in value)
    own = isinstance(value, Tensor) and value.ndim == 4 and len(value) == pictures
    return value.repeat(count, 1, 1, 1) if isinstance(value, Tensor) and own else value


def _rows(answer: Answer, rows: slice) -> Answer:
    return replace(
        _plain(answer),
        score=Score(answer.score.value[rows], answer.score.index[rows]),
        values=answer.values[rows],
        layers={name: t[rows] for name, t in answer.layers.items()},
        parts={name: t[rows] for name, t in answer.parts.items()},
        notes=answer.notes[rows],
    )


def _plain(answer: Answer) -> Answer:
    """Return an answer without what holds for one run alone."""
    return replace(answer, residual=None, weights=None, activation=None)


def combined(answers: Iterable[Answer], variant: Variant = "mean") -> Answer:
    """Return one answer whose maps are the mean of the answers' maps, of their squares, or their variance.

    The variance divides by the number of answers. Mean and squared deviation are carried from answer to answer
    (Welford 1962), so that only one answer is held at a time and nothing cancels. A note is kept where every answer
    has it: what only some say holds for their own numbers.
    """
    mean, deviation = [], []
    notes: list[tuple[str, ...]] = []
    for count, answer in enumerate(answers, 1):
        maps, own = _maps(answer), answer.notes or ((),) * len(answer.values)
        if count == 1:
            first, notes = answer, [*own]
            # Small steps towards the mean would be lost in half precision.
            mean = [torch.zeros_like(m, dtype=torch.promote_types(m.dtype, torch.float32)) for m in maps]
            deviation = [torch.zeros_like(m) for m in mean]
        for i, m in enumerate(maps):
            off = m - mean[i]
            mean[i] = mean[i] + off / count
            deviation[i] = deviation[i] + off * (m - mean[i])
        notes = [tuple(n for n in kept if n in new) for kept, new in zip(notes, own, strict=True)]
    variance = [d / count for d in deviation]
    square = [v + m**2 for v, m in zip(variance, mean, strict=True)]
    return _with_maps(first, {"mean": mean, "variance": variance, "square": square}[variant], tuple(notes))


def _maps(answer: Answer) -> list[Tensor]:
    return [answer.values, *answer.layers.values(), *answer.parts.values()]


def _with_maps(answer: Answer, maps: Sequence[Tensor], notes: tuple[tuple[str, ...], ...]) -> Answer:
    values, *rest = maps
    return replace(
        _plain(answer),
        values=values,
        layers=dict(zip(answer.layers, rest, strict=False)),
        parts=dict(zip(answer.parts, rest[len(answer.layers) :], strict=True)),
        notes=notes,
    )


def mapped(answer: Answer, change: Callable[[Tensor], Tensor]) -> Answer:
    """Return an answer with each of its maps changed."""
    return _with_maps(answer, [change(m) for m in _maps(answer)], answer.notes)
