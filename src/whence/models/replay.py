"""Run only what comes after a layer, on other activations, many at a time.

One recording pass keeps what every module returned that had finished before the layer ran and stands inside no other
such module: the frontier. In a replay these modules return their records, the layer returns the given activation, and
everything after it runs for real. Where the records cannot be taken apart picture by picture, or a self-check against
full runs fails, full runs take the replays' place, with the same result.
"""

from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_leaves, tree_unflatten

from whence.errors import LayerError
from whence.models.taps import Call, Forward, first_name, forwards, main_leaf, recorded, replaced

# How far, relative to the largest output, a replay may be from the full run of the same activation.
_TOLERANCE = 1e-4
# What a module may return beside tensors, as long as it is the same for every batch.
_PLAIN = (type(None), bool, int, float, str, torch.dtype, torch.device)


class _Done(NamedTuple):
    """A finished call: the leaves of what it returned, their versions then, their structure, the calls inside it."""

    leaves: list[Any]
    versions: list[int]
    structure: Any
    inner: Counter[str]


@dataclass
class _Open:
    """A call that has not returned yet, and what has finished inside it."""

    key: Call
    inner: Counter[str] = field(default_factory=Counter)
    done: dict[Call, _Done] = field(default_factory=dict)


class _Reached(BaseException):
    """Ends a recording once the layer has returned; no model's own handler may catch it."""


Frontier = dict[Call, _Done]


class _Recorded(NamedTuple):
    """The frontier, and how often each module was called in all; complete where the run went to its end."""

    frontier: Frontier
    calls: Counter[str]


def _versions(leaves: list[Any]) -> list[int]:
    """Return how often each tensor was written to."""
    return [leaf._version for leaf in leaves if isinstance(leaf, Tensor)]


def _record(
    module: nn.Module, target: Call, run: Callable[[], Any], copied: Collection[Call] = (), to_the_end: bool = False
) -> _Recorded:
    """Return the frontier with, under the target's own key, what the layer returned."""
    counts: Counter[str] = Counter()
    stack = [_Open(Call(""))]
    frontier: Frontier = {}

    def finish(opened: _Open, output: Any) -> None:  # noqa: ANN401
        leaves, structure = tree_flatten(output)
        if opened.key in copied:
            leaves = [leaf.clone() if isinstance(leaf, Tensor) else leaf for leaf in leaves]
        opened.inner[opened.key.path] += 1
        stack[-1].inner += opened.inner
        stack[-1].done[opened.key] = _Done(leaves, _versions(leaves), structure, opened.inner)
        if opened.key == target:
            for unfinished in stack:
                frontier.update(unfinished.done)
            if not to_the_end:
                raise _Reached

    def wrap(path: str, forward: Forward) -> Forward:
        def recording(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
            opened = _Open(Call(path, counts[path]))
            counts[path] += 1
            if frontier:
                return forward(*args, **kwargs)
            stack.append(opened)
            output = forward(*args, **kwargs)
            stack.remove(opened)
            if not frontier:
                finish(opened, output)
            return output

        return recording

    try:
        with forwards(module, wrap):
            run()
    except _Reached:
        return _Recorded(frontier, counts)
    if not frontier:
        raise LayerError("it never ran for this input")
    return _Recorded(frontier, counts)


@dataclass(frozen=True)
class _Axis:
    """Where the batch lies in a recorded tensor, and how many slices a picture has there (windows have several)."""

    axis: int
    each: int


def _axis(one: Any, two: Any) -> _Axis | None:  # noqa: ANN401
    """Compare a tensor recorded for one picture with that for two; None where it does not depend on the batch."""
    if isinstance(one, _PLAIN) and type(one) is type(two) and one == two:
        return None
    if isinstance(one, Tensor) and isinstance(two, Tensor) and one.ndim == two.ndim:
        differing = [i for i, (a, b) in enumerate(zip(one.shape, two.shape, strict=True)) if a != b]
        if not differing:
            return None
        if len(differing) == 1 and two.shape[differing[0]] == 2 * one.shape[differing[0]]:
            return _Axis(differing[0], one.shape[differing[0]])
    raise LayerError("what a module before it returns cannot be taken apart picture by picture")


def _axes(one: _Done, two: _Done) -> tuple[_Axis | None, ...]:
    if len(one.leaves) != len(two.leaves):
        raise LayerError("a module before it returns more for a larger batch")
    return tuple(map(_axis, one.leaves, two.leaves))


def _rows(leaf: Any, axis: _Axis | None, rows: Int[Tensor, " n"], writable: bool) -> Any:  # noqa: ANN401
    """Return a recorded tensor for the pictures in ``rows``; one picture repeated costs no memory unless written."""
    if axis is None:
        return leaf.clone() if writable and isinstance(leaf, Tensor) else leaf
    if axis.each == 1 and not writable and bool((rows == rows[0]).all()):
        shape = [len(rows) if i == axis.axis else -1 for i in range(leaf.ndim)]
        return leaf.narrow(axis.axis, int(rows[0]), 1).expand(shape)
    pictures = leaf.unflatten(axis.axis, (-1, axis.each))
    return pictures.index_select(axis.axis, rows.to(leaf.device)).flatten(axis.axis, axis.axis + 1)


@dataclass(frozen=True)
class Plan:
    """What is known of replaying a layer at one input size; made once.

    ``axes`` say where every recorded tensor holds the batch, ``copied`` which records later operations change in
    place, ``written`` which of them are changed in a replay too, ``writes_input`` whether the model changes its input
    in place, ``calls`` how often each module runs in a full run. ``reason`` says why full runs are needed, and is
    empty where replays do.
    """

    axes: Mapping[Call, tuple[_Axis | None, ...]] = field(default_factory=dict)
    copied: frozenset[Call] = frozenset()
    written: frozenset[Call] = frozenset()
    writes_input: bool = False
    calls: Mapping[str, int] = field(default_factory=dict)
    reason: str = ""

    def fits(self, frontier: Frontier, count: int) -> bool:
        """Return whether a recording for ``count`` pictures went the way that was planned for one and for two."""
        return frontier.keys() == self.axes.keys() and all(
            axis is None or leaf.shape[axis.axis] == count * axis.each
            for key, done in frontier.items()
            for leaf, axis in zip(done.leaves, self.axes[key], strict=True)
        )

    def followed(self, calls: Mapping[str, int]) -> bool:
        """Return whether every recorded module was called as often as in a full run."""
        return all(calls[call.path] == self.calls[call.path] for call in self.axes)


_ANOTHER_WAY = "the model takes another way for another batch size"


def _planned(module: nn.Module, target: Call, x: Tensor, run: Callable[[Tensor], Any]) -> tuple[Plan, Frontier]:
    """Compare the records of one picture with those of two, and see what is written to later."""
    both = torch.cat((x, x))
    version = both._version
    two = _record(module, target, lambda: run(both), to_the_end=True)
    copied = frozenset(key for key, done in two.frontier.items() if _versions(done.leaves) != done.versions)
    # The one comes last, so that a replay of two cannot meet a batch size that some module remembers.
    one = _record(module, target, lambda: run(x.clone()), copied)
    if one.frontier.keys() != two.frontier.keys():
        raise LayerError(_ANOTHER_WAY)
    axes = {key: _axes(one.frontier[key], two.frontier[key]) for key in one.frontier}
    # Until a replay has been seen, all that is changed may be changed there too.
    return Plan(axes, copied, copied, both._version != version, two.calls), one.frontier


class Replay:
    """Runs what comes after ``layer`` for a batch of inputs.

    Attributes
    ----------
    activation
        What the layer returned for the batch, in the layer's own layout.
    plan
        How the records are taken apart; its ``reason`` says why full runs take the replays' place, if they do.
    """

    def __init__(
        self,
        module: nn.Module,
        x: Float[Tensor, "b *shape"],
        layer: str,
        run: Callable[[Tensor], Any],
        plans: dict[tuple[str, tuple[int, ...]], Plan],
    ) -> None:
        self._module, self._x, self._layer, self._run = module, x, layer, run
        self._target = first_name(module, Call.parse(layer))
        key = (layer, tuple(x.shape[1:]))
        if key not in plans:
            with torch.random.fork_rng([x.device] if x.is_cuda else []):
                plans[key] = self._checked_plan()
        self.plan = plans[key]
        self._frontier: Frontier = {}
        if not self.plan.reason:
            self._frontier = _record(module, self._target, lambda: run(x.clone()), self.plan.copied).frontier
            if not self.plan.fits(self._frontier, len(x)):
                self.plan = Plan(reason=_ANOTHER_WAY)
        if self.plan.reason:
            with recorded(module, [layer], gradients=False) as kept:
                run(x.clone())
            self.activation = kept[layer]
        else:
            leaves = self._frontier[self._target].leaves
            self.activation = leaves[main_leaf(leaves)]

    def outputs(self, activations: Float[Tensor, "..."], rows: Int[Tensor, " n"]) -> Any:  # noqa: ANN401
        """Return what the model returns where the layer's output is ``activations``.

        ``activations`` holds n of them in the layer's own layout; ``rows`` says to which picture of the batch each
        belongs, in [0, B).
        """
        if not self.plan.reason:
            x = _rows(self._x, _Axis(0, 1), rows, self.plan.writes_input)
            replayed = _replayed(
                self._module, self._target, self.plan, self._frontier, activations, rows, lambda: self._run(x)
            )
            if self.plan.followed(replayed.calls):
                return replayed.output
            self.plan = Plan(reason=_ANOTHER_WAY)
        # A copy: what comes after may work in place, and the caller's activations are the caller's.
        with replaced(self._module, self._layer, lambda _: activations.clone()):
            return self._run(self._x[rows.to(self._x.device)])

    def _checked_plan(self) -> Plan:
        """Return the plan, with a reason against it where recording fails or a replay differs from a full run."""
        x = self._x[:1]
        try:
            plan, frontier = _planned(self._module, self._target, x, self._run)
            off, written = self._self_check(plan, frontier, x)
        except Exception as error:  # a model that meets records where it expects its own may fail in any way
            return Plan(reason=str(error) or type(error).__name__)
        if not off <= _TOLERANCE:
            return Plan(reason=f"a replay differs from the full run by {off:.1e}")
        return replace(plan, written=written)

    def _self_check(self, plan: Plan, frontier: Frontier, x: Tensor) -> tuple[float, frozenset[Call]]:
        """Return how far replays of the layer's own and of a disturbed activation are from the full runs.

        The second value says which records the replay changed.
        """
        leaves = frontier[self._target].leaves
        own, place = leaves[main_leaf(leaves)], plan.axes[self._target][main_leaf(leaves)]
        if place is None:
            raise LayerError("what the layer returns does not depend on the batch")
        noise = torch.rand(own.shape, generator=torch.Generator().manual_seed(0)).to(own)
        pair, rows = torch.cat((own, own * noise), dim=place.axis), torch.zeros(2, dtype=torch.int64)
        both = _rows(x, _Axis(0, 1), rows, plan.writes_input)
        short = _replayed(self._module, self._target, plan, frontier, pair, rows, lambda: self._run(both))
        with replaced(self._module, self._layer, lambda _: pair.clone()):
            full = self._run(torch.cat((x, x)))
        differences = [
            float((a - b).abs().max() / b.abs().max().clamp(min=1e-12))
            for a, b in zip(tree_leaves(short.output), tree_leaves(full), strict=True)
            if isinstance(b, Tensor) and b.is_floating_point()
        ]
        # Not Python's maximum, which can lose a NaN.
        return float(torch.tensor(differences).max()), short.written


class _Replayed(NamedTuple):
    """What the model returned, how often each module was called, inside records too, and which records it changed."""

    output: Any
    calls: Counter[str]
    written: frozenset[Call]


def _replayed(
    module: nn.Module,
    target: Call,
    plan: Plan,
    frontier: Frontier,
    activations: Tensor,
    rows: Int[Tensor, " n"],
    run: Callable[[], Any],
) -> _Replayed:
    """Run the model with the frontier's records in the place of its calls, and ``activations`` in the layer's."""
    counts: Counter[str] = Counter()
    given: list[tuple[Call, list[Any], list[int]]] = []

    def returned(key: Call) -> Any:  # noqa: ANN401
        done = frontier[key]
        leaves = [
            _rows(leaf, axis, rows, key in plan.written)
            for leaf, axis in zip(done.leaves, plan.axes[key], strict=True)
        ]
        if key == target:
            # A copy: what comes after may work in place, and the caller's activations are the caller's.
            leaves[main_leaf(leaves)] = activations.clone() if key in plan.written else activations
        if key in plan.written:
            given.append((key, leaves, _versions(leaves)))
        return tree_unflatten(leaves, done.structure)

    def wrap(path: str, forward: Forward) -> Forward:
        def replaying(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
            key = Call(path, counts[path])
            if key in frontier:
                counts.update(frontier[key].inner)
                return returned(key)
            counts[path] += 1
            return forward(*args, **kwargs)

        return replaying

    with forwards(module, wrap):
        output = run()
    changed = frozenset(key for key, leaves, versions in given if _versions(leaves) != versions)
    return _Replayed(output, counts, changed)
