"""The composites that have a name in the literature, and the choice among them for a model."""

import re
from collections.abc import Callable, Mapping

from whence.errors import UnknownNameError, nearest
from whence.methods.lrp import rules
from whence.methods.lrp.composites import Composite, Depth, Where
from whence.methods.lrp.rules import Rule

Entry = tuple[Where, Rule | str]


def lrp_0() -> Composite:
    """LRP-0 everywhere: with ReLU and without biases, gradient times input."""
    return Composite("lrp-0", ())


def epsilon_everywhere(epsilon: int | float = 1e-6) -> Composite:
    """LRP-epsilon everywhere."""
    return Composite("epsilon", (*_dense(epsilon), ("convolution", rules.epsilon(epsilon))))


def _dense(epsilon: int | float) -> tuple[Entry, ...]:
    return (("linear", rules.epsilon(epsilon)),)


def _first(rule: Callable[[int | float], Rule], epsilon: int | float) -> tuple[Entry, ...]:
    return (("first", rule(epsilon)),)


def epsilon_plus(epsilon: int | float = 1e-6) -> Composite:
    """Zennit's EpsilonPlus: z+ for convolutions, epsilon for dense layers."""
    return Composite("epsilon-plus", (("convolution", rules.z_plus(epsilon)), *_dense(epsilon)))


def epsilon_plus_flat(epsilon: int | float = 1e-6) -> Composite:
    """Zennit's EpsilonPlusFlat; the LRP-CMP of Kohlbrenner et al. 2020."""
    return Composite("epsilon-plus-flat", (*_first(rules.flat, epsilon), *epsilon_plus(epsilon).entries))


def epsilon_alpha2_beta1(epsilon: int | float = 1e-6) -> Composite:
    """Zennit's EpsilonAlpha2Beta1."""
    entries = (("convolution", rules.alpha_beta(2, 1, epsilon)), *_dense(epsilon))
    return Composite("epsilon-alpha2-beta1", entries)


def epsilon_alpha2_beta1_flat(epsilon: int | float = 1e-6) -> Composite:
    """Zennit's EpsilonAlpha2Beta1Flat."""
    entries = (*_first(rules.flat, epsilon), *epsilon_alpha2_beta1(epsilon).entries)
    return Composite("epsilon-alpha2-beta1-flat", entries)


def epsilon_gamma_box(epsilon: int | float = 1e-6) -> Composite:
    """Zennit's EpsilonGammaBox: gamma 0.25 for convolutions, and the bounds of the pixels for the first."""
    entries = (("convolution", rules.generalised_gamma(0.25, epsilon)), *_dense(epsilon))
    return Composite("epsilon-gamma-box", (*_first(rules.box, epsilon), *entries))


def excitation_backprop(epsilon: int | float = 1e-6) -> Composite:
    """Zennit's ExcitationBackprop: z+ for all. Zhang et al. 2016."""
    rule = rules.z_plus(epsilon)
    return Composite("excitation-backprop", (("convolution", rule), ("linear", rule)))


def preset(alpha: int | float, beta: int | float, name: str, flat_until: int = 0) -> Composite:
    """Return iNNvestigate's preset: epsilon 0.1 for dense layers, alpha-beta for convolutions, flat up to a depth."""
    # One that is first alone needs no other form than the first operations' own.
    flat: tuple[Entry, ...] = (("first" if flat_until == 1 else Depth(0, flat_until - 1), rules.flat()),)
    entries = (("convolution", rules.alpha_beta(alpha, beta)), ("linear", rules.epsilon(0.1)))
    return Composite(name, (*(flat if flat_until else ()), *entries))


def by_depth(epsilon: int | float = 1e-9) -> Composite:
    """Return the composite of Montavon et al. 2019, section 10.3, with VGG-16's bounds as shares of the depth.

    Its gamma rule is the generalised one, which is the same on such a net and stays finite on others.
    """
    return Composite(
        "montavon",
        (
            ("first", rules.box(epsilon)),
            (Depth(0.0, 0.43), rules.generalised_gamma(0.25, epsilon)),
            (Depth(0.43, 0.83), rules.epsilon(0.25, "rms")),
            ("max-pool", "average"),
        ),
    )


def cp_lrp(epsilon: int | float = 1e-6) -> Composite:
    """CP-LRP (Ali et al. 2022): attention maps are constants; gamma 0.25 for convolutions, 0.05 for dense layers."""
    return Composite("cp-lrp", _transformer(epsilon))


def attn_lrp(epsilon: int | float = 1e-6) -> Composite:
    """AttnLRP (Achtibat et al. 2024): attention maps and gates have relevance of their own; gamma as in CP-LRP."""
    return Composite("attn-lrp", (("attention", "attn"), ("product", "uniform"), *_transformer(epsilon)))


def _transformer(epsilon: int | float) -> tuple[Entry, ...]:
    dense = rules.generalised_gamma(0.05, epsilon)
    return (("convolution", rules.generalised_gamma(0.25, epsilon)), ("linear", dense))


def _conserving(epsilon: int | float = 1e-6) -> Composite:
    rule = rules.z_plus(epsilon, fallback=True)
    entries = (*_first(rules.flat, epsilon), ("convolution", rule), *_dense(epsilon))
    return Composite("epsilon-plus-flat with fallback", entries)


Chooser = Callable[[Mapping[str, int]], Composite | str]
"""Returns a composite, or the name of one, for a model whose forward pass ran these operations, each so often."""


def auto(seen: Mapping[str, int], epsilon: int | float = 1e-6) -> Composite:
    """Return a composite for a model whose forward pass was made of the operations ``seen``."""
    if seen["scaled_dot_product_attention"] or seen["softmax"]:
        return Composite("cp-lrp with box", (*_first(rules.box, epsilon), *_transformer(epsilon)))
    other = ("relu6", "hardtanh", "gelu", "silu", "mish", "hardswish", "elu", "selu", "leaky_relu")
    # A sum of branches that nearly cancels gives both much relevance of opposite signs, least by gamma.
    if seen["depthwise"] or seen["sum of branches"] or any(seen[name] for name in other):
        return epsilon_gamma_box(epsilon)
    return _conserving(epsilon)


NAMED: Mapping[str, Callable[[], Composite]] = {
    "lrp-0": lrp_0,
    "epsilon": epsilon_everywhere,
    "epsilon-plus": epsilon_plus,
    "epsilon-plus-flat": epsilon_plus_flat,
    "epsilon-alpha2-beta1": epsilon_alpha2_beta1,
    "epsilon-alpha2-beta1-flat": epsilon_alpha2_beta1_flat,
    "epsilon-gamma-box": epsilon_gamma_box,
    "excitation-backprop": excitation_backprop,
    "preset-a": lambda: preset(1, 0, "preset-a"),
    "preset-a-flat": lambda: preset(1, 0, "preset-a-flat", 1),
    "preset-b": lambda: preset(2, 1, "preset-b"),
    "preset-b-flat": lambda: preset(2, 1, "preset-b-flat", 1),
    "montavon": by_depth,
    "cp-lrp": cp_lrp,
    "attn-lrp": attn_lrp,
}


def named(name: str) -> Composite:
    """Return the composite of a name; ``preset-a-flat-until-3`` is flat for the operations of depths 0 to 2.

    Raises
    ------
    UnknownNameError
        There is none of that name.
    """
    until = re.fullmatch(r"preset-([ab])-flat-until-(\d+)", name)
    if until:
        alpha, beta = (1, 0) if until[1] == "a" else (2, 1)
        return preset(alpha, beta, name, int(until[2]))
    if name not in NAMED:
        raise UnknownNameError(f"there is no composite {name!r}: {nearest(name, ('auto', *NAMED))}")
    return NAMED[name]()
