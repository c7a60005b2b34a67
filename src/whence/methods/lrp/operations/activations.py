"""Activations: each value's relevance goes on as it is; functions that are not zero at zero are gates."""

from typing import Any

from torch import Tensor

from whence.methods.lrp.carried import Call, Operation, ratio
from whence.methods.lrp.operations import handles, primitives
from whence.methods.lrp.propagation import Propagation
from whence.methods.lrp.tags import is_tracked

_SIGNALS = """
    relu6 hardtanh gelu silu mish hardswish elu selu celu hardshrink softshrink tanhshrink threshold clamp clamp_min
    clamp_max clip square log1p expm1 sin asinh arcsinh atan arctan erf
"""
# They weigh other signals: squashing functions, and what norms are made of.
_GATES = """
    sigmoid hardsigmoid softplus log_sigmoid tanh exp exp2 log log2 log10 sqrt rsqrt reciprocal cos erfc
"""
_NORMS = "norm linalg_vector_norm linalg_norm std var vector_norm"


def _names(text: str) -> list[str]:
    return [name + suffix for name in text.split() for suffix in ("", "_")]


@handles(*primitives(*_names(_SIGNALS), "pow", "pow_", "__pow__", "float_power"), carries=True)
def signal(run: Propagation, function: Operation, *args: Any, **kwargs: Any) -> Tensor:  # noqa: ANN401
    """Hand on what comes."""
    x: Tensor = args[0] if args else kwargs["input"]
    if not is_tracked(x):
        return run.gate(function(*args, **kwargs))
    tag = run.tag(x)
    out = Call(function, args, kwargs).scaled(x, None if tag.relevance else ratio)
    return run.gate(out) if tag.gate else out


@handles(*primitives(*_names(_GATES)), carries=True)
def gate(run: Propagation, function: Operation, *args: Any, **kwargs: Any) -> Tensor:  # noqa: ANN401
    """Hand on what comes, where it is the signal; where it weighs another signal, products give it nothing."""
    return run.gate(signal(run, function, *args, **kwargs))


@handles(*primitives(*_NORMS.split(), "var_mean", "std_mean"))
def norm(run: Propagation, function: Operation, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
    """Weigh other signals."""
    out = function(*args, **kwargs)
    if isinstance(out, Tensor):
        return run.gate(out)
    weight, mean = out
    return run.gate(weight), mean


@handles(*primitives("glu"))
def gated(run: Propagation, function: Operation, input: Tensor, dim: int = -1) -> Tensor:
    """Give everything to the signal."""
    signal, weight = input.chunk(2, dim)
    return signal * weight.detach().sigmoid()
