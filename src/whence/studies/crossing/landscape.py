"""The landscape of models: by the likeness that their cross-testing spans, and how sure each place is."""

from collections.abc import Iterator
from importlib import import_module
from math import atan2, sqrt
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from whence.errors import MissingExtraError, OptionError
from whence.reports.crossing_results import Ellipse, Landscape, Point
from whence.studies.crossing.matrix import Judgements, mean

RESAMPLES = 1000
# What is less, of the largest likeness, is rounding.
_ROUNDING = 1e-9
# Of the chi-squared distribution of 1 and of 2 degrees of freedom, the value that 95 % lie below.
_REACH = {1: 3.841, 2: 5.991}


def likeness(scores: Float[Tensor, "m m"], better: str = "higher", normalised: bool = False) -> Float[Tensor, "m m"]:
    """Return K = (S + S^T) / 2, or K_ab / sqrt(K_aa K_bb).

    Where lower is better, 1 - S stands for S, so that more is more alike. NaN where a diagonal entry by which is to
    be divided is not positive.
    """
    s = scores if better == "higher" else 1 - scores
    k = (s + s.T) / 2
    if not normalised:
        return k
    own = torch.where(k.diagonal() > 0, k.diagonal(), torch.nan).sqrt()
    return k / own[:, None] / own


def centred(k: Float[Tensor, "m m"]) -> Float[Tensor, "m m"]:
    """Return the likeness with the mean taken off every row and column."""
    return k - k.mean(0) - k.mean(1, keepdim=True) + k.mean()


def eigenvalues(k: Float[Tensor, "m m"]) -> Float[Tensor, " m"]:
    """Return those of the centred likeness, the largest first; 0 where they are rounding."""
    found = torch.linalg.eigvalsh(centred(k)).flip(0)
    return torch.where(found.abs() > _ROUNDING * k.abs().max(), found, 0.0)


def coordinates(k: Float[Tensor, "m m"], dimensions: int) -> Float[Tensor, "m d"]:
    """Return the models' places: eigenvectors of the centred likeness, times the square roots of the eigenvalues.

    Kernel PCA (Schoelkopf et al. 1998); axes whose eigenvalue is not positive hold 0.
    """
    places = torch.zeros(len(k), dimensions, dtype=torch.float64)
    count = min(dimensions, int((eigenvalues(k) > 0).sum()))
    if count:
        pca = _library("sklearn.decomposition").KernelPCA(count, kernel="precomputed", eigen_solver="dense")
        places[:, :count] = torch.from_numpy(pca.fit_transform(k.numpy()))
    return places


def landscape(of: Judgements, *, normalised: bool = False, resamples: int = RESAMPLES, seed: int = 0) -> Landscape:
    """Return the landscape of models.

    The ellipses are those of resampled pictures, whose landscapes are turned onto that of all by Procrustes' rotation
    or reflection; never stretched, for the size of a landscape means something.

    Raises
    ------
    OptionError
        There is a single model, a pair that no picture tells of, or no axis on which the models differ.
    """
    if len(of.models) < 2:
        raise OptionError("a landscape needs at least two models: cross-test more of them")
    k = _known(mean(of.scores.double()), of.metric.better, normalised)
    values = eigenvalues(k)
    dimensions = min(2, int((values > 0).sum()))
    if not dimensions:
        raise OptionError("the models do not differ in what they look at as distances would: there is no landscape")
    whole = coordinates(k, dimensions)
    found = list(_resampled(of, whole, normalised, resamples, seed))
    sizes = values.abs() / values.abs().sum()
    return Landscape(
        points=tuple(
            Point(name, _pair(whole[i]), _ellipse(torch.stack([one[i] for one in found])) if len(found) > 1 else None)
            for i, name in enumerate(of.models)
        ),
        dimensions=dimensions,
        shares=_pair(torch.where(values > 0, sizes, 0.0)[:dimensions]),
        negative=float(sizes[values < 0].sum()),
        normalised=normalised,
        resamples=len(found),
    )


def _known(scores: Float[Tensor, "m m"], better: str, normalised: bool) -> Float[Tensor, "m m"]:
    """Return the likeness, which has a number for every pair."""
    if bool(scores.isnan().any()):
        raise OptionError("of some pair of models no picture tells anything: there is no landscape")
    k = likeness(scores, better, normalised)
    if bool(k.isnan().any()):
        raise OptionError(
            "a model's own maps do not help it, and likeness cannot be divided by its likeness with itself: "
            "take the landscape without normalising"
        )
    return k


def _resampled(
    of: Judgements, whole: Float[Tensor, "m d"], normalised: bool, resamples: int, seed: int
) -> Iterator[Float[Tensor, "m d"]]:
    """Yield the places that pictures drawn anew give, turned onto those of all; none below two pictures."""
    scores, generator = of.scores.double(), torch.Generator().manual_seed(seed)
    procrustes = _library("scipy.linalg").orthogonal_procrustes
    for _ in range(resamples if len(scores) > 1 else 0):
        drawn = torch.randint(len(scores), (len(scores),), generator=generator)
        k = likeness(mean(scores[drawn]), of.metric.better, normalised)
        if not bool(k.isnan().any()):
            places = coordinates(k, whole.shape[1])
            turn, _ = procrustes(places.numpy(), whole.numpy())
            yield places @ torch.from_numpy(turn)


def _ellipse(places: Float[Tensor, "r d"]) -> Ellipse:
    """Return where 95 % of places lie, if they are spread as a normal distribution is."""
    if places.shape[1] == 1:
        return Ellipse(_pair(places.mean(0)), (sqrt(_REACH[1] * float(places.var())), 0.0), 0.0)
    spread, axes = torch.linalg.eigh(places.T.cov())
    short, long = (spread.clamp(min=0) * _REACH[2]).sqrt().tolist()
    return Ellipse(_pair(places.mean(0)), (long, short), atan2(float(axes[1, 1]), float(axes[0, 1])))


def _pair(values: Float[Tensor, " d"]) -> tuple[float, float]:
    """Return two numbers, the second 0 on a line."""
    first, second = (*values.tolist(), 0.0)[:2]
    return first, second


def _library(name: str) -> Any:  # noqa: ANN401  (a module of a library without types)
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        raise MissingExtraError("scikit-learn is needed for the landscape: pip install 'whence[study]'") from error
