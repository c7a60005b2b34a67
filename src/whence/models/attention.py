"""Attention maps, also where fused attention never makes them, and what they mean for the picture.

Every attention call is taken apart: the map is computed by its formula, kept as a tensor of the graph, and multiplied
with the values. The model then returns what it returns anyway, which is checked once for every size of pictures.
"""

import types
from collections.abc import Callable, Sequence, Sized
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from whence.errors import ModelError, UnsupportedError
from whence.models.layers import Layout, cut_nodes, find_layout, projected
from whence.models.operations import Function, Intercepted, named
from whence.models.taps import Seen, watched

# How far the outputs may be, relative to the largest, from those of a run that is not intercepted.
_TOLERANCES = {torch.float64: 1e-10, torch.float32: 1e-4}
_TOLERANCE_OF_HALF = 0.1


def attention_map(
    query: Float[Tensor, "*b q d"],
    key: Float[Tensor, "*b k d"],
    mask: Tensor | None = None,
    is_causal: bool = False,
    scale: float | None = None,
) -> Float[Tensor, "*c q k"]:
    """Return softmax(Q K^T scale + mask), as ``scaled_dot_product_attention`` reads its arguments.

    A boolean mask says where a query may look; a query that may look nowhere has a row of zeros.
    """
    scores = query @ key.transpose(-2, -1) * (query.shape[-1] ** -0.5 if scale is None else scale)
    if is_causal:
        mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
    if mask is None:
        return scores.softmax(-1)
    scores = scores.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else scores + mask
    blind = scores.isneginf().all(-1, keepdim=True)
    return scores.masked_fill(blind, 0).softmax(-1).masked_fill(blind, 0)


def makes_map(x: Tensor, dim: int | None = None, *_: Any, **__: Any) -> bool:  # noqa: ANN401
    """Return whether a softmax of ``x`` makes an attention map: it goes over the last of three or more axes."""
    return x.ndim > 2 and dim in (-1, x.ndim - 1)


# How functionals of torch's written in Python ask whether they are intercepted.
_ASKING = ("has_torch_function", "has_torch_function_unary", "has_torch_function_variadic")


@lru_cache
def unguarded(function: Function) -> Function:
    """Return a private copy of a functional of torch's which does not ask whether it is intercepted.

    The original would hand itself to the mode for ever.
    """
    if not isinstance(function, types.FunctionType):
        raise TypeError(f"{function} is not written in Python")
    space = {**function.__globals__, **dict.fromkeys(_ASKING, lambda *_: False)}
    # Functionals that choose between two of their kind keep these in their closure, decorated ones themselves.
    closure = tuple(
        types.CellType(unguarded(kept))
        if isinstance(kept := cell.cell_contents, types.FunctionType) and kept is not function
        else cell
        for cell in function.__closure__ or ()
    )
    copy = types.FunctionType(function.__code__, space, function.__name__, function.__defaults__, closure)
    copy.__kwdefaults__ = function.__kwdefaults__
    return copy


class Attending(Intercepted):
    """Keeps the map of every attention call in its block, [B, heads, queries, keys], in the order of the calls.

    Fused calls are computed by their formula; of explicit ones, every softmax over the last of three or more axes is
    kept. ``before`` says how long ``seen`` was at each call.
    """

    def __init__(self, seen: Sized = ()) -> None:
        self.maps: list[Tensor] = []
        self.before: list[int] = []
        self._seen = seen
        self._heads = 1
        super().__init__(
            {
                F.multi_head_attention_forward: self._multi_head,
                F.scaled_dot_product_attention: self._fused,
                **dict.fromkeys(named("softmax"), self._softmax),
                torch.special.softmax: self._softmax,
            }
        )

    def _kept(self, a: Tensor) -> Tensor:
        self.maps.append(a)
        self.before.append(len(self._seen))
        return a

    def _fused(
        self,
        function: Function,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Tensor:
        if enable_gqa:
            key = key.repeat_interleave(query.shape[-3] // key.shape[-3], -3)
            value = value.repeat_interleave(query.shape[-3] // value.shape[-3], -3)
        a = self._kept(attention_map(query, key, attn_mask, is_causal, scale).to(value.dtype))
        return F.dropout(a, dropout_p) @ value

    def _softmax(self, function: Function, *args: Any, **kwargs: Any) -> Tensor:  # noqa: ANN401
        """Keep a map that the model makes itself; one with heads and batch in one axis, or without heads, as four."""
        a: Tensor = function(*args, **kwargs)
        if not makes_map(a, *args[1:], **kwargs):
            return a
        if a.ndim > 3:
            return self._kept(a)
        return self._kept(a.reshape(-1, self._heads, *a.shape[1:])).reshape(a.shape)

    def _multi_head(self, function: Function, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        """Run the body of ``nn.MultiheadAttention`` with the mode on again, for the attention inside."""
        self._heads = kwargs["num_heads"] if "num_heads" in kwargs else args[4]
        try:
            with self:
                return unguarded(function)(*args, **kwargs)
        finally:
            self._heads = 1


@dataclass(frozen=True)
class Readout:
    """What a model's attention maps mean for pictures of one size.

    Attributes
    ----------
    tokens
        How many there are; ``layout`` says which of them are patches, and on which grid.
    read
        [N] for each token whether what comes after the last attention reads it.
    calls
        How many attention calls a run makes.
    blocks
        For each call the layer that returns the tokens of its block, ``()`` where they cannot be told.
    """

    tokens: int
    layout: Layout
    read: Bool[Tensor, " n"]
    calls: int
    blocks: tuple[str, ...] = field(default=())

    def weights(self, like: Float[Tensor, "..."]) -> Float[Tensor, "b n"]:
        """Return how much of each token's row is taken: each prefix token that is read, and the mean patch, alike."""
        prefix = self.layout.prefix
        weights = self.read.to(like).clone()
        weights[prefix:] = weights[prefix:].any().to(like) / (self.tokens - prefix)
        return (weights / weights.sum().clamp(min=1)).expand(len(like), -1)

    def maps(self, rows: Float[Tensor, "b n"]) -> Float[Tensor, "b 1 h w"]:
        """Return one value a token as a map of the patches."""
        return rows[:, self.layout.prefix :].reshape(-1, 1, *self.layout.grid)


def checked_maps(maps: Sequence[Tensor], batch: int, size: Sequence[int], name: str) -> Layout:
    """Return where the patches stand among the tokens of a run's attention maps.

    Raises
    ------
    UnsupportedError
        Patches do not attend to one another, all to all, in every call.
    """
    shapes = list(dict.fromkeys(tuple(a.shape) for a in maps))
    why = _refusal(shapes, batch)
    if why:
        raise UnsupportedError(f"{name} {why}: take grad-cam, which needs no attention maps")
    return _grid(find_layout((batch, shapes[0][-1], 1), batch, size), shapes[0][-1], name)


def _grid(layout: Layout | None, tokens: int, name: str) -> Layout:
    if layout is None:
        raise UnsupportedError(
            f"{name} attends among {tokens} places that are no grid of the picture's patches: "
            "take grad-cam, which needs no attention maps"
        )
    return layout


def _refusal(shapes: Sequence[tuple[int, ...]], batch: int) -> str:
    """Return why maps of these shapes do not say which patch looks at which, empty where they do."""
    if not shapes:
        return "has no attention between patches"
    for shape in shapes:
        if len(shape) != 4 or shape[0] != batch:
            return f"attends within windows or groups (maps of {list(shape)} for {batch} pictures), not all to all"
        if shape[2] == 1:
            return "gathers the patches by a query of their own (class attention or attention pooling)"
        if shape[2] != shape[3]:
            return f"attends to fewer or other places than ask ({shape[2]} queries, {shape[3]} keys)"
    if len({shape[2] for shape in shapes}) > 1:
        return f"changes the number of its tokens on the way ({', '.join(str(shape[2]) for shape in shapes)})"
    return ""


def find_readout(module: nn.Module, x: Float[Tensor, "b c h w"], run: Callable[[Tensor], Any], name: str) -> Readout:
    """Return what the attention maps mean for inputs like ``x``, by two runs on seeded noise.

    Which tokens are read shows in the gradient of a random projection of the logits with respect to the last map:
    only the rows of tokens that are read have one.

    Raises
    ------
    UnsupportedError
        Patches do not attend to one another, all to all, in block after block.
    ModelError
        The model returns something else when its attention is computed by the formula.
    """
    noise = torch.randn(2, *x.shape[1:], generator=torch.Generator().manual_seed(0)).to(x)
    with torch.random.fork_rng([x.device] if x.is_cuda else []):
        plain = run(noise)
    leaf = noise.requires_grad_()
    with torch.enable_grad(), watched(module) as seen, Attending(seen) as attending:
        output = run(leaf)
        score, _ = projected(output)
    _same(output, plain, name)
    maps = attending.maps
    layout = checked_maps(maps, 2, tuple(x.shape[2:]), name)
    _tokens_of_patches(seen, layout, tuple(x.shape[2:]), maps[0].shape[-1], name)
    cuts = cut_nodes(score.grad_fn, leaf) if score.grad_fn is not None else set()
    if not _successive(maps, cuts):
        raise UnsupportedError(
            f"{name} does not run its attention block after block, with a gradient through all: take grad-cam"
        )
    (gradient,) = torch.autograd.grad(score, maps[-1:], allow_unused=True)
    read = (torch.zeros_like(maps[-1]) if gradient is None else gradient).ne(0).any(3).any(1).any(0).cpu()
    return Readout(maps[0].shape[-1], layout, read, len(maps), _blocks(seen, attending.before, cuts))


def _tokens_of_patches(seen: Sequence[Seen], layout: Layout, size: Sequence[int], tokens: int, name: str) -> None:
    """Refuse maps as wide as a grid by chance, channels for instance: some layer must return that grid's tokens."""
    layouts = [find_layout(tuple(s.tensor.shape), 2, size) for s in seen]
    places = {(found.prefix, found.grid) for found in layouts if found is not None}
    _grid(layout if (layout.prefix, layout.grid) in places else None, tokens, name)


def _same(output: Any, plain: Any, name: str) -> None:  # noqa: ANN401  (modules return anything)
    for a, b in zip(tree_leaves(output), tree_leaves(plain), strict=True):
        if isinstance(b, Tensor) and b.is_floating_point():
            a, b = a.detach(), b.detach()
            off = float((a - b).abs().max() / b.abs().max().clamp(min=torch.finfo(b.dtype).tiny))
            if not off <= _TOLERANCES.get(b.dtype, _TOLERANCE_OF_HALF):
                raise ModelError(
                    f"{name} returns something else, off by {off:.1e}, when its attention is computed by the "
                    "formula: its attention maps are not what it uses, take grad-cam"
                )


def _successive(maps: Sequence[Tensor], cuts: set[Any]) -> bool:
    """Return whether the attention calls stand one behind the other: between two of them all paths meet."""
    calls = [a.grad_fn._sequence_nr() for a in maps if a.grad_fn is not None]
    meetings = [cut._sequence_nr() for cut in cuts]
    meets = (any(first < meeting < second for meeting in meetings) for first, second in pairwise(calls))
    return len(calls) == len(maps) and all(meets)


def _blocks(seen: Sequence[Seen], before: Sequence[int], cuts: set[Any]) -> tuple[str, ...]:
    """Return for each attention call the layer that returns its block's tokens.

    That is the last one before the next call through which all paths go. After the last call come pooling and head:
    there it is the first one of the same kind as the others.
    """
    ends = [*before[1:], len(seen)]
    passed = [[s for s in seen[start:end] if s.node in cuts] for start, end in zip(before, ends, strict=True)]
    if not all(passed):
        return ()
    inner = [calls[-1] for calls in passed[:-1]]
    alike = [s for s in passed[-1] if any(type(s.module) is type(block.module) for block in inner)]
    found = [*inner, (alike or passed[-1])[0]]
    same = all(s.tensor.shape == found[-1].tensor.shape for s in found)
    return tuple(str(s.call) for s in found) if same else ()
