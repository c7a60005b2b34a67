"""Relevance on its way: read at layers, and, where only some channels are to count, cut down to these."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from whence.methods.lrp.tags import maker, put, tag_of

if TYPE_CHECKING:
    from whence.methods.lrp.linear import Node
    from whence.methods.lrp.propagation import Propagation


@dataclass(frozen=True, eq=False)
class Probe:
    """Reads the relevance of one layer's output, of which ``keep`` [.., K, ..] says what is handed on."""

    run: "Propagation"
    name: str
    keep: Callable[[Tensor], Tensor] | None = None

    def see(self, r: Tensor) -> Tensor:
        """Read a layer's relevance, and return what of it goes on."""
        kept = r if self.keep is None else self.keep(r)
        if kept is not r:
            self.run.ledger.to_other("not kept", r - kept)
        seen = self.run.ledger.layers
        # A merged norm and others may read the same output, each with a part of it.
        seen[self.name] = seen[self.name] + kept if self.name in seen else kept
        return kept


class _Watched(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, probe: Probe, relevance: bool, node: "Node | None") -> Tensor:  # noqa: ANN401
        y = x.clone()
        ctx.probe, ctx.relevance, ctx.node = probe, relevance, node
        ctx.value = None if relevance else y.clone()
        return y

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None, None, None]:  # noqa: ANN401
        if ctx.node is not None and ctx.node.given is not None:
            # What comes is not what was given; the operation itself tells the probe.
            return g, None, None, None
        if ctx.relevance:
            return ctx.probe.see(g), None, None, None
        ctx.probe.see(g * ctx.value)
        return g if ctx.probe.keep is None else ctx.probe.keep(g), None, None, None


def probed(x: Tensor, probe: Probe) -> Tensor:
    """Return a tensor that carries R / value, with a probe on it."""
    y: Tensor = _Watched.apply(x, probe, False, None)
    return y


def watch(x: Tensor, probe: Probe) -> Tensor:
    """Return a layer's output with a probe on it; a tensor that does not depend on the input as it is."""
    tag = tag_of(x)
    if tag is None:
        return x
    with torch._C.DisableTorchFunction():
        node = maker(x)
        y: Tensor = _Watched.apply(x, probe, tag.relevance, node)
        made = None if node is None else (node, y._version)
    if node is not None:
        # A batch norm behind it is merged into it, past this probe: the merged operation tells it.
        node.pending.append(probe)
    return put(y, replace(tag, made=made))
