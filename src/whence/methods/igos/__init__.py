"""I-GOS, I-GOS+ and I-GOS++: masks optimised along integrated gradients, for deletion and for insertion."""

from collections.abc import Callable, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from whence.errors import OptionError
from whence.methods.igos.objective import TERMS
from whence.methods.igos.search import Search
from whence.methods.igos.settings import Variant, cost_of, settings
from whence.methods.igos.solving import SOLVERS, Problem, Solved
from whence.methods.masked import base_picture, by_probability, grid_side, notes
from whence.models.session import Session, chunk_size
from whence.models.targets import Fixed, TargetSpec
from whence.registry import method
from whence.results import Answer

# Along a path on which the class has less than this share of its probability there is nothing to follow.
LOST = 0.01
# Masks that moved by less than this have not moved.
STILL = 1e-4


def _silenced(solved: Solved) -> Float[Tensor, "b 1 s s"]:
    """Return the map, zero where the search found nothing: the order of roundings is no evidence."""
    return torch.where((solved.moved < STILL)[:, None, None, None], 0, solved.joint)


def _parts(solved: Solved) -> dict[str, Tensor]:
    """Return the masks by name, where there are two and their product."""
    if solved.each.shape[1] == 1:
        return {}
    return {"deletion": solved.each[:, :1], "insertion": solved.each[:, 1:], "combined": solved.joint}


def _initial(initial: Tensor | None, x: Float[Tensor, "b c h w"], side: int) -> Float[Tensor, "b 1 s s"] | None:
    """Return the masks to start from, [s, s] or [B, 1, s, s] of any side, for every picture."""
    if initial is None:
        return None
    if initial.ndim not in (2, 4) or (initial.ndim == 4 and initial.shape[1] != 1):
        raise OptionError(f"initial of shape {list(initial.shape)}: give one mask [s, s], or [B, 1, s, s]")
    masks = initial.to(x).reshape(-1, 1, *initial.shape[-2:]).expand(len(x), -1, -1, -1)
    return masks if masks.shape[2:] == (side, side) else F.adaptive_avg_pool2d(masks, side)


def _said(
    own: Sequence[tuple[str, ...]], measured: Sequence[TargetSpec], solved: Solved, whole: Float[Tensor, " b"]
) -> tuple[tuple[str, ...], ...]:
    """Say of each picture where its path holds nothing to follow, and where its masks never moved."""
    along = solved.paths.amax(1)

    def more(row: int) -> tuple[str, ...]:
        is_probability = isinstance(found := measured[row], Fixed) and found.measure == "probability"
        lost = is_probability and float(along[row]) < LOST * float(whole[row])
        on_path = (
            f"along the path the score is {float(along[row]):.2g} where the picture has {float(whole[row]):.2g}: "
            "there is nothing to follow, and no map to be trusted; take less noise (sigma) or another baseline"
        )
        stuck = "the mask never moved from its start: the search found nothing to hold on to"
        return (*((on_path,) if lost else ()), *((stuck,) if solved.moved[row] < STILL else ()))

    return tuple((*told, *more(row)) for row, told in enumerate(own))


def _register(name: str, title: str, paper: str, about: str) -> Callable[..., Answer]:
    """Enter one of the three, which differ in their terms alone."""
    terms = TERMS[name]

    def optimised(
        model: Session,
        x: Float[Tensor, "b c h w"],
        target: Sequence[TargetSpec],
        *,
        variant: Variant = "area",
        iterations: int | None = None,
        steps: int | None = None,
        mask: int | None = None,
        baseline: str = "blurred",
        l1: int | float | None = None,
        tv: int | float | None = None,
        sigma: int | float | None = None,
        search: Search | None = None,
        rate: int | float | None = None,
        direction: Literal["integrated", "gradient"] | None = None,
        initial: Tensor | None = None,
        batch: int | None = None,
        seed: int = 0,
    ) -> Answer:
        given = {
            "variant": variant, "iterations": iterations, "steps": steps, "mask": mask, "l1": l1, "tv": tv,
            "sigma": sigma, "search": search, "rate": rate, "direction": direction, "batch": batch,
        }  # fmt: skip
        own, size = settings(given, terms), (x.shape[2], x.shape[3])
        output = model.run(x)
        score, settled = model.score(output, target), model.fixed(output, target)
        measured, side = by_probability(settled), grid_side(mask, size)
        solved = SOLVERS[variant](
            Problem(
                model, x, base_picture(model, x, baseline, seed), measured, terms, own, side,
                _initial(initial, x, side), batch or chunk_size(x), seed,
            )
        )  # fmt: skip
        whole = model.score(output, measured).value.detach()
        said = _said(notes(baseline, settled, measured), measured, solved, whole)
        ran = {name: value for name, value in vars(own).items() if value is not None} | {"mask": side}
        return Answer(_silenced(solved), score, parts=_parts(solved), notes=said, options=ran)

    optimised.__doc__ = f"{about}\n\n{_OPTIONS}"
    register = method(
        name, title=title, family="perturbation", paper=paper, needs="gradients", reduce="sum", show="positive",
        cost=cost_of(terms),
    )  # fmt: skip
    return register(optimised)


_OPTIONS = """\
    F = sum over the terms of a path score P, which says how much of the class's probability is left on the way
    from the picture to one that a mask has changed. I-GOS takes away; I-GOS+ takes away and puts in by one
    mask; I-GOS++ has a mask for each and adds their product, which is the map (``.parts`` holds all three).
    ``variant="area"`` takes the path over the area, most important cells first, at ``steps`` areas a term in
    each of ``iterations`` steps with momentum at ``rate``, and ``tv`` times the total variation: then P
    is the area under the curve of deletion or insertion. ``variant="paper"`` dims the mask as a whole, P = 1/S
    sum_k p((k/S) m) under noise of ``sigma`` (in units of the pixel range), with ``l1`` times the mean of 1 - m
    and the (bilateral) total variation; ``direction="gradient"`` takes the plain gradient at the masked picture
    in place of the path's integrated one, and ``search`` says whether steps are searched at one ``point`` or
    along the whole ``path``, or taken by Nesterov's method (``nag``). ``variant="igos-pp"`` does as the I-GOS++
    repository does, noise in units of the input included. ``mask`` is the side of the masks (28, or the
    picture's side where that is less), ``initial`` masks to start from, high where it matters. A class is
    measured by its probability; any other target by its own number."""
_register(
    "igos",
    "I-GOS",
    "arXiv:1905.00954",
    "The mask that takes the class away, found along integrated gradients. Qi et al. 2020.",
)
_register(
    "igos+",
    "I-GOS+",
    "arXiv:2012.15783",
    "The mask that takes the class away and gives it back, found along integrated gradients. Khorram et al. 2021.",
)
_register(
    "igos++",
    "I-GOS++",
    "arXiv:2012.15783",
    "The masks that take the class away, and give it back, found along integrated gradients. Khorram et al. 2021.",
)
