"""How one linear operation's relevance is dealt out by a rule, in as few passes over memory as there can be."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from whence.methods.lrp.balance import Ledger
from whence.methods.lrp.rules import PLAIN, Group, Part, Rule, minus, plus

if TYPE_CHECKING:
    from whence.methods.lrp.linear import Node


# Where a picture has so many outputs, pictures are dealt out one by one: what is made on the way is as large as they.
_LARGE = 1 << 20

# Functions of weights that can be told where to write.
_INTO: Mapping[Callable[[Tensor], Tensor], Callable[..., Tensor]] = {plus: plus, minus: minus}


def dealt(node: "Node", rule: Rule, r: Tensor, *, own: bool) -> Tensor:
    """Return what the inputs of an operation get of R [B, K, ...]: relevance, or relevance divided by the input.

    Where the memory of R is its ``own``, it is written to.
    """
    count, whole = node.run.count, node.run.ledger
    if count == 1 or len(r) != count or r.numel() < _LARGE * count:
        return Dealt(node, rule, r, own=own).found()
    back, parts = torch.empty_like(node.x), []
    try:
        for rows in (slice(i, i + 1) for i in range(count)):
            node.run.ledger = Ledger(1)
            one = replace(node, x=node.x[rows], z=node.z[rows], rows=rows)
            back[rows] = Dealt(one, rule, r[rows], own=own).found()
            parts.append(node.run.ledger)
    finally:
        node.run.ledger = whole
    whole.enter(parts)
    return back


class _Denominator(NamedTuple):
    """s(z) = z + ``added``, where one number is added to all outputs or one to each."""

    value: Tensor
    added: Tensor | int | float


class Dealt:
    """An operation's relevance R [B, K, ...] as its rule deals it out.

    ``returned`` holds for each kind of inputs the factor that multiplies them: their relevance is the product.
    """

    def __init__(self, node: "Node", rule: Rule, r: Tensor, *, own: bool) -> None:
        self.node, self.rule = node, rule
        self.signed = not node.positive and bool(node.x.min() < 0)
        self.returned: dict[str, Tensor] = {}
        self._made: dict[Callable[[Tensor], Tensor], Tensor] = {}
        self._bias = None if node.run.bias == "ignore" else node.bias
        ignored = None if self._bias is node.bias else node.bias
        self._z = node.z if ignored is None else node.z - node.map.along(ignored, node.z.ndim)
        self._outside = rule.homogeneous and node.scales_outputs and node.keeps_signs
        lost: Tensor | None = None
        before: _Denominator | None = None
        for group in rule.groups:
            served = self._served(group, r)
            if served is None:
                continue
            before = self._denominator(group, before)
            if rule.fallback:
                missed = served * self._nothing(before)
                lost = group.share * missed if lost is None else lost + group.share * missed
                served = served - missed
            last = group is rule.groups[-1]
            s = self._quotient(group, served, before, last and (own or served is not r))
            added = before.added
            if last:
                # Memory that nothing more is made of, before the largest part of the work.
                before = served = None
                del r
            self._deal(group, s, added)
        if lost is not None and bool(lost.any()):
            plain = self._denominator(PLAIN, None)
            self._deal(PLAIN, self._quotient(PLAIN, lost, plain, True), plain.added)

    @cached_property
    def _weights(self) -> Tensor:
        """The weights, without the merged scale where outputs are multiplied by that."""
        return self.node.weight if self._outside else self.node.weights()

    def _served(self, group: Group, r: Tensor) -> Tensor | None:
        """Return the relevance that a group deals out, None where there is none of it."""
        if group.serves is None:
            return r
        if group.serves == "positive" and (
            self.node.takes_relevance or self.node.given is not None or self._z is not self.node.z
        ):
            self.node.run.ledger.to_stabiliser(r * (self._z == 0))
        served = r * (self._z > 0 if group.serves == "positive" else self._z < 0)
        return served if bool(served.any()) else None

    def _nothing(self, denominator: _Denominator) -> Tensor:
        """Return for which outputs a group has no contributions, but for rounding."""
        z = denominator.value - denominator.added
        return z.abs() <= 10 * torch.finfo(z.dtype).eps * self._z.abs()

    def _denominator(self, group: Group, before: _Denominator | None) -> _Denominator:
        """Return the stabilised sum of a group's contributions to each output."""
        stabiliser = self.rule.stabiliser
        if group.sign is None or stabiliser.how != "plain":
            z = self._z if group == PLAIN else self._sum(group, None)
            by_output = stabiliser.added(z)
            return _Denominator(z + by_output, by_output)
        added = float(group.sign * stabiliser.epsilon)
        if group.rest and before is not None:
            # z - (z+ + epsilon) = z- - epsilon, of which rounding may leave nothing.
            rest = self._z - before.value
            rounding = torch.add(rest, before.value, alpha=10 * torch.finfo(rest.dtype).eps)
            return _Denominator(rest.masked_fill_(rounding >= added, added), added)
        features = self._z.new_full((self._z.shape[self.node.map.axis],), added)
        return _Denominator(self._sum(group, features), added)

    def _sum(self, group: Group, shift: Tensor | None) -> Tensor:
        """Return the sum of a group's contributions, its biases and ``shift`` [K] to each output."""
        total: Tensor | None = None
        for part in self._parts(group):
            bias = self._bias_of(part)
            shift = bias if shift is None else shift if bias is None else shift + bias
            z = self._forward(part, shift)
            total, shift = z if total is None else total + z, None
        assert total is not None
        return total

    def _forward(self, part: Part, shift: Tensor | None) -> Tensor:
        """Return the sums of a part's contributions, and ``shift``, to each output."""
        node, x, weight = self.node, self._inputs(part.inputs), self._made_of(part)
        if not self._outside:
            return node.map.forward(x, weight, shift)
        z = node.scaled(node.map.forward(x, weight))
        return z if shift is None else z.add_(node.map.along(shift, z.ndim))

    def _quotient(self, group: Group, r: Tensor, denominator: _Denominator, own: bool) -> Tensor:
        """Return r / s(z), in the memory of r where that is its own."""
        if self.rule.stabiliser.epsilon:
            return r.div_(denominator.value) if own else r / denominator.value
        undefined = denominator.value == 0
        self.node.run.ledger.to_stabiliser(group.share * r * undefined)
        return (r / denominator.value).masked_fill_(undefined, 0)

    def _deal(self, group: Group, s: Tensor, added: Tensor | int | float) -> None:
        """Hand on a_j w_jk s_k for a group's contributions, and enter what biases and stabiliser take."""
        node, ledger = self.node, self.node.run.ledger
        sums = node.map.features(s)
        within = node.scaled(s) if self._outside else s
        for part in self._parts(group):
            plain = part.weight is None
            back = node.transposed(s) if plain else node.map.transpose(within, self._made_of(part), node.x)
            self._return(part.inputs, back, group.share)
            bias = self._bias_of(part)
            if bias is not None and node.run.bias == "distribute":
                self._spread(group.share * s * node.map.along(bias, s.ndim))
            elif bias is not None:
                ledger.to_bias(sums, group.share * bias)
        if isinstance(added, Tensor):
            ledger.to_stabiliser(group.share * node.map.products(s, added))
        else:
            ledger.to_stabiliser(sums, sums.new_full(sums.shape[-1:], group.share * added))

    def _parts(self, group: Group) -> Iterator[Part]:
        """Yield the parts that have inputs: where none is negative, the positive ones are all."""
        for part in group.parts:
            if self.signed or part.inputs not in ("positive", "negative"):
                yield part
            elif part.inputs == "positive":
                yield replace(part, inputs="all")

    def _made_of(self, part: Part) -> Tensor:
        """Return a part's weights; each function of the weights is made once."""
        if part.weight is None:
            return self._weights
        if part.weight not in self._made:
            weights, into = self._weights, _INTO.get(part.weight)
            made = into(weights, out=self.node.run.scratch(into, weights)) if into else part.weight(weights)
            self._made[part.weight] = made
        return self._made[part.weight]

    def _bias_of(self, part: Part) -> Tensor | None:
        if self._bias is None or part.bias is None:
            return None
        return self._bias if part.bias == "as it is" else part.bias(self._bias)

    def _inputs(self, kind: str) -> Tensor:
        x = self.node.x
        if kind == "all":
            return x
        if kind == "positive":
            return x.clamp(min=0)
        if kind == "negative":
            return x.clamp(max=0)
        if kind == "ones":
            return torch.ones_like(x[:1])
        low, high = self.node.run.bounds(self.node)
        return x - (low if kind == "above low" else high)

    def _spread(self, r: Tensor) -> None:
        """Deal out what a bias got, to all inputs of an output alike; where there are none, it keeps it."""
        ones = torch.ones_like(self._weights)
        count = self.node.map.forward(self._inputs("ones"), ones)
        self.node.run.ledger.to_bias(r * (count == 0))
        self._return("ones", self.node.map.transpose(r * (count > 0) / count.clamp(min=1), ones, self.node.x), 1)

    def _return(self, kind: str, factor: Tensor, share: int | float) -> None:
        if kind in self.returned:
            self.returned[kind].add_(factor, alpha=share)
        else:
            self.returned[kind] = factor if share == 1 else factor.mul_(share)

    def found(self) -> Tensor:
        """Return what the inputs get, in the form in which they carry it."""
        return self._relevance() if self.node.gives_relevance else self._gradient()

    def _gradient(self) -> Tensor:
        """Return R / x for each input, without a division; an input of 0 has none."""
        x = self.node.x
        if not self.signed and list(self.returned) == ["all"]:
            return self.returned["all"]
        total = self.returned.get("all", torch.zeros((), dtype=x.dtype, device=x.device))
        for kind, has in (("positive", x > 0), ("negative", x < 0)):
            if kind in self.returned:
                total = total + self.returned[kind] * has
        return total.expand_as(x)

    def _relevance(self) -> Tensor:
        """Return R for each input."""
        parts = [self._inputs(kind) * factor for kind, factor in self.returned.items()]
        return sum(parts, start=torch.zeros_like(self.node.x))
