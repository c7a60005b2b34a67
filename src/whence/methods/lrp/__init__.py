"""Layer-wise relevance propagation: the score of a class, handed back through every operation by local rules."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from whence.errors import LayerError, OptionError, UnsupportedError
from whence.methods.lrp import named, rules
from whence.methods.lrp.carried import raised
from whence.methods.lrp.composites import Composite
from whence.methods.lrp.operations import table
from whence.methods.lrp.operations.linear import merges
from whence.methods.lrp.probes import Probe, watch
from whence.methods.lrp.propagation import Bias, Propagation
from whence.methods.lrp.start import INPUT, Run, Start
from whence.models.session import Session
from whence.models.taps import passed_through
from whence.models.targets import TargetSpec, as_python
from whence.registry import method
from whence.results import Answer, Balance, Passes

IN_FLOAT32 = "lrp ran in float32: relevance does not stand half precision"
# Above this share of what was started with, a map is not what the biases are.
_MOST = 0.5
# Above so many times the start, what cancels out leaves nothing to be read.
_EXPLODED = 100


@method(
    "lrp",
    title="Layer-wise relevance propagation",
    family="propagation",
    paper="doi:10.1371/journal.pone.0130140",
    needs="gradients",
    reduce="sum",
    show="signed",
    cost=lambda options, model: Passes(forward=1, backward=1 if options["start"] in ("one-hot", "sglrp") else 2),
)
def lrp(
    model: Session,
    x: Float[Tensor, "b *shape"],
    target: Sequence[TargetSpec],
    *,
    composite: str | Composite | named.Chooser = "auto",
    start: Start = "one-hot",
    layer: str | tuple[str, ...] | None = None,
    keep: str | dict[str, Any] | None = None,
    bias: Bias = "absorb",
    strict: bool = False,
) -> Answer:
    """Layer-wise relevance propagation.

    Bach et al. 2015, equation 2: the relevance of all inputs sums to the score, but for what biases, constants
    and stabilisers take, which ``balance`` tells. ``composite`` says which rule works where: a name, a
    ``Composite``, or ``auto``, which chooses for the architecture, as a function of yours may from the
    operations that ran. ``start`` is the relevance of the logits. ``layer`` gives the map at a layer in the
    place of the input's; several, or ``all``, are given beside the input's. ``keep`` hands on what some
    channels of a layer have: ``{"layer4": [3, 17]}`` or ``"layer4:3+17"``. ``bias`` says what becomes of the
    biases' share: they keep it, get none, or hand it on to all inputs alike (of a norm: to its one). With
    ``strict`` an operation without a rule is refused. ``residual`` is what nobody got, relative to the start.

    Raises
    ------
    UnsupportedError
        An operation has no rule, and ``strict`` is set; a script or a batch norm in training mode.
    """
    run = model.once(x, ("lrp",), partial(_run, model, x, composite, bias, layer, _kept(keep)))
    if strict and run.propagation.unknown:
        raise UnsupportedError(f"lrp with strict: {model.classifier.name} has {without_rule(run.propagation)}")
    output = run.recording.output
    score = model.score(output, target)
    back = run.explained(score, model.fixed(output, target), start)
    maps = {name: _shaped(model, name, r, x) for name, r in back.maps.items() if name}
    one = layer if isinstance(layer, str) and layer != "all" else None
    balance = back.balance
    scale = _scale(balance, start)
    return Answer(
        back.maps[INPUT] if one is None else maps[one],
        score,
        residual=(balance.unaccounted.abs() / scale).to(x.dtype),
        layer=one,
        layers={} if one is not None else _asked(maps, layer),
        balance=balance,
        notes=_notes(model, run.propagation, composite, _told(balance, start, at_input=one is None)),
    )


def _run(
    model: Session,
    x: Tensor,
    composite: str | Composite | named.Chooser,
    bias: Bias,
    layer: str | tuple[str, ...] | None,
    kept: Mapping[str, Sequence[int]],
) -> Run:
    """Run the model forward once, ready to hand relevance back."""
    if any(isinstance(part, torch.jit.ScriptModule) for part in model.module.modules()):
        raise UnsupportedError(
            f"{model.classifier.name} holds a script, which cannot be seen into: explain the module it was made from"
        )
    chosen, choose = _chosen(composite)
    chosen.check([path for path, _ in model.module.named_modules()])
    propagation = Propagation(model.module, chosen, table(), pixels=model.pixels, bias=bias, count=len(x))
    asked = None if layer == "all" else tuple(dict.fromkeys([*_names(layer), *kept]))

    def through(name: str, output: Tensor) -> Tensor:
        return watch(output, Probe(propagation, name, _keeping(model, name, kept.get(name), x)))

    model.runner.precision = "float32"
    # Whoever looks at layers gets what is theirs, and a norm that is not to be merged a rule of its own.
    folded = asked == () and chosen.choice("batch-norm") == "merge" and merges(propagation.handlers)
    if folded:
        propagation.take_for(model.runner.folding(x).pairs)
    with ExitStack() as stack:
        if asked != ():
            stack.enter_context(passed_through(model.module, asked, through))
        stack.enter_context(propagation)
        recording = model.record(x, folded=folded, watched=True)
    if choose:
        propagation.composite = _fitting(choose(propagation.seen))
    return Run(model, propagation, replace(recording, output=raised(recording.output)))


def _chosen(composite: str | Composite | named.Chooser) -> tuple[Composite, named.Chooser | None]:
    """Return the composite of the forward pass, and what chooses the one of the pass back, if it is not the same."""
    if isinstance(composite, Composite):
        return composite, None
    if isinstance(composite, str) and composite != "auto":
        return named.named(composite), None
    # Whatever is chosen in the end, its first rule may give relevance to zeros.
    return Composite("auto", (("first", rules.flat()),)), named.auto if isinstance(composite, str) else composite


def _fitting(found: Any) -> Composite:  # noqa: ANN401  (a user's function returns anything)
    """Return what was chosen after the forward pass.

    Raises
    ------
    OptionError
        It is neither a composite nor the name of one; or the forward pass would have had to know it: it chooses for
        operations that are not linear, gives relevance to zeros beyond the first ones, or stabilises by rms.
    """
    composite = named.named(found) if isinstance(found, str) else found
    if not isinstance(composite, Composite):
        raise OptionError(f"lrp: the function for composite returned {found!r}: let it return a Composite or a name")
    late = any(isinstance(rule, str) or rule.stabiliser.how == "rms" for _, rule in composite.entries)
    if late or composite.relevance_everywhere:
        raise OptionError(
            f"lrp: composite {composite.name!r} was chosen after the forward pass, which it needs to change: "
            "give it as a Composite"
        )
    return composite


def _names(layer: str | tuple[str, ...] | None) -> tuple[str, ...]:
    return () if layer is None else (layer,) if isinstance(layer, str) else layer


def _asked(maps: Mapping[str, Tensor], layer: str | tuple[str, ...] | None) -> dict[str, Tensor]:
    """Return the maps at the layers asked for, from the first to the last."""
    names = [name for name in reversed(list(maps)) if layer == "all" or name in _names(layer)]
    return {name: maps[name] for name in names}


def _shaped(model: Session, name: str, r: Tensor, x: Tensor) -> Tensor:
    """Return a layer's relevance as maps [B, K, h, w] where it has places, else as it is."""
    try:
        return model.layout(name, r, x).to_maps(r)
    except LayerError:
        return r


def _kept(keep: str | dict[str, Any] | None) -> dict[str, tuple[int, ...]]:
    """Return the channels to keep, by layer.

    Raises
    ------
    OptionError
        The text is none of the form ``LAYER:CHANNEL+CHANNEL``, or a channel is no whole number from 0.
    """
    if isinstance(keep, str):
        layer, _, channels = keep.rpartition(":")
        numbers = channels.split("+")
        if not layer or not all(number.isdecimal() for number in numbers):
            raise OptionError(f"lrp: keep={keep!r}: give a layer and its channels, as in layer4:3+17")
        return {layer: tuple(map(int, numbers))}
    plain = {name: as_python(c) for name, c in (keep or {}).items()}
    kept = {name: (c,) if isinstance(c, int) else tuple(c) for name, c in plain.items()}
    if any(type(c) is not int or c < 0 for channels in kept.values() for c in channels or (-1,)):
        raise OptionError(f"lrp: keep={keep!r}: give channels as whole numbers from 0, as in {{'layer4': [3, 17]}}")
    return kept


def _keeping(
    model: Session, name: str, channels: Sequence[int] | None, x: Tensor
) -> Callable[[Tensor], Tensor] | None:
    """Return what cuts a layer's relevance down to some channels."""
    if channels is None:
        return None

    def cut(r: Tensor) -> Tensor:
        axis = 1 if r.ndim == 2 else model.layout(name, r, x).channel_axis
        if max(channels) >= r.shape[axis]:
            raise OptionError(f"lrp: keep: {name!r} has {r.shape[axis]} channels, 0 to {r.shape[axis] - 1}")
        index = torch.tensor(channels, device=r.device)
        return torch.zeros_like(r).index_copy(axis, index, r.index_select(axis, index))

    return cut


def _scale(balance: Balance, start: Start) -> Tensor:
    """Return what a balance is measured against: its start, or, where that may cancel out, what was moved at most."""
    moved = torch.stack([balance.input, balance.bias, balance.constants, balance.stabiliser]).abs().amax(0)
    size = balance.start.abs()
    scale = torch.where(size == 0, moved, size) if start == "one-hot" else torch.maximum(size, moved)
    return torch.where(scale == 0, 1, scale)


def without_rule(run: Propagation) -> str:
    """Return the operations that have no rule of their own, in words."""
    found = ", ".join(f"{name} ({count})" for name, count in sorted(run.unknown.items()))
    return f"operations without a rule of their own: {found}"


def _told(balance: Balance, start: Start, *, at_input: bool) -> list[tuple[str, ...]]:
    """Return for each picture what its balance says of its map."""
    held = balance.bias + balance.constants
    amounts = torch.stack([balance.start, balance.input, held, balance.stabiliser]).T.tolist()
    # What sets classes against each other starts with next to nothing.
    says = start == "one-hot" and at_input
    return [_of_shares(*of_one) if says and of_one[0] else () for of_one in amounts]


def _of_shares(start: float, given: float, held: float, lost: float) -> tuple[str, ...]:
    largest = max(abs(given), abs(held), abs(lost)) / abs(start)
    if largest > _EXPLODED:
        return (
            f"relevances up to {largest:.0e} times the score cancel out: the map shows rounding and small "
            "denominators, take composite=auto",
        )
    share = held / start
    if abs(share) <= _MOST:
        return ()
    if not 0 <= share <= 1.1:
        return (
            f"biases and constants hold {share:.0%} of what was handed back, the picture {given / start:.0%}: "
            "shares of both signs cancel, and their sizes mean little",
        )
    said = "more than 99.9%" if 0.9995 < share < 1 else f"{share:.1%}"
    return (f"biases and constants hold {said} of what was handed back: the map shows what is left",)


def _notes(
    model: Session,
    run: Propagation,
    composite: str | Composite | named.Chooser,
    told: Sequence[tuple[str, ...]],
) -> tuple[tuple[str, ...], ...]:
    """Return what a reader must know: what was chosen, what has no rule, and where most of the score went."""
    common = [f"auto chose {run.composite.name}"] if composite == "auto" else []
    if model.classifier.precision != "float32":
        common.append(IN_FLOAT32)
    if run.unknown:
        common.append(f"{without_rule(run)}, which hand on their first-order expansion")
    return tuple((*common, *own) for own in told)
