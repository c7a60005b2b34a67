"""One forward pass in which every operation learns how to hand relevance back.

Relevance is carried as g = R / value. Then every operation that is linear and has no parameters, and ReLU and
max-pooling too, has its ordinary gradient as its LRP-0 rule, with no division, no stabiliser and no special case for
sums; only what is named in ``handlers`` has code of its own. Rules that give relevance to inputs of zero need R
itself: the tensors before a first layer with such a rule carry it, and all tensors where such a rule stands further
inside.
"""

from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from types import FunctionType
from typing import TYPE_CHECKING, Any, Literal
from weakref import WeakKeyDictionary, WeakSet

import torch
from torch import Tensor, nn

from whence.errors import UnsupportedError
from whence.methods.lrp.balance import Ledger
from whence.methods.lrp.carried import Call, Operation, converted
from whence.methods.lrp.composites import Composite
from whence.methods.lrp.linear import Map, Node, carried, stands_for
from whence.methods.lrp.probes import Probe, probed
from whence.methods.lrp.rules import Rule
from whence.methods.lrp.structure import (
    ASKS,
    ELEMENTWISE,
    KEEPS_SIGN,
    MOVES,
    POSITIVE,
    RECTIFIERS,
    STRUCTURAL,
    may_write,
)
from whence.methods.lrp.tags import Tag, maker, put, tag_of, tensors
from whence.models.attention import unguarded
from whence.models.folding import Pairs
from whence.models.operations import Function, Intercepted
from whence.pictures.preprocess import PixelRange

if TYPE_CHECKING:
    from whence.methods.lrp.operations import Handler

Bias = Literal["absorb", "ignore", "distribute"]

# So many values of memory are kept for one use while a call lasts.
_SCRATCH = 1 << 22


def _before_all(t: Tensor) -> bool:
    """Return whether a way leads back from a tensor to a leaf with a tag, the input, past no linear operation."""
    stack, seen = [t.grad_fn], set()
    while stack:
        node = stack.pop()
        if node is None or node in seen or stands_for(node):
            continue
        seen.add(node)
        leaf = getattr(node, "variable", None)
        if leaf is not None and tag_of(leaf) is not None:
            return True
        stack += [following for following, _ in node.next_functions]
    return False


class Propagation(Intercepted):
    """The mode in whose block the model runs, and what is known of that run.

    With ``attention`` there is a probe on each attention map that has relevance, named ``attention 0`` and so on in
    the order of the calls; ``maps`` is how many there are.
    """

    def __init__(
        self,
        module: nn.Module,
        composite: Composite,
        handlers: Mapping[Function, "Handler"],
        *,
        pixels: PixelRange | None,
        bias: Bias,
        count: int,
        attention: bool = False,
    ) -> None:
        super().__init__({})
        self.composite = composite
        self.handlers = handlers
        self.bias = bias
        self.count = count
        self.ledger = Ledger(count)
        self.again = True
        self.depth = 0
        # Inside an attention whose tokens come before its batch: how large that is.
        self.batch: int | None = None
        self.maps = 0
        self._watches_attention = attention
        self.seen: Counter[str] = Counter()
        self.unknown: Counter[str] = Counter()
        self.everywhere = composite.relevance_everywhere or bias == "distribute"
        # Where R / value is carried, and no denominator is made of all outputs together.
        by_rms = any(isinstance(rule, Rule) and rule.stabiliser.how == "rms" for _, rule in composite.entries)
        self._may_rectify = not self.everywhere and not by_rms
        self._before_first = composite.relevance_before_first
        self._pixels = pixels
        self._root: Tensor | None = None
        self._saved: dict[int, WeakSet[Node]] = {}
        # Memory that was written to by anything but a rectifier: views of it may have become negative.
        self._written: set[int] = set()
        self._scratch: dict[Hashable, Tensor] = {}
        # Weakly, for a node knows its run: a circle through autograd's graph is never collected.
        self._rules: WeakKeyDictionary[Node, Rule] = WeakKeyDictionary()
        self._owners: dict[int, tuple[str, nn.Module]] = {}
        for path, layer in module.named_modules():
            for parameter in layer._parameters.values():
                self._owners.setdefault(id(parameter), (path, layer))

    def take_for(self, pairs: Pairs) -> None:
        """Take folded weights for those that the model's modules hold."""
        self._owners |= {id(pair.weight): self._owners[key] for key, pair in pairs.items() if key in self._owners}

    def rule(self, node: Node) -> Rule:
        """Return the composite's rule for a linear operation."""
        if node not in self._rules:
            self._rules[node] = self.composite.linear(node)
        return self._rules[node]

    def begin(self, *, again: bool) -> Ledger:
        """Return an empty ledger, for a pass back after which there may come another one."""
        self.again = again
        self.ledger = Ledger(self.count)
        return self.ledger

    @property
    def root_carries_relevance(self) -> bool:
        """Whether what comes back to the input is relevance, and not relevance divided by the input."""
        return self.everywhere or self._before_first

    def bounds(self, node: Node) -> tuple[Tensor, Tensor]:
        """Return the lowest and the highest value that the inputs of a first operation can have, as they lie."""
        x, root = node.x, self._root
        if self._pixels is not None and root is not None and torch.equal(x, root[node.rows]):
            low, high = (t.to(x).reshape(1, -1, 1, 1) for t in (self._pixels.low, self._pixels.high))
            return torch.minimum(low, high).expand_as(x[:1]), torch.maximum(low, high).expand_as(x[:1])
        places = tuple(range(2, x.ndim)) or (1,)
        return x.amin(places, keepdim=True).expand_as(x), x.amax(places, keepdim=True).expand_as(x)

    # The mode.

    def __torch_function__(
        self, func: Function, types: object, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:  # noqa: ANN401
        """Run an operation of the model, so that what comes back to it is handed on by its rule."""
        kwargs = kwargs or {}
        if getattr(func, "__name__", "").rstrip("_") in ASKS or not torch.is_grad_enabled():
            return func(*args, **kwargs)
        given = tensors((args, kwargs)) if kwargs else tensors(args)
        tracked = self._tracked(given)
        if not tracked:
            # What is made of weights alone is a constant, though weights may require gradients.
            with torch.no_grad():
                return func(*args, **kwargs)
        handler = self.handlers.get(func)
        if handler is None and isinstance(func, FunctionType) and func is not Tensor.unflatten:
            # Written in Python out of operations that are seen one by one, but for one that calls itself.
            with self:
                return unguarded(func)(*args, **kwargs)
        if handler is not None and handler.expands:
            return handler.run(self, func, *args, **kwargs)
        for node in map(maker, tracked):
            if node is not None:
                node.uses += 1
        if may_write(func, args, kwargs):
            self._free(args[0] if args else kwargs.get("input"), getattr(func, "__name__", ""))
        tags = [tag for tag in map(tag_of, tracked) if tag is not None]
        out = self._run(handler, func, args, kwargs, tracked, any(tag.relevance for tag in tags))
        written = args[:1] if out is None else ()
        alone = len(tracked) == len(given)
        self._settle((out, written), self._merged(func, tags, alone and all(map(self._positive, tracked))), tags)
        return out

    def _positive(self, t: Tensor) -> bool:
        """Return whether a tensor is known to hold nothing negative, nor to have been written to since."""
        return self.tag(t).positive and t.untyped_storage().data_ptr() not in self._written

    def _merged(self, func: Function, tags: list[Tag], positive: bool) -> Tag:
        """Return what is known of what a function makes of tensors, which may all be ``positive``."""
        name = getattr(func, "__name__", "").rstrip("_")
        return Tag(
            max(tag.depth for tag in tags),
            self.everywhere or all(tag.relevance for tag in tags),
            frozenset().union(*(tag.after for tag in tags)),
            all(tag.gate for tag in tags),
            name in POSITIVE or (positive and name in KEEPS_SIGN),
        )

    def _run(
        self,
        handler: "Handler | None",
        func: Function,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        tracked: list[Tensor],
        relevance: bool,
    ) -> Any:  # noqa: ANN401
        """Run one operation, in the form in which its tensors carry relevance."""
        full = getattr(func, "__name__", str(func))
        name = full.rstrip("_")
        structural = name in STRUCTURAL or full == "__get__"
        self.seen[name] += 1
        if handler is None and not structural:
            self.unknown[full] += 1
        call = Call(func, args, kwargs)
        alone = relevance and len(tracked) == 1 and name in ELEMENTWISE
        if alone and (name in RECTIFIERS or self.tag(tracked[0]).depth == 0):
            return call.scaled(tracked[0])
        if relevance and not (handler.carries if handler is not None else full == "__get__" or name in MOVES):
            return converted(self, call, tracked, func if handler is None else partial(handler.run, self, func))
        return func(*args, **kwargs) if handler is None else handler.run(self, func, *args, **kwargs)

    def _tracked(self, given: list[Tensor]) -> list[Tensor]:
        """Return which of an operation's tensors depend on the input, tagged."""
        found = [t for t in given if t.requires_grad]
        for t in found:
            if tag_of(t) is None and id(t) not in self._owners:
                self._greet(t)
        return [t for t in found if tag_of(t) is not None]

    def _greet(self, t: Tensor) -> None:
        """Tag the input itself, and what comes from an operation that the mode does not see."""
        if t.is_leaf:
            if self._root is None:
                self._root = t.detach()
                put(t, Tag(relevance=self.root_carries_relevance))
            return
        name = t.grad_fn.name().removesuffix("Backward") if t.grad_fn is not None else "unseen"
        before = _before_all(t)
        relevance = self.everywhere or (self._before_first and before)
        # Torch puts an identity around modules with backward hooks.
        if name != "BackwardHookFunction":
            if relevance:
                raise UnsupportedError(
                    f"lrp: nobody sees into {name}, which can hand on R / value alone, and not relevance itself: "
                    "take a composite without flat, w-square and box rules there, and bias=absorb or ignore"
                )
            self.unknown[name] += 1
        put(t, Tag(0 if before else self.depth + 1, relevance))

    def _settle(self, out: Any, merged: Tag, tags: list[Tag]) -> None:  # noqa: ANN401
        """Tag what an operation returned, where it has not done so itself."""
        for t in tensors(out):
            if not t.requires_grad:
                continue
            own = tag_of(t)
            fresh = own is not None and not any(own is tag for tag in tags)
            if own is None or not fresh:
                put(t, merged)
            elif own.made is None:
                put(t, replace(merged, gate=own.gate))

    def _free(self, written: Any, name: str) -> None:  # noqa: ANN401
        """Let operations that have kept a tensor's memory copy it before it is written to.

        An output that nothing but a rectifier sees is as good rectified: where it was negative nothing comes back.
        """
        if not isinstance(written, Tensor):
            return
        made = maker(written)
        rectified = made if name == "relu_" and made is not None and made.uses == 1 and self._may_rectify else None
        storage = written.untyped_storage().data_ptr()
        if name.rstrip("_") not in POSITIVE:
            self._written.add(storage)
        elif written._base is None:
            self._written.discard(storage)
        for node in self._saved.pop(storage, ()):
            if node is not rectified:
                node.own_memory(storage)
        if rectified is not None:
            self._saved[storage] = WeakSet([rectified])

    # What handlers use.

    def tag(self, tensor: Tensor) -> Tag:
        """Return a tensor's tag."""
        return tag_of(tensor) or Tag()

    def gate(self, tensor: Tensor) -> Tensor:
        """Mark a tensor as one that only weighs other signals."""
        return put(tensor, replace(self.tag(tensor), gate=True, made=None))

    def by_form(self, call: Call, tracked: Sequence[Tensor], act: Operation) -> Tensor:
        """Run ``act`` in the place of a function, in the form in which the tensors carry relevance."""
        if any(self.tag(t).relevance for t in tracked):
            return converted(self, call, tracked, act)
        return act(*call.args, **call.kwargs)

    def scratch(self, use: Hashable, like: Tensor) -> Tensor | None:
        """Return memory as a tensor lies, the same at each call for a use; None for what is too large to keep.

        Fresh memory of that size is fetched from the system, and given back, at every layer.
        """
        size = like.numel()
        dense = like.is_contiguous() or like.is_contiguous(memory_format=torch.channels_last)
        if size > _SCRATCH or not dense:
            return None
        where = use, like.dtype, like.device
        held = self._scratch.get(where)
        if held is None or held.numel() < size:
            held = self._scratch[where] = like.new_empty(size)
        return held.as_strided(like.shape, like.stride())

    @property
    def shares_attention(self) -> bool:
        """Whether attention maps are signals with relevance of their own."""
        return self.composite.choice("attention") != "cp"

    def attended(self, a: Tensor) -> Tensor:
        """Return an attention map that carries R / value, with a probe on it where maps are watched."""
        if not self._watches_attention:
            return a
        self.maps += 1
        return probed(a, Probe(self, f"attention {self.maps - 1}"))

    def owner(self, *parameters: Tensor | None) -> tuple[str, nn.Module | None]:
        """Return the path of the module that holds one of the parameters, and the module."""
        for parameter in parameters:
            if parameter is not None and id(parameter) in self._owners:
                return self._owners[id(parameter)]
        return "", None

    def carry(
        self,
        kind: str,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        map_: Map,
        compute: Callable[[Tensor], Tensor],
    ) -> Tensor:
        """Run a linear operation of the input ``x``, ``compute`` of its weights, with the composite's rule."""
        tag = tag_of(x) or Tag()
        for before in tag.after:
            before.last = False
        name, module = self.owner(weight, bias)
        own, made_of = x.detach(), map_.arranged(weight.detach(), x)
        node = Node(self, kind, name, module, map_, own, own, made_of, bias, tag.depth)
        node.gives_relevance, node.takes_relevance = tag.relevance, self.everywhere
        node.positive = self._positive(x)
        node.source, node.source_version = x, x._version
        self.seen["depthwise"] += weight.ndim > 2 and weight.shape[1] == 1
        self.depth = max(self.depth, tag.depth)
        return self._carried(node, partial(compute, made_of))

    def merge(self, node: Node, scale: Tensor, shift: Tensor, compute: Callable[[], Tensor]) -> Tensor:
        """Run a scale and a shift of each feature as one with the linear operation right before it."""
        assert node.source is not None
        bias = shift if node.bias is None else node.bias * scale + shift
        merged = replace(node, scale=scale, bias=bias, probes=list(node.pending), pending=[], uses=0)
        return self._carried(merged, compute)

    def _carried(self, node: Node, compute: Callable[[], Tensor]) -> Tensor:
        assert node.source is not None
        y = carried(node.source, node, compute)
        for kept in (node.x, node.z):
            self._saved.setdefault(kept.untyped_storage().data_ptr(), WeakSet()).add(node)
        return put(y, Tag(node.depth + 1, self.everywhere, frozenset([node]), made=(node, y._version)))

    def mergeable(self, x: Tensor) -> Node | None:
        """Return the linear operation whose very output ``x`` is, where something can still be merged into it."""
        node = maker(x)
        if (
            node is None
            or node.source is None
            or node.source._version != node.source_version
            or node.scale is not None
        ):
            return None
        return node
