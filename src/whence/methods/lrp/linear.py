"""Linear operations: convolutions, their transposes and matrices, and how a rule deals out their relevance."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from whence.methods.lrp.dealing import dealt
from whence.methods.lrp.rules import PLAIN, Rule, z_plus

if TYPE_CHECKING:
    from whence.methods.lrp.probes import Probe
    from whence.methods.lrp.propagation import Propagation


@dataclass(frozen=True, eq=False)
class Map:
    """A linear map of its inputs for given weights; ``axis`` is the one of the output's features."""

    axis: int

    def forward(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """Return W x + b."""
        raise NotImplementedError

    def transpose(self, r: Tensor, weight: Tensor, like: Tensor) -> Tensor:
        """Return W^T r, of the shape of ``like``."""
        raise NotImplementedError

    def features(self, s: Tensor) -> Tensor:
        """Return the sums over the places, so that one value a feature is left where this is cheaper."""
        return s

    def products(self, s: Tensor, t: Tensor) -> Tensor:
        """Return s times t, summed over features and places where this is cheaper."""
        return s * t

    def arranged(self, weight: Tensor, x: Tensor) -> Tensor:
        """Return the weights in the memory order of the inputs, in which every pass would else copy them."""
        return weight

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

    def forward(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """Return W x + b."""
        return F.linear(x, weight, bias)

    def transpose(self, r: Tensor, weight: Tensor, like: Tensor) -> Tensor:
        """Return W^T r."""
        return r @ weight


@dataclass(frozen=True, eq=False)
class Convolution(Map):
    """A convolution or transposed convolution of one to three axes, any groups, strides and dilations."""

    axis: int = 1
    settings: tuple[Any, ...] = ()
    """Stride, padding, dilation, transposed or not, output padding, groups."""

    def forward(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """Return W x + b."""
        y: Tensor = torch.ops.aten.convolution(x, weight, bias, *self.settings)
        return y

    def transpose(self, r: Tensor, weight: Tensor, like: Tensor) -> Tensor:
        """Return W^T r."""
        x: Tensor = torch.ops.aten.convolution_backward(r, like, weight, None, *self.settings, [True, False, False])[
            0
        ]
        return x

    def arranged(self, weight: Tensor, x: Tensor) -> Tensor:
        """Return the weights with channels last where the inputs are."""
        order = torch.channels_last
        last = x.ndim == 4 and x.is_contiguous(memory_format=order) and not x.is_contiguous()
        return weight.contiguous(memory_format=order) if last else weight

    def features(self, s: Tensor) -> Tensor:
        """Return the sums over the places, [B, K]."""
        return s.flatten(2).sum(2)

    def products(self, s: Tensor, t: Tensor) -> Tensor:
        """Return the sums of s times t, [B]."""
        # As they lie in memory, without a product of their size.
        one, other = (a.movedim(1, -1).flatten(1) for a in (s, t.expand_as(s)))
        return torch.bmm(one[:, None], other[:, :, None]).flatten()

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
    positive
        Whether its inputs are known not to be negative.
    rows
        Which pictures of the batch it is of.
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
    positive: bool = False
    rows: slice = field(default_factory=lambda: slice(None))
    uses: int = 0
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
            # From now on it may come after this operation, and nothing can be merged any more.
            self.source = None
        if self.z.untyped_storage().data_ptr() == storage:
            self.z = self.z.clone()

    def release(self) -> None:
        """Let go of what a second pass back would need."""
        self.x = self.z = self.weight = self.x.new_empty(0)
        self.source = None

    def weights(self) -> Tensor:
        """Return the weights, those of a batch norm behind it merged into them."""
        return self.weight if self.scale is None else self.map.scaled(self.weight, self.scale)

    def back(self, g: Tensor) -> Tensor:
        """Return what the input gets of what comes back to the output, by the rule that the composite has for it."""
        rule = self.run.rule(self)
        relevance = self.takes_relevance or self.gives_relevance or self.given is not None or self.probes
        if not relevance and rule.plain and self.run.bias == "absorb":
            return self._gradient(g)
        r = self.given if self.given is not None else g if self.takes_relevance else g * self.z
        # Those on the very output leave it to this operation to tell them what was given.
        for probe in reversed(self.probes if self.given is None else [*self.probes, *self.pending]):
            r = probe.see(r)
        own = self.given is None and not self.takes_relevance and not self.probes
        node, rule = (self, rule) if self.negated is None else (self._negated(self.negated), _chosen(rule))
        return dealt(node, rule, r, own=own)

    def _negated(self, signs: Float[Tensor, " k"]) -> "Node":
        """Return the operation with the features of sign -1 negated."""
        scale = signs if self.scale is None else self.scale * signs
        bias = None if self.bias is None else self.bias * signs
        return replace(self, scale=scale, bias=bias, z=self.z * self.map.along(signs, self.z.ndim))

    def _gradient(self, g: Tensor) -> Tensor:
        """Return what LRP-0 gives back where R / value is carried: the gradient itself."""
        if self.bias is not None:
            self.run.ledger.to_bias(self.map.features(g), self.bias)
        return self.transposed(g)

    @property
    def scales_outputs(self) -> bool:
        """Whether a merged scale is less work where it is taken into the outputs, and not into the weights."""
        return self.scale is not None and self.z.numel() <= self.weight.numel()

    @property
    def keeps_signs(self) -> bool:
        """Whether no merged scale turns a weight's sign around, or makes it zero."""
        return self.scale is None or bool((self.scale > 0).all())

    def scaled(self, outputs: Tensor) -> Tensor:
        """Return outputs times the merged scale of their features."""
        return outputs if self.scale is None else outputs * self.map.along(self.scale, outputs.ndim)

    def transposed(self, r: Tensor) -> Tensor:
        """Return W^T r."""
        if self.scales_outputs:
            return self.map.transpose(self.scaled(r), self.weight, self.x)
        return self.map.transpose(r, self.weights(), self.x)


def _chosen(rule: Rule) -> Rule:
    """Return the rule, or z+ in the place of those by which a negated neuron deals as it does itself."""
    return z_plus() if rule.groups == (PLAIN,) or any(group.serves for group in rule.groups) else rule


class _Carried(torch.autograd.Function):
    """Whatever a linear operation computes, with its rule in the place of its derivative."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, node: Node, compute: Callable[[], Tensor]) -> Tensor:  # noqa: ANN401
        y = compute()
        # A view must not be written to, as ``+=`` does; matrices with a bias return one.
        y = y.clone() if y._is_view() else y
        node.z, ctx.node = y.detach(), node
        return y

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None, None]:  # noqa: ANN401
        node = ctx.node
        back = node.back(g)
        if not node.run.again:
            node.release()
        return back, None, None


def carried(x: Tensor, node: Node, compute: Callable[[], Tensor]) -> Tensor:
    """Return what a linear operation of ``x`` computes, with its rule in the place of its derivative."""
    y: Tensor = _Carried.apply(x, node, compute)
    return y


def stands_for(node: torch.autograd.graph.Node) -> bool:
    """Return whether a node of autograd's graph is that of a linear operation."""
    return node.name() == f"{_Carried.__name__}Backward"
