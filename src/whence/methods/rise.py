"""RISE: random masks, each weighed by the score of the picture that it leaves."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from whence.errors import OptionError
from whence.methods.masked import base_picture, blended, by_probability, notes
from whence.methods.numbers import at_least
from whence.methods.reference import Reference, copies
from whence.models.session import Session, chunk_size
from whence.models.targets import TargetSpec
from whence.registry import method
from whence.results import Answer, Passes

# Above this share of noise a map's pattern is not to be believed.
_MOSTLY_NOISE = 0.5


@dataclass(frozen=True, eq=False)
class MaskGrids:
    """Random masks as the coarse grids that they are stretched from, and where each is cut out."""

    cells: Bool[Tensor, "n s s"]
    top: Int[Tensor, " n"]
    left: Int[Tensor, " n"]
    size: tuple[int, int]

    @classmethod
    def draw(cls, count: int, grid: int, keep: int | float, size: tuple[int, int], seed: int) -> "MaskGrids":
        """Draw masks on the CPU: each cell is kept with probability ``keep``, the shift is less than a cell."""
        generator = torch.Generator().manual_seed(seed)
        cells = torch.rand(count, grid, grid, generator=generator) < keep
        top, left = (torch.randint(-(-side // grid), (count,), generator=generator) for side in size)
        return cls(cells, top, left, size)

    def masks(self, numbers: Int[Tensor, " m"], like: Float[Tensor, "..."]) -> Float[Tensor, "m h w"]:
        """Return the masks with the given numbers: a grid of s cells is stretched, bilinear, over s + 1 cells."""
        cells = self.cells[numbers].to(like)
        # Bilinear stretching works on rows and columns in turn, and each mask cuts out its own rows of it.
        down, across = (
            _stretched(cells.shape[1], side, start[numbers]).to(like)
            for side, start in zip(self.size, (self.top, self.left), strict=True)
        )
        return down @ cells @ across.transpose(1, 2)


def _stretched(cells: int, side: int, start: Int[Tensor, " m"]) -> Float[Tensor, "m side s"]:
    """Return the weights of a grid's cells at each of the ``side`` places from ``start`` on."""
    length = (cells + 1) * -(-side // cells)
    weights = F.interpolate(torch.eye(cells, dtype=torch.float64)[None], size=length, mode="linear")[0].T
    return weights[start[:, None] + torch.arange(side)]


@dataclass(eq=False)
class _Sums:
    """Running sums over the masks: of the score times the mask, and of the squares of what it says of each place."""

    scored: Float[Tensor, "b h w"]
    squared: Float[Tensor, "b h w"]

    def add(self, scores: Float[Tensor, "m b"], masks: Float[Tensor, "m h w"]) -> None:
        """Add the scores of all pictures under some masks."""
        masks = masks.to(scores)
        # What a mask says of a place is said against the other places: a share common to all tells none apart.
        beside = masks - masks.mean((1, 2), keepdim=True)
        self.scored += torch.einsum("mb,mhw->bhw", scores, masks)
        self.squared += torch.einsum("mb,mhw->bhw", scores**2, beside**2)

    def noise(self, count: int) -> Float[Tensor, " b"]:
        """Return the standard error of a place's value against the other places, relative to how these differ."""
        mean = self.scored / count
        beside = mean - mean.mean((1, 2), keepdim=True)
        error = ((self.squared / count - beside**2).mean((1, 2)).clamp(min=0) / (count - 1)).sqrt()
        spread = (beside**2).mean((1, 2)).sqrt()
        return error / spread.clamp(min=torch.finfo(spread.dtype).tiny)


@method(
    "rise",
    title="RISE",
    family="perturbation",
    paper="arXiv:1806.07421",
    needs="scores",
    reduce="sum",
    show="positive",
    cost=lambda options, model: Passes(forward=1 + options["samples"]),
)
def rise(
    model: Session,
    x: Float[Tensor, "b c h w"],
    target: Sequence[TargetSpec],
    *,
    samples: int = 4000,
    grid: int = 7,
    keep: int | float = 0.5,
    baseline: str = "zeros",
    batch: int | None = None,
    seed: int = 0,
) -> Answer:
    """Random masks, each weighed by the score of the picture that it leaves.

    Petsiuk et al. 2018, section 3: S = 1 / (N p) sum_i f(x o m_i) m_i over N = ``samples`` masks that keep each cell
    of a ``grid`` with probability p = ``keep``. A class is measured by its probability, as in the paper; any other
    target by its own number. ``baseline`` stands where a mask takes the picture away. A score that no mask changes
    gives a zero map. ``residual`` is the noise: the standard error of a place's value against the other places,
    relative to the standard deviation over the places.
    """
    at_least(samples=(samples, 2), grid=(grid, 1), batch=(batch, 1))
    if not 0 < keep < 1:
        raise OptionError(f"keep={keep}: give the share of cells that a mask keeps, more than 0 and less than 1")
    # Changes are told from rounding: the whole picture goes the way that the masked ones go.
    model.expect(samples * len(x))
    output = model.run(x, folded=model.many)
    score, settled = model.score(output, target), model.fixed(output, target)
    measured = by_probability(settled)
    whole = model.score(output, measured).value
    base, size = base_picture(model, x, baseline, seed), batch or chunk_size(x)
    grids = MaskGrids.draw(samples, grid, keep, (x.shape[2], x.shape[3]), seed)
    zeros = whole.new_zeros(len(x), *x.shape[2:])

    def unmasked(rows: Int[Tensor, " n"]) -> Float[Tensor, "n c h w"]:
        return blended(x[rows], base[rows], x.new_ones(len(rows), 1, *x.shape[2:]))

    sums, changes = _Sums(zeros, zeros.clone()), zeros.new_zeros(len(x), dtype=torch.bool)
    reference = Reference.of(model, output, whole, size, copies(model, measured, unmasked))
    for numbers in torch.split(torch.arange(samples), size):
        masks = grids.masks(numbers, x)
        rows = torch.arange(len(x)).repeat(len(masks))

        def masked(at: Int[Tensor, " n"], masks: Tensor = masks, rows: Tensor = rows) -> Float[Tensor, "n c h w"]:
            return blended(x[rows[at]], base[rows[at]], masks[at // len(x), None])

        scores = model.scores(masked, rows, measured, size)
        sums.add(scores.reshape(-1, len(x)), masks)
        changes |= reference.drops(rows, scores).reshape(-1, len(x)).any(0)
    values = sums.scored / (samples * keep) * changes[:, None, None]
    noise = sums.noise(samples) * changes
    said = zip(notes(baseline, settled, measured), noise.tolist(), strict=True)
    noisy = "the map is mostly noise of its masks (residual {:.2f}): take more than samples={}"
    told = tuple((*own, noisy.format(share, samples)) if share > _MOSTLY_NOISE else own for own, share in said)
    return Answer(values[:, None], score, residual=noise, notes=told)
