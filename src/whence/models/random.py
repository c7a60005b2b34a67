"""Weights drawn from a seed: an untrained model in which every part is alive."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import sqrt

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Generator, Tensor, nn

from whence.errors import ModelError

_BatchNorm = nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d

# A rectifier lets half of the power pass: a convolution makes up for it, a linear layer stands for itself. Gates
# (squeeze and excitation) stay near their middle, or else a strong picture grows from block to block.
_CONVOLUTION, _LINEAR, _GATE = 2.0, 1.0, 0.2
_BIAS = 0.02
# A constant below this is a branch, a scale or a token that training was to wake; what is drawn instead.
_ASLEEP, _AWAKE = 0.1, (0.25, 0.75)
# Batch statistics are measured on so few pictures that the variance of one channel says little: a layer has one for
# all, with this share of the power that its pictures have in common, lest what hardly differs is blown up.
_PICTURES, _SHARED = 4, 0.1
# The standard deviation of a picture of black and white pixels after the usual normalisation.
_CONTRAST = 2.0


@contextmanager
def undisturbed(seed: int) -> Iterator[None]:
    """Let constructors draw from ``seed``, and leave the global generator as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.set_rng_state(torch.Generator().manual_seed(seed).get_state())
        yield


@torch.no_grad()
def draw(module: nn.Module, seed: int, shape: tuple[int, int, int] | None) -> None:
    """Draw every parameter anew, and measure the statistics of batch norms on drawn pictures.

    Parameters
    ----------
    module
        As its constructor left it: what it filled with one value tells scales from weights.
    seed
        The same seed gives the same weights, bit for bit; the statistics also need the same number of threads.
    shape
        The input's [C, H, W]; where it is None, batch norms keep the statistics 0 and 1.

    Notes
    -----
    Weights of two and more axes are normal with variance gain / fan-in, biases normal and small. Norms have weight 1
    and bias 0, and statistics as a trained model has them: those of what reaches them. Any other parameter that its
    constructor filled with one value keeps it, unless it is so near to 0 that a branch would be dead (layer scale,
    residual gain, class token): then it is uniform in [0.25, 0.75]. Whatever is left (position embeddings, tables)
    is normal with the moments it had.

    Raises
    ------
    ModelError
        The module has batch norms, and does not take its own input.
    """
    generator = torch.Generator().manual_seed(seed)
    norms = [m for m in module.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    drawn: set[int] = set()
    for owner in module.modules():
        for name, parameter in owner.named_parameters(recurse=False):
            if id(parameter) not in drawn and parameter.is_floating_point():
                parameter.copy_(_drawn(owner, name, parameter.detach().cpu(), bool(norms), generator))
                drawn.add(id(parameter))
    if norms and shape is not None:
        _measure(module, norms, shape, generator)


def _drawn(owner: nn.Module, name: str, old: Tensor, normed: bool, generator: Generator) -> Tensor:
    """Return what one parameter of ``owner`` becomes."""
    if "norm" in type(owner).__name__.lower() and name in ("weight", "bias") and old.ndim == 1:
        return torch.full_like(old, 1.0 if name == "weight" else 0.0)
    noise = torch.randn(old.shape, generator=generator)
    if "bias" in name:
        return _BIAS * noise
    if name.endswith("weight") and old.ndim > 1 and not isinstance(owner, nn.Embedding):
        spread: float = (_gain(owner, old, normed) / old[0].numel()) ** 0.5
        return noise * spread
    low, high = old.aminmax()
    if low != high:
        return old.mean() + old.std() * noise
    return old if low.abs() > _ASLEEP else torch.empty_like(old).uniform_(*_AWAKE, generator=generator)


def _gain(owner: nn.Module, weight: Tensor, normed: bool) -> float:
    """Return the gain of a weight; where batch norms follow convolutions, only a gate's have a bias."""
    if weight.ndim == 2:
        return _LINEAR
    pointwise = weight[0, 0].numel() == 1
    return _GATE if normed and pointwise and getattr(owner, "bias", None) is not None else _CONVOLUTION


def _measure(
    module: nn.Module, norms: Sequence[_BatchNorm], shape: tuple[int, int, int], generator: Generator
) -> None:
    """Give batch norms the statistics of what reaches them.

    At 0 and 1 they would be identities, and every residual block would double the power.
    """
    module.train(False)
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.train()
        norm.momentum = 1.0
    try:
        _run_once(module, shape, generator)
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.train(False)
            norm.momentum = momentum
    for norm in norms:
        mean, variance = norm.running_mean, norm.running_var
        if mean is not None and variance is not None:
            variance.fill_(float((variance + _SHARED * mean**2).mean()))


def _run_once(module: nn.Module, shape: tuple[int, int, int], generator: Generator) -> None:
    """Run the module on drawn pictures of half the side, which costs a quarter, or of the full one."""
    channels, *full = shape
    try:
        module(_pictures(channels, [n // 2 for n in full], generator))
        return
    except Exception:  # a model that takes one size alone says so in its own way
        pictures = _pictures(channels, full, generator)
    try:
        module(pictures)
    except Exception as error:
        raise ModelError(
            f"{type(module).__name__} was given pictures of {list(shape)} to measure its batch norms, and failed "
            f"({type(error).__name__}: {error}): let its preprocessing state the input that it takes"
        ) from error


def _pictures(channels: int, size: Sequence[int], generator: Generator) -> Float[Tensor, "b c h w"]:
    """Return noise with structure at every scale.

    It is as strong as black and white: where gates multiply, what is stronger than what was measured grows from block
    to block, and what is weaker only fades a little.
    """
    grids = [(4, 4), (16, 16), tuple(size)]
    layers = [
        F.interpolate(torch.randn(_PICTURES, channels, *grid, generator=generator), size=tuple(size), mode="bilinear")
        for grid in grids
    ]
    scaled = torch.stack([layer / layer.std() for layer in layers])
    return scaled.sum(0) * (_CONTRAST / sqrt(len(grids)))
