"""Linear operations: convolutions, their transposes and matrices, and how a rule deals out their relevance."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from whence.methods.lrp.rules import PLAIN, Group, Part, Rule

if TYPE_CHECKING:
    from whence.methods.lrp.probes import Probe
    from whence.methods.lrp.propagation import Propagation


@dataclass(frozen=True, eq=False)
class Map:
    """A linear map of its inputs for given weights, without bias; ``axis`` is the one of the output's features."""

    axis: int

    def forward(self, x: Tensor, weight: Tensor) -> Tensor:
        """Return W x."""
        raise NotImplementedError

    def transpose(self, r: Tensor, weight: Tensor, like: Tensor) -> Tensor:
        """Return W^T r, of the shape of ``like``."""
        raise NotImplementedError

    def features(self, s: Tensor) -> Tensor:
        """Return the sums over the places, so that one value a feature is left where this is cheaper."""
        return s

    def along(self, values: Float[Tensor, " k"], ndim: int) -> Tensor:
        """Return one value a feature, in the shape in which it meets an output of ``ndim`` axes."""
        shape = [1] * ndim
        shape[self.axis] = -1
        return values.reshape(shape)

    def scaled(self, weight: Tensor, scale: Float[Tensor, " k"]) -> Tensor:
        """Return the weights of the map whose output features are ``scale`` times as large."""
        return weight * scale.reshape(-1, *[1] * (weight.ndim - 1))


@dataclass(frozen=True, eq=False)
class Matrix(Map):
    """A matrix [K, N] on the last axis."""

    axis: int = -1

    def forward(self, x: Tensor, weight: Tensor) -> Tensor:
        """Return W x."""
        return F.linear(x, weight)

    def transpose(self, r: Tensor, weight: Tensor, like: Tensor) -> Tensor:
        """Return W^T r."""
        return r @ weight


@dataclass(frozen=True, eq=False)
class Convolution(Map):
    """A convolution or transposed convolution of one to three axes, any groups, strides and dilations."""

    axis: int = 1
    settings: tuple[Any, ...] = ()
    """Stride, padding, dilation, transposed or not, output padding, groups."""

    def forward(self, x: Tensor, weight: Tensor) -> Tensor:
        """Return W x."""
        y: Tensor = torch.ops.aten.convolution(x, weight, None, *self.settings)
        return y

    def transpose(self, r: Tensor, weight: Tensor, like: Tensor) -> Tensor:
        """Return W^T r."""
        x: Tensor = torch.ops.aten.convolution_backward(r, like, weight, None, *self.settings, [True, False, False])[
            0
        ]
        return x

    def features(self, s: Tensor) -> Tensor:
        """Return the sums over the places, [B, K]."""
        return s.flatten(2).sum(2)

    def scaled(self, weight: Tensor, scale: Float[Tensor, " k"]) -> Tensor:
        """Return the weights of the map whose output features are ``scale`` times as large."""
        *_, transposed, _, groups = self.settings
        if not transposed:
            return super().scaled(weight, scale)
        # [N, K / groups, ...]: each group of inputs has the scales of its own outputs.
        scale = scale.reshape(groups, 1, -1).expand(-1, len(weight) // groups, -1).flatten(0, 1)
        return weight * scale.reshape(*scale.shape, *[1] * (weight.ndim - 2))


@dataclass(eq=False)
class Node:
    """One linear operation of a run, as a rule and a composite's ``where`` see it.

    Attributes
    ----------
    kind, name, module
        ``convolution`` or ``linear``; the path of the module that holds its weights, and the module: "" and None
        where no module does.
    depth
        How many linear operations lie between the input and it, on the longest way: 0 for a first one.
    """

    run: "Propagation"
    kind: str
    name: str
    module: torch.nn.Module | None
    map: Map
    x: Tensor
    z: Tensor
    weight: Tensor
    bias: Tensor | None
    depth: int
    takes_relevance: bool = False
    gives_relevance: bool = False
    last: bool = True
    scale: Tensor | None = None
    given: Tensor | None = None
    negated: Tensor | None = None
    probes: list["Probe"] = field(default_factory=list)
    pending: list["Probe"] = field(default_factory=list)
    source: Tensor | None = None
    source_version: int = 0

    @property
    def first(self) -> bool:
        """Whether no linear operation stands before it."""
        return self.depth == 0

    @property
    def fraction(self) -> float:
        """Where it stands between the first linear operations, 0, and the deepest, 1."""
        return self.depth / max(1, self.run.depth)

    def own_memory(self, storage: int) -> None:
        """Keep copies of what it has kept in memory that is about to be written to."""
        if self.x.untyped_storage().data_ptr() == storage:
            self.x = self.x.clone()
        if self.z.untyped_storage().data_ptr() == storage:
            self.z = self.z.clone()

    def weights(self) -> Tensor:
        """Return the weights, those of a batch norm behind it merged into them."""
        weight = self.weight if self.scale is None else self.map.scaled(self.weight, self.scale)
        if self.negated is None:
            return weight
        return self.map.scaled(weight, self.negated)

    def back(self, g: Tensor) -> Tensor:
        """Return what the input gets of what comes back to the output, by the rule that the composite has for it."""
        rule = self.run.rule(self)
        relevance = self.takes_relevance or self.gives_relevance or self.given is not None or self.probes
        if not relevance and rule.plain and self.run.bias == "absorb":
            return self._gradient(g)
        r = self.given if self.given is not None else g if self.takes_relevance else g * self.z
        for probe in self.probes:
            r = probe.see(r)
        dealt = Dealt(self, rule, r)
        return dealt.relevance() if self.gives_relevance else dealt.gradient()

    def _gradient(self, g: Tensor) -> Tensor:
        """Return what LRP-0 gives back where R / value is carried: the gradient itself."""
        if self.bias is not None:
            self.run.ledger.to_bias(self.map.features(g) * self.bias)
        return self.map.transpose(g, self.weights(), self.x)


class Dealt:
    """One operation's relevance R [B, K, ...] as its rule deals it out.

    ``returned`` holds for each kind of inputs the factor that multiplies them: their relevance is the product.
    """

    def __init__(self, node: Node, rule: Rule, r: Tensor) -> None:
        self.node, self.stabilised = node, rule.stabiliser
        self.signed = bool(node.x.min() < 0)
        self.returned: dict[str, Tensor] = {}
        self._weights = node.weights()
        self._made: dict[Callable[[Tensor], Tensor], Tensor] = {}
        self._bias = None if node.run.bias == "ignore" else node.bias
        ignored = None if self._bias is node.bias else node.bias
        self._z = node.z if ignored is None else node.z - node.map.along(ignored, node.z.ndim)
        handed_on = torch.zeros_like(r)
        lost: Tensor | None = None
        before: Tensor | None = None
        for group in rule.groups:
            served = r if group.serves is None else r * (self._z > 0 if group.serves == "positive" else self._z < 0)
            if group.serves and not served.any():
                continue
            served = served if group.share == 1 else group.share * served
            z = self._sum(group, before)
            before = z
            if rule.fallback:
                nothing = z.abs() <= 10 * torch.finfo(z.dtype).eps * self._z.abs()
                missed = served * nothing
                lost = missed if lost is None else lost + missed
                served = served - missed
            handed_on += self._deal(group, served, z)
        if lost is not None and lost.any():
            handed_on += self._deal(PLAIN, lost, self._z)
        node.run.ledger.to_stabiliser(r - handed_on)

    def _made_of(self, part: Part) -> Tensor:
        """Return a part's weights; each function of the weights is made once."""
        if part.weight is None:
            return self._weights
        if part.weight not in self._made:
            self._made[part.weight] = part.weight(self._weights)
        return self._made[part.weight]

    def _parts(self, group: Group) -> list[Part]:
        """Return the parts that have inputs: where none is negative, the positive ones are all."""
        if self.signed:
            return list(group.parts)
        kept = [part for part in group.parts if part.inputs != "negative"]
        return [replace(part, inputs="all") if part.inputs == "positive" else part for part in kept]

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
        low, high = self.node.run.bounds(x)
        return low if kind == "low" else high

    def _bias_of(self, part: Part) -> Tensor | None:
        if self._bias is None or part.bias is None:
            return None
        return self._bias if part.bias == "as it is" else part.bias(self._bias)

    def _sum(self, group: Group, before: Tensor | None) -> Tensor:
        """Return z of a group: the sum of its contributions to each output."""
        if group.rest and before is not None:
            return self._z - before
        if group == PLAIN:
            return self._z
        terms = []
        for part in self._parts(group):
            terms.append(self.node.map.forward(self._inputs(part.inputs), self._made_of(part)))
            bias = self._bias_of(part)
            if bias is not None:
                terms.append(self.node.map.along(bias, self._z.ndim))
        return sum(terms[1:], start=terms[0])

    def _deal(self, group: Group, r: Tensor, z: Tensor) -> Tensor:
        """Hand r on in proportion to a group's contributions, and return how much of it went."""
        map_, ledger = self.node.map, self.node.run.ledger
        s = self.stabilised.divide(r, z)
        for part in self._parts(group):
            self._return(part.inputs, map_.transpose(s, self._made_of(part), self.node.x))
            bias = self._bias_of(part)
            if bias is not None and self.node.run.bias == "distribute":
                self._spread(s * map_.along(bias, s.ndim))
            elif bias is not None:
                ledger.to_bias(map_.features(s) * bias)
        return s * z

    def _spread(self, r: Tensor) -> None:
        """Deal out what a bias got, to all inputs of an output alike."""
        ones = torch.ones_like(self._weights)
        count = self.node.map.forward(self._inputs("ones"), ones)
        self._return("ones", self.node.map.transpose(r / count, ones, self.node.x))

    def _return(self, kind: str, factor: Tensor) -> None:
        self.returned[kind] = self.returned[kind] + factor if kind in self.returned else factor

    def gradient(self) -> Tensor:
        """Return R / x for each input, without a division; an input of 0 has none."""
        total = self.returned.get("all", torch.zeros((), dtype=self.node.x.dtype, device=self.node.x.device))
        for kind, has in (("positive", self.node.x > 0), ("negative", self.node.x < 0)) if self.signed else ():
            if kind in self.returned:
                total = total + self.returned[kind] * has
        return total.expand_as(self.node.x)

    def relevance(self) -> Tensor:
        """Return R for each input."""
        parts = [self._inputs(kind) * factor for kind, factor in self.returned.items()]
        return sum(parts, start=torch.zeros_like(self.node.x))


class _Carried(torch.autograd.Function):
    """Whatever a linear operation computes, with its rule in the place of its derivative."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, node: Node, compute: Callable[[], Tensor]) -> Tensor:  # noqa: ANN401
        y = compute()
        node.z, ctx.node = y.detach(), node
        return y

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None, None]:  # noqa: ANN401
        return ctx.node.back(g), None, None


def carried(x: Tensor, node: Node, compute: Callable[[], Tensor]) -> Tensor:
    """Return what a linear operation of ``x`` computes, with its rule in the place of its derivative."""
    y: Tensor = _Carried.apply(x, node, compute)
    return y
