"""Where in the picture each cell of a layer's map looks, found by experiment, whatever the layers are made of.

Some rows of the picture are set to NaN, and the rows of the map that turn to NaN are those that see any of them; the
same for columns.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from whence.interpretable.measures.layer import layer_of
from whence.models.classifier import Classifier
from whence.models.session import Session, chunk_size, move, opened
from whence.models.taps import recorded


@dataclass(frozen=True, eq=False)
class ReceptiveFields:
    """The middles of the cells' receptive fields in pixels of the input; the first pixel's middle is 0.

    Attributes
    ----------
    rows, columns
        For each row and each column of the map. Padding is counted as picture, so that a middle may lie outside.
    size
        Height and width of a field that no border cuts, in pixels. None where it could not be told: the fields are
        larger than the picture, global as with attention or squeeze and excitation, or not evenly spread. Such an
        axis has its middles spread evenly over the picture.
    """

    rows: Float[Tensor, " h"]
    columns: Float[Tensor, " w"]
    size: tuple[int, int] | None

    @property
    def exact(self) -> bool:
        """Whether the middles were found along both axes, none of them assumed."""
        return self.size is not None

    def centres(self, at: Int[Tensor, "*shape 2"]) -> Float[Tensor, "*shape 2"]:
        """Return the (row, column) in the picture of the middles of cells given as (row, column) in the map."""
        return torch.stack((self.rows[at[..., 0]], self.columns[at[..., 1]]), -1)


def receptive_fields(
    model: Classifier | nn.Module, x: Float[Tensor, "b c h w"], layer: str | None = None
) -> ReceptiveFields:
    """Return the receptive fields of a layer's cells.

    It takes up to 2 (H + W) forward passes, for layers of few cells far fewer.

    Parameters
    ----------
    model
        Run in evaluation mode, and not changed.
    x
        Inputs of the size that is asked about; the first one is used.
    layer
        A path that ``whence layers`` lists. None takes the masked maps of an ``Interpretable``, and of any other
        model the layer that ``whence layers`` marks.

    Raises
    ------
    LayerError
        The layer does not exist, never runs, or has no map.
    NotFiniteError
        The input holds NaN or infinity itself.
    """
    classifier = model if isinstance(model, Classifier) else Classifier(model)
    with opened(classifier) as session:
        picture = move(classifier, x[:1])
        session.finite(picture, "the input")
        name = layer_of(session, picture, layer)
        rows, height = _middles(*_ends(session, picture, name, 2), picture.shape[2])
        columns, width = _middles(*_ends(session, picture, name, 3), picture.shape[3])
    return ReceptiveFields(rows, columns, None if height is None or width is None else (height, width))


def _ends(
    session: Session, picture: Tensor, layer: str, axis: int
) -> tuple[Int[Tensor, " cells"], Int[Tensor, " cells"]]:
    """Return the first and the last line of the picture along an axis that each line of the map sees.

    What sees nothing but padding has the line behind the picture as its first, and the one before it as its last.
    """
    n = picture.shape[axis]

    def reached(lines: Int[Tensor, " n"], backwards: bool) -> Bool[Tensor, "n cells"]:
        """Return which lines of the map see any of the picture's up to each of the lines given."""
        found = []
        for some in torch.split(lines, chunk_size(picture)):
            upto = torch.arange(n) <= some[:, None]
            spoilt = (upto.flip(1) if backwards else upto).to(picture.device)
            probes = picture.movedim(axis, -1).where(~spoilt[:, None, None], torch.nan).movedim(-1, axis)
            with recorded(session.module, [layer], gradients=False) as kept:
                session.run(probes)
            maps = session.layout(layer, kept[layer], probes).to_maps(kept[layer])
            found.append(maps.isnan().any(1).any(4 - axis).cpu())
        return torch.cat(found)

    return _first(partial(reached, backwards=False), n), n - 1 - _first(partial(reached, backwards=True), n)


def _first(reached: Callable[[Int[Tensor, " n"]], Bool[Tensor, "n cells"]], n: int) -> Int[Tensor, " cells"]:
    """Return the first of n lines that reaches each cell, n where none does; all cells are bisected together."""
    (seen,) = reached(torch.tensor([n - 1]))
    high = torch.where(seen, n - 1, n)
    low = torch.where(seen, 0, n)
    while len(left := (low < high).nonzero().flatten()):
        middle = (low[left] + high[left]) // 2
        asked, which = torch.unique(middle, return_inverse=True)
        hit = reached(asked)[which, left]
        high[left] = torch.where(hit, middle, high[left])
        low[left] = torch.where(hit, low[left], middle + 1)
    return low


def _middles(
    first: Int[Tensor, " cells"], last: Int[Tensor, " cells"], n: int
) -> tuple[Float[Tensor, " cells"], int | None]:
    """Return the middles of all fields along an axis of n lines, and their length where that can be told.

    Fields that reach beyond what the layer sees of the picture are cut there, or begin later where they have gaps.
    All are taken to be moved copies of those that are whole at one end; what is seen of the others must agree.
    """
    cells = len(first)
    each, evenly = torch.arange(cells), (torch.arange(cells).double() + 0.5) * n / cells - 0.5
    seen = first < n
    lowest, highest = first.min(), last.max()
    begun, ended = (seen & (first > lowest)).nonzero().flatten(), (seen & (last < highest)).nonzero().flatten()
    if not len(begun) or not len(ended) or max(len(begun), len(ended)) < 2:
        return evenly, None
    # Far from the border at which fields are cut.
    b, e = int(begun[-1]), int(ended[0])
    stride = first[b] - first[begun[-2]] if len(begun) > 1 else last[ended[1]] - last[e]
    starts, ends = first[b] + stride * (each - b), last[e] + stride * (each - e)
    whole, wholly = (seen & (edge >= lowest) & (edge <= highest) for edge in (starts, ends))
    agree = torch.equal(starts[whole], first[whole]) and torch.equal(ends[wholly], last[wholly])
    if stride < 1 or not agree:
        return evenly, None
    return (starts + ends).double() / 2, int(ends[0] - starts[0]) + 1
