"""Losses that pull each map to one template: the paper's rule, and the authors' MATLAB code.

They are stated as gradients. Each is injected as sum(g x) with g held constant: what is returned has that gradient,
and its value means nothing.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from whence.errors import OptionError
from whence.interpretable.information import likelihood
from whence.models.masked import ranks
from whence.models.masked.templates import Beta, Centre, centres, cones, exact

# The authors' code divides scores by this before every exponential.
_A = 0.5


def _injected(gradient: Float[Tensor, "b k h w"], x: Float[Tensor, "b k h w"]) -> Float[Tensor, " k"]:
    """Return, per filter, what has the gradient given."""
    return (gradient.detach() * x).sum((0, 2, 3))


def paper(
    x: Float[Tensor, "b k h w"],
    positive: Bool[Tensor, "b k"],
    *,
    beta: float = 4.0,
    gain: float = 8.0,
    centre: Centre = "argmax",
) -> Float[Tensor, " k"]:
    """Return a loss with the gradient of eq. (4), cut down to the target template T^ and with its sign put right.

    dLoss_f / dx_ij = -p(T^) t^_ij p(x|T^) log p(x|T^) / p(x), where T^ is the template around the map's centre for a
    picture of the filter's category, and the negative template for any other.

    Eq. (4) as printed is the gradient of +MI; here maps are pulled to their template. It takes Z_T for a constant,
    so that even over all templates it is not the gradient of ``mutual_information``.

    Parameters
    ----------
    x
        Rectified maps, before the mask.
    positive
        Whether each picture is of the category of each filter.
    beta, gain
        As for ``mutual_information``.
    centre
        ``argmax``, as in the paper, or ``centroid``.
    """
    maps = exact(x)
    with torch.no_grad():
        p, at = likelihood(maps, beta, gain), centres(maps, centre)
        h, w = x.shape[2:]
        target = torch.where(positive, at[..., 0] * w + at[..., 1], p.templates - 1)
        force = (p.given.exp() * p.pmi).gather(2, target[..., None]) / p.templates
        t = cones(at, maps, beta, floor=-1.0).masked_fill(~positive[..., None, None], -1.0) * gain / (h * w)
        # The mean over the processes is taken of what is a sum over the pictures.
        gradient = -ranks.count() * force[..., None] * t
    return _injected(gradient, maps)


def _share(
    score: Float[Tensor, "b k"], other: Float[Tensor, "b k"], chosen: Bool[Tensor, "b k"]
) -> Float[Tensor, "b k"]:
    """Return g / mean(g), g = e^(score / a) (score - log Z + a), for the pictures chosen, 0 for the others.

    log Z = a log mean_b e^(other / a). A factor common to all g cancels out, so that none overflows.
    """
    log_z = _A * (ranks.logsumexp(other / _A) - ranks.pictures(other).log())
    largest = ranks.logsumexp((score / _A).masked_fill(~chosen, -torch.inf))
    g = torch.where(chosen, (score / _A - largest).exp() * (score - log_z + _A), 0.0)
    mean = ranks.summed(g.sum(0)) / ranks.summed(chosen.to(g).sum(0))
    return torch.where(chosen & (mean != 0), g / mean, 0.0)


def _weights(density: Float[Tensor, " k"] | None) -> tuple[Tensor | float, Tensor | float]:
    """Return the weights of positives and negatives: 0.5 over the share of each, or 1."""
    if density is None:
        return 1.0, 1.0
    if not bool(((density > 0) & (density < 1)).all()):
        raise OptionError(
            "density holds a share of 0 or 1: give, for each filter, the share of training pictures of its category, "
            "or density=None where there is one category"
        )
    return 0.5 / density, 0.5 / (1 - density)


def matlab(
    x: Float[Tensor, "b k h w"],
    positive: Bool[Tensor, "b k"],
    *,
    density: Float[Tensor, " k"] | None = None,
    beta: Beta = 4.0,
    centre: Centre = "centroid",
    flip: bool = True,
) -> Float[Tensor, " k"]:
    """Return a loss with the gradient that the authors' code adds, up to its factors, meant over the pictures.

    With s = mean_ij(x o T^) and a = 0.5, a positive picture gets -w_pos T^ g / mean(g) with
    g = e^(s / a) (s - log Z+ + a), any other w_neg g / mean(g) with s = -mean_ij(x), the same at every place. Means
    of g are over the positives, or the negatives, of the batch.

    Parameters
    ----------
    x
        Rectified maps, before the mask.
    positive
        Whether each picture is of the category of each filter.
    density
        For each filter the share of the training pictures that are of its category: w_pos is 0.5 over it, w_neg 0.5
        over the rest. None weighs both by 1, as the code does for a single category.
    beta
        The code's w_f of 2 is 4 n / (n - 1); it learns one a filter.
    centre
        ``centroid``, as in the code, or ``argmax``.
    flip
        As in the code, Z+ scores each map by the template of another filter and picture, both counted from the end
        (of this process's batch). Else by its own.

    Raises
    ------
    OptionError
        A density is not between 0 and 1.
    """
    maps = exact(x)
    w_pos, w_neg = _weights(density)
    with torch.no_grad():
        t = cones(centres(maps, centre), maps, beta, floor=-1.0)
        own = (maps * t).mean((2, 3))
        other = (maps * t.flip(0, 1)).mean((2, 3)) if flip else own
        empty = -maps.mean((2, 3))
        pull = w_pos * _share(own, other, positive)
        push = w_neg * _share(empty, empty, ~positive)
        gradient = push[..., None, None] - pull[..., None, None] * t
    return _injected(gradient, maps) / len(x)


def label_aware(
    x: Float[Tensor, "b k h w"],
    positive: Bool[Tensor, "b k"],
    *,
    density: Float[Tensor, " k"] | None = None,
    beta: Beta = 4.0,
    centre: Centre = "argmax",
) -> Float[Tensor, " k"]:
    """Return ``matlab`` without its flip, and with the paper's centre.

    A picture of the filter's category pulls the map to the map's template, any other pushes it down everywhere.
    """
    return matlab(x, positive, density=density, beta=beta, centre=centre, flip=False)


def all_positive(x: Float[Tensor, "b k h w"], *, beta: Beta = 4.0, centre: Centre = "argmax") -> Float[Tensor, " k"]:
    """Return ``label_aware`` without categories: every picture pulls each filter's map to the map's template.

    For classes that share parts; it needs no labels.
    """
    everywhere = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)
    return label_aware(x, everywhere, beta=beta, centre=centre)
