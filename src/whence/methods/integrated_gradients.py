"""Integrated Gradients: gradients summed along a path from a baseline to the picture."""

from collections.abc import Mapping, Sequence
from typing import Any

from jaxtyping import Float
from torch import Tensor

from whence.errors import OptionError
from whence.methods import paths
from whence.methods.numbers import at_least
from whence.methods.path_integral import PathIntegral
from whence.methods.paths import Path, PathName
from whence.methods.quadrature import LEAST_REFINED, NESTED, Rule, refinements
from whence.models.session import Session
from whence.models.targets import TargetSpec
from whence.pictures.baselines import BASELINES, make_baseline
from whence.registry import method
from whence.results import Answer, Passes

Baselines = str | Tensor | tuple[str | Tensor, ...] | None
_DEFAULT = "zeros"


def _names(baseline: Any) -> tuple[str | Tensor, ...]:  # noqa: ANN401  (options of a plan are unchecked)
    return baseline if isinstance(baseline, tuple) else (_DEFAULT if baseline is None else baseline,)


def _cost(options: Mapping[str, Any], model: object) -> Passes:
    """Return the most passes: the picture, the starts, and every point on the way from each of them."""
    names = _names(options["baseline"])
    random = [isinstance(name, str) and name in BASELINES and BASELINES[name].random for name in names]
    starts = sum(options["draws"] if drawn else 1 for drawn in random)
    steps = options["steps"]
    points = steps + 1 if options["path"] == "guided" else refinements(options["rule"], steps, options["tol"])[-1]
    return Passes(forward=1 + starts * (1 + points), backward=starts * points)


@method(
    "integrated-gradients",
    title="Integrated Gradients",
    family="propagation",
    paper="arXiv:1703.01365",
    needs="gradients",
    reduce="sum",
    show="signed",
    cost=_cost,
)
def integrated_gradients(
    model: Session,
    x: Float[Tensor, "b c h w"],
    target: Sequence[TargetSpec],
    *,
    baseline: Baselines = None,
    path: PathName | Path = "straight",
    rule: Rule = "graded",
    steps: int = 39,
    tol: float | int | None = 0.02,
    draws: int = 5,
    sigma: float | int | None = None,
    fraction: float | int = 0.25,
    distance: float | int = 0.02,
    seed: int = 0,
) -> Answer:
    """Gradients summed along a path from a baseline to the picture, times the way gone.

    Sundararajan, Taly, Yan 2017, equation 1: (x - x') times the integral over alpha from 0 to 1 of the gradient at
    x' + alpha (x - x'). The map's sum is F(x) - F(x') (proposition 1), and ``residual`` says how far it misses that,
    as a part of |F(x) - F(x')|, or as it is where the two scores are equal to rounding.

    ``baseline`` is one or several of the table's names, or tensors [C, H, W] or [B, C, H, W] as the model takes them;
    several, and ``draws`` of the random ones, are averaged over; None is ``zeros``. ``path`` is ``straight``,
    ``guided`` (Kapishnikov et al. 2021: the ``fraction`` of values with the smallest gradients moves first, none
    farther than ``distance`` from the straight line), ``blur`` (Xu et al. 2020, from the picture blurred by ``sigma``
    pixels; it takes no baseline), or a function (x, baseline, alpha) -> points, see ``whence.methods.paths.Path``.

    At most ``steps`` points are taken, by ``rule``. The nested rules ``graded`` and ``midpoint`` begin with few and
    triple them until the map changes by at most ``tol`` (relative, L2), each picture for itself; without ``tol``, and
    with the other rules, it is ``steps`` at once. The guided path takes ``steps`` steps one after the other, each
    with the mean of the gradients at its ends.
    """
    at_least(steps=(steps, 1), draws=(draws, 1), tol=(tol, 0), sigma=(sigma, 0))
    if not 0 < fraction <= 1:
        raise OptionError(f"fraction={fraction}: give more than 0 and at most 1")
    if not 0 <= distance <= 1:
        raise OptionError(f"distance={distance}: give 0 to 1")
    if path == "blur" and baseline is not None:
        raise OptionError("the blur path begins at the blurred picture: leave baseline away, or take another path")
    model.expect(len(x) * steps)
    output = model.run(x, folded=model.many)
    score, settled = model.score(output, target), model.fixed(output, target)
    way = paths.blur(sigma) if path == "blur" else paths.straight if isinstance(path, str) else path
    made = [x[None]] if path == "blur" else [_made(model, x, one, draws, sigma, seed) for one in _names(baseline)]
    integral = PathIntegral.over(model, x, made, way, settled)
    notes: tuple[tuple[str, ...], ...] = ()
    if path == "guided":
        values = integral.guided(steps, fraction, distance)
    else:
        values, change = integral.refined(rule, refinements(rule, steps, tol), tol)
        notes = _notes(change, rule, steps, tol, len(x))
    return Answer(values, score, residual=integral.residual(values, score.value), notes=notes)


def _made(
    model: Session, x: Float[Tensor, "b c h w"], one: str | Tensor, draws: int, sigma: float | int | None, seed: int
) -> Float[Tensor, "n b c h w"]:
    """Return one of the table's baselines, or the one given, for every picture."""
    if isinstance(one, str):
        width = None if sigma is None else float(sigma)
        return make_baseline(one, x, model.pixels, sigma=width, draws=draws, seed=seed)
    if one.shape not in (x.shape, x.shape[1:], (1, *x.shape[1:])):
        raise OptionError(
            f"a baseline of shape {list(one.shape)} for pictures of {list(x.shape[1:])}: "
            "give [C, H, W], or one a picture, [B, C, H, W], as the model takes them"
        )
    model.finite(one.expand_as(x), "the baseline")
    return one.detach().to(x).expand_as(x)[None]


def _notes(
    change: Float[Tensor, " b"] | None, rule: Rule, steps: int, tol: float | int | None, pictures: int
) -> tuple[tuple[str, ...], ...]:
    """Say where the points were used up before the map stood still, or were too few to see whether it does."""
    if tol is None or rule not in NESTED:
        return ()
    if change is None:
        few = f"too few steps to see whether the map stands still: steps={steps}, give at least {LEAST_REFINED}"
        return ((few,),) * pictures
    return tuple(
        (f"the map still changed by {far:.1%} when its points were tripled last: steps={steps} ended it",)
        if far > tol
        else ()
        for far in change.tolist()
    )
