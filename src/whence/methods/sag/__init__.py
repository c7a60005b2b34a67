"""Structured attention graphs: small sets of patches that suffice for the decision, and what each one needs."""

from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from whence.errors import OptionError, SizeError
from whence.graphs.graph import AttentionGraph, Criterion
from whence.graphs.patches import PatchGrid, Style, bits
from whence.methods.masked import base_picture, notes
from whence.methods.numbers import at_least
from whence.methods.sag import reference
from whence.methods.sag.building import Terms
from whence.methods.sag.solving import SOLVERS, Problem, Variant
from whence.methods.sag.sufficient import Wanted
from whence.models.session import Session, chunk_size
from whence.models.targets import Fixed, TargetSpec
from whence.registry import method
from whence.results import Answer, Passes

_STATES = {
    "budget": "the search stopped when its budget was spent: there may be more sets, or smaller ones",
    "interrupted": "the search was interrupted: this is what it had found until then",
}
_NOT_WHOLE = "the whole picture itself does not suffice by this criterion: no set of patches was looked for"
_NOTHING_NEEDED = "with every patch taken away the picture still suffices: the decision does not come from its places"


def _cost(options: Mapping[str, Any], model: Any) -> Passes:  # noqa: ANN401
    """Return the most that one picture takes: the whole picture counts in the budget of each grid."""
    grids = 2 if options["refine"] > 1 else 1
    guide = reference.COST if options["variant"] == "reference" else Passes()
    return Passes(forward=1 + grids * (options["budget"] - 1)) + guide


@method(
    "sag",
    title="Structured attention graph",
    family="perturbation",
    paper="arXiv:2011.06733",
    needs="scores",
    reduce="sum",
    show="positive",
    cost=_cost,
)
def sag(
    model: Session,
    x: Float[Tensor, "b c h w"],
    target: Sequence[TargetSpec],
    *,
    grid: int = 7,
    refine: int = 1,
    style: Style = "tents",
    baseline: str = "black",
    threshold: float | int = 0.9,
    criterion: Criterion = "ratio",
    overlap: int = 1,
    roots: int = 3,
    expand: float | int = 0.4,
    certify: Literal["minimal", "minimum"] = "minimal",
    budget: int = 2000,
    variant: Variant = "surrogate",
    batch: int | None = None,
    seed: int = 0,
) -> Answer:
    """Small sets of patches each of which suffices for the decision; the map is the share of them that hold a patch.

    Shitole et al. 2021. ``.graphs`` holds for each picture the sets (its roots), and what is left of them without
    each patch. A set of patches of a ``grid``, shown over ``baseline`` in a ``style``, suffices by ``criterion``
    ratio where the class's probability (or a contrast's or function's own number) exceeds ``threshold`` times
    that of the whole picture, by top1 where the class is the model's first, or by both. Shown are the most sets,
    up to ``roots``, no two of which share more than ``overlap`` patches, the smallest ones first. Those of up to
    8 patches are proven minimal: the model was asked about all their subsets; ``certify="minimum"`` asks about
    all smaller sets of the grid, too. A node above ``expand`` of the whole picture's value is followed by what is
    left of it without each patch. ``refine`` cuts each patch into so many rows and columns, on which the roots
    are found anew (and may share as many more patches). The model is asked about at most ``budget`` sets of each
    grid. Ctrl-C ends the search with what it has found. ``variant="reference"`` runs the published search, guided
    by I-GOS.
    """
    at_least(grid=(grid, 1), refine=(refine, 1), overlap=(overlap, 0), roots=(roots, 1), expand=(expand, 0),
             budget=(budget, 2), batch=(batch, 1))  # fmt: skip
    places, fine = _grids((x.shape[2], x.shape[3]), grid, refine, style)
    _check(threshold, expand, certify, refine, variant)
    output = model.run(x)
    score, settled = model.score(output, target), model.fixed(output, target)
    measured = [_by_probability(one) for one in settled]
    if criterion != "ratio" and not all(isinstance(one, Fixed) for one in measured):
        raise OptionError(f"criterion={criterion}: the target is a function, which has no class to stay first")
    if criterion != "ratio" and model.scale.activation == "sigmoid":
        raise OptionError(f"criterion={criterion}: the classes of a sigmoid model have no first one, take ratio")
    terms = Terms(baseline, float(threshold), criterion, overlap, float(expand))
    wanted = Wanted(roots, overlap, certify == "minimum")
    base = base_picture(model, x, baseline, seed)
    problem = Problem(model, x, base, output, measured, terms, wanted, budget, batch or chunk_size(x), seed)
    graphs = SOLVERS[variant](problem, places, fine)
    values = torch.stack([_shares(graph, (fine or places).side) for graph in graphs]).to(score.value)
    said = zip(notes(baseline, settled, measured), graphs, strict=True)
    told = tuple((*own, *_said(graph)) for own, graph in said)
    return Answer(values[:, None], score, graphs=tuple(graphs), style=style, notes=told)


def _by_probability(target: TargetSpec) -> TargetSpec:
    """Return a settled target as it is measured: of a class only the probability has shares."""
    if isinstance(target, Fixed) and target.measure != "contrast":
        return Fixed("probability", target.classes)
    return target


def _grids(size: tuple[int, int], grid: int, refine: int, style: Style) -> tuple[PatchGrid, PatchGrid | None]:
    """Return the grid of patches, and the finer one if there is one.

    Raises
    ------
    SizeError
        One has more patches a side than the input has places.
    """
    if grid * refine > min(size):
        raise SizeError(
            f"grid={grid}, refine={refine} on inputs of {size[0]} x {size[1]}: a side has at most {min(size)} patches"
        )
    return PatchGrid(grid, size, style), PatchGrid(grid * refine, size, style) if refine > 1 else None


def _check(threshold: float | int, expand: float | int, certify: str, refine: int, variant: Variant) -> None:
    if not isfinite(expand):
        raise OptionError(f"expand={expand}: give a share of the whole picture's value")
    if not 0 < threshold < 1:
        raise OptionError(
            f"threshold={threshold}: give a share of the whole picture's value, more than 0, less than 1"
        )
    if variant == "reference" and (expand, certify, refine) != (0.4, "minimal", 1):
        raise OptionError(
            "variant=reference is the published search, which has expand=0.4, certify=minimal, refine=1"
        )
    if certify == "minimum" and refine > 1:
        raise OptionError("certify=minimum asks about all smaller sets, of which a finer grid has too many: refine=1")


def _shares(graph: AttentionGraph, side: int) -> Float[Tensor, "g g"]:
    """Return the share of the roots that hold each patch, on a grid of ``side``: zero where there is no root."""
    held = graph.places.indicators([bits(root.patches) for root in graph.roots])
    shares = (held.sum(0) / max(1, len(graph.roots))).reshape(graph.places.side, graph.places.side)
    # A search that ended before the finer grid has its patches in blocks of that one's.
    each = side // graph.places.side
    return shares.repeat_interleave(each, 0).repeat_interleave(each, 1)


def _said(graph: AttentionGraph) -> tuple[str, ...]:
    """Say of a graph what its reader must know: where it is not whole, and where it says nothing."""
    stopped = (_STATES[graph.state],) if graph.state in _STATES else ()
    if not graph.suffices(graph.evaluated[graph.places.whole]):
        return (*stopped, _NOT_WHOLE)
    return (*stopped, _NOTHING_NEEDED) if graph.roots and not graph.roots[0].patches else stopped
