"""Which layer to explain, and where in its output lie channels and places.

The layer is chosen by one traced pass over seeded noise: the last layer with a spatial map through which every path
from the picture to the score goes, and whose every place can change the score.
"""

import heapq
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import ceil, floor, inf, log, prod
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from whence.errors import LayerError, ModelError
from whence.models.outputs import logits_of
from whence.models.taps import Seen, watched

# Class, distillation and register tokens that stand before the patches: none, CLS, + distillation, registers, both.
_PREFIXES = (0, 1, 2, 4, 5, 8)
# A layer counts as covered where this share of its places can change the score.
_COVERED = 0.5
# Two pictures, so that the batch axis shows itself.
_TRACED = 2


@dataclass(frozen=True)
class Layout:
    """Where a layer's output holds what: channels first or last, or tokens after ``prefix`` others.

    ``grid`` is (h, w); ``sequence_first`` says that tokens come before the batch.
    """

    kind: Literal["channels-first", "channels-last", "tokens"]
    grid: tuple[int, int]
    prefix: int = 0
    sequence_first: bool = False

    @property
    def batch_axis(self) -> int:
        """Return along which axis of an output the pictures lie."""
        return 1 if self.sequence_first else 0

    def to_maps(self, tensor: Float[Tensor, "..."]) -> Float[Tensor, "b k h w"]:
        """Return a layer's output, or a gradient like it, as maps."""
        if self.kind == "channels-first":
            return tensor
        if self.kind == "channels-last":
            return tensor.movedim(-1, 1)
        tokens = tensor.transpose(0, self.batch_axis)
        patches = tokens[:, self.prefix :].transpose(1, 2)
        return patches.reshape(*patches.shape[:2], *self.grid)

    @property
    def channel_axis(self) -> int:
        """Return along which axis of an output the channels lie."""
        return 1 if self.kind == "channels-first" else -1

    def channels(self, shape: Sequence[int]) -> int:
        """Return how many channels an output of this shape has."""
        return shape[self.channel_axis]


def _stretch(grid: Sequence[int], size: Sequence[int]) -> float:
    """Return how far a grid's aspect is from the input's, 0 where they agree."""
    return abs(log(grid[0] * size[1] / (grid[1] * size[0])))


def _four(shape: Sequence[int], size: Sequence[int]) -> Layout | None:
    """Read [B, C, h, w] or [B, h, w, C]: the grid is as long and wide as the input; on a tie the larger is C."""
    first, last = tuple(shape[2:4]), tuple(shape[1:3])
    fits = {"channels-first": _stretch(first, size), "channels-last": _stretch(last, size)}
    # One cell more or less changes the aspect of a small grid.
    slack = {"channels-first": 1.2 / min(first), "channels-last": 1.2 / min(last)}
    if fits["channels-last"] < fits["channels-first"] and fits["channels-last"] < slack["channels-last"]:
        return Layout("channels-last", (last[0], last[1]))
    if fits["channels-first"] == fits["channels-last"] and shape[3] > shape[1]:
        return Layout("channels-last", (last[0], last[1]))
    if fits["channels-first"] < max(slack["channels-first"], log(1.5)):
        return Layout("channels-first", (first[0], first[1]))
    return None


def _grids(count: int, size: Sequence[int]) -> list[tuple[int, int]]:
    """Return the (h, w) with h * w = count that come within one cell of the input's aspect."""
    if count < 2:
        return []
    stride = (size[0] * size[1] / count) ** 0.5
    rows = range(max(1, ceil(size[0] / stride - 1)), floor(size[0] / stride + 1) + 1)
    return [(h, count // h) for h in rows if count % h == 0 and abs(count // h - size[1] / stride) < 1]


def _misfit(grid: tuple[int, int], size: Sequence[int]) -> int:
    """Return 0 for a grid of whole square patches, 1 for one of the input's aspect, 2 for one only near it."""
    (h, w), (height, width) = grid, size
    if h * width != w * height:
        return 2
    return 0 if height % h == 0 else 1


def _tokens(shape: Sequence[int], batch: int, size: Sequence[int]) -> Layout | None:
    """Read [B, N, C] or [N, B, C]: the grid that fits best, and on a tie the fewest tokens before it."""
    for sequence_first in (False, True):
        if shape[1 if sequence_first else 0] != batch:
            continue
        count = shape[0 if sequence_first else 1]
        found = [(_misfit(g, size), prefix, g) for prefix in _PREFIXES for g in _grids(count - prefix, size)]
        if found:
            _, prefix, grid = min(found)
            return Layout("tokens", grid, prefix, sequence_first)
    return None


def find_layout(shape: Sequence[int], batch: int, size: Sequence[int]) -> Layout | None:
    """Return the layout of an output of this shape, for a batch of inputs of ``size`` (H, W); None if it has none."""
    if prod(shape) == 0:
        return None
    if len(shape) == 4 and shape[0] == batch:
        return _four(shape, size)
    return _tokens(shape, batch, size) if len(shape) == 3 else None


def layout_of(name: str, shape: Sequence[int], batch: int, size: Sequence[int]) -> Layout:
    """Return the layout of a layer's output.

    Raises
    ------
    LayerError
        The output has no spatial map.
    """
    layout = find_layout(shape, batch, size)
    if layout is None:
        raise LayerError(
            f"layer {name!r} returns {list(shape)} for {batch} inputs of {size[0]} x {size[1]}, "
            "which holds no spatial map: choose a layer that `whence layers` lists"
        )
    return layout


@dataclass(frozen=True)
class Candidate:
    """A layer that can be explained: its map is [channels, *grid].

    ``cut`` says that every path from the picture to the score goes through it, ``coverage`` which share of its
    places can change the score.
    """

    name: str
    channels: int
    layout: Layout
    cut: bool
    coverage: float

    @property
    def shape(self) -> tuple[int, int, int]:
        """The map's (K, h, w)."""
        return (self.channels, *self.layout.grid)


@dataclass(frozen=True)
class Catalogue:
    """The layers that can be explained at one input size, in the order in which they run.

    ``dead`` says that no output of the model depends on the picture, so that no coverage could be measured.
    """

    candidates: tuple[Candidate, ...]
    chosen: str
    dead: bool


def _reaching(root: Any, leaf: Tensor) -> set[Any]:  # noqa: ANN401  (autograd's nodes have no public type)
    """Return the graph's nodes from which the leaf can be reached."""
    reach: dict[Any, bool] = {}
    stack = [(root, False)]
    while stack:
        node, done = stack.pop()
        following = [n for n, _ in node.next_functions if n is not None]
        if done:
            reach[node] = getattr(node, "variable", None) is leaf or any(reach.get(n, False) for n in following)
        elif node not in reach:
            reach[node] = False
            stack.append((node, True))
            stack += [(n, False) for n in following]
    return {node for node, yes in reach.items() if yes}


def cut_nodes(root: Any, leaf: Tensor) -> set[Any]:  # noqa: ANN401
    """Return the nodes of an autograd graph through which every path from ``root`` to ``leaf`` goes.

    Nodes are visited in the reverse order of their making, which is topological: where only one is open, all paths
    go through it.
    """
    inside = _reaching(root, leaf)
    if root not in inside:
        return set()
    found, seen = set(), {root}
    heap: list[tuple[float, int, Any]] = [(-root._sequence_nr(), 0, root)]
    while len(heap) > 1 or not hasattr(heap[0][2], "variable"):
        _, _, node = heapq.heappop(heap)
        if not heap:
            found.add(node)
        for following, _ in node.next_functions:
            if following in inside and following not in seen:
                seen.add(following)
                # The leaf is opened where it is first met, and visited last.
                made = inf if hasattr(following, "variable") else -following._sequence_nr()
                heapq.heappush(heap, (made, len(seen), following))
    return found


def _producers(seen: Iterable[Seen]) -> list[Seen]:
    """Return for every tensor the outermost of the nested modules that hand it up bare.

    A tensor that was written to in between is another one: its node has changed.
    """
    first: dict[tuple[int, int], Seen] = {}
    for entry in seen:
        known = first.get((id(entry.tensor), id(entry.node)))
        nested = known is not None and known.call.path.startswith(entry.call.path + ".")
        if known is None or (nested and entry.bare) or (nested and not known.bare and not entry.bare):
            first[id(entry.tensor), id(entry.node)] = entry
    return list(first.values())


def _coverages(score: Tensor, entries: Sequence[tuple[Seen, Layout]]) -> list[float]:
    """Return which share of each map's places can change the score."""
    tensors = [entry.tensor for entry, _ in entries]
    grads = torch.autograd.grad(score, tensors, allow_unused=True) if tensors else ()
    return [
        0.0 if g is None else float((layout.to_maps(g) != 0).any(1).float().mean())
        for g, (_, layout) in zip(grads, entries, strict=True)
    ]


def projected(output: Any) -> tuple[Float[Tensor, ""], int]:  # noqa: ANN401
    """Return a random projection of the logits, so that no class is preferred, and how many classes there are.

    A backbone without a head has no logits: all that it returns is projected.
    """
    try:
        tensors = [logits_of(output)]
    except ModelError:
        tensors = [t for t in tree_leaves(output) if isinstance(t, Tensor) and t.is_floating_point()]
    generator = torch.Generator().manual_seed(1)
    terms = [(t * torch.randn(t.shape, generator=generator).to(t)).sum() for t in tensors]
    return torch.stack(terms).sum(), tensors[0].shape[1] if tensors[0].ndim == 2 else 0


def survey(module: nn.Module, x: Float[Tensor, "b c h w"], run: Callable[[Tensor], Any]) -> Catalogue:
    """Return the layers that can be explained for inputs like ``x``, by one traced pass over seeded noise.

    Raises
    ------
    LayerError
        No layer has a spatial map, or no gradient flows from the output to the input.
    """
    size = tuple(int(n) for n in x.shape[2:])
    noise = torch.randn(_TRACED, *x.shape[1:], generator=torch.Generator().manual_seed(0)).to(x)
    leaf = noise.requires_grad_()
    with torch.enable_grad(), watched(module) as seen:
        output = run(leaf)
        score, classes = projected(output)
    if score.grad_fn is None:
        raise LayerError("no gradient flows from the model's output to its input: name a layer yourself")
    entries = [
        (entry, layout)
        for entry in _producers(seen)
        if entry.node is not None
        and not isinstance(entry.module, nn.AdaptiveAvgPool2d | nn.AdaptiveMaxPool2d)
        and (layout := find_layout(tuple(entry.tensor.shape), _TRACED, size)) is not None
        and prod(layout.grid) > 1
    ]
    cuts = cut_nodes(score.grad_fn, leaf)
    coverages = _coverages(score, entries)
    dead = not any(coverages)
    # A model that looks at maxima covers few places anywhere.
    enough = min(_COVERED, max(coverages, default=0.0) / 2)
    candidates = tuple(
        Candidate(str(entry.call), layout.channels(entry.tensor.shape), layout, entry.node in cuts, coverage)
        for (entry, layout), coverage in zip(entries, coverages, strict=True)
        if dead or coverage >= enough
    )
    if not candidates:
        raise LayerError(
            f"no layer has a spatial map for inputs of {size[0]} x {size[1]}: give larger pictures or name a layer"
        )
    return Catalogue(candidates, _chosen(candidates, classes), dead)


def _chosen(candidates: Sequence[Candidate], classes: int) -> str:
    """Return the last layer that all paths go through, or, where that lies in the first half, the last at all.

    A map of as many channels as there are classes is the classifier itself before its pooling: the layer before it
    is meant, where there is one of the same size.
    """
    cuts = [i for i, candidate in enumerate(candidates) if candidate.cut]
    deep = [i for i in cuts if i >= len(candidates) // 2]
    order = [candidates[i] for i in deep or range(len(candidates))]
    last = order[-1]
    features = [c for c in order if c.channels != classes and c.layout.grid == last.layout.grid]
    return (features[-1] if last.channels == classes and features else last).name
