"""Composites: which rule works where. An ordered list of (where, rule) in which the first match wins."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal, NamedTuple, get_args

from torch import nn

from whence.errors import OptionError, nearest
from whence.methods.lrp import rules
from whence.methods.lrp.linear import Node
from whence.methods.lrp.rules import Rule

LinearKind = Literal["convolution", "linear"]
# What can be chosen for operations without weights of their own; the first is what happens without a choice.
CHOICES: Mapping[str, tuple[str, ...]] = {
    "batch-norm": ("merge", "affine", "pass"),
    "max-pool": ("winner", "shared", "average"),
    "product": ("signal", "uniform"),
    "attention": ("cp", "attn", "pass"),
    "norm": ("constant", "pass"),
    "sum": ("plain", "normalised"),
    "local-response-norm": ("identity", "taylor"),
}


class Depth(NamedTuple):
    """Linear operations by their depth: whole numbers count from 0, parts of 1 are shares of the deepest one."""

    low: int | float
    high: int | float

    def holds(self, node: Node) -> bool:
        """Return whether low <= depth <= high; a share of 1 itself belongs to the last."""
        at = node.fraction if isinstance(self.high, float) else node.depth
        return self.low <= at <= self.high


Where = str | type[nn.Module] | Depth | Callable[[Node], bool]
"""``first``, ``last``, a kind of operation, a pattern of module paths (``features.*``), a module's type, a Depth, or
a function of the operation. Operations other than linear ones are named by their kind alone."""


@dataclass(frozen=True)
class Composite:
    """Rules by place; what nothing matches is handed on by LRP-0, and other operations do what they do by default.

    Raises
    ------
    OptionError
        A rule stands where it means nothing.
    """

    name: str
    entries: tuple[tuple[Where, Rule | str], ...]

    def __post_init__(self) -> None:
        """Refuse what could never be chosen."""
        for where, rule in self.entries:
            if isinstance(rule, str) and rule not in CHOICES.get(str(where), ()):
                known = "; ".join(f"{kind}: {' or '.join(names)}" for kind, names in CHOICES.items())
                raise OptionError(f"composite {self.name!r}: {rule!r} at {where!r} is none of {known}")
            if isinstance(rule, Rule) and where in CHOICES:
                raise OptionError(
                    f"composite {self.name!r}: {where!r} takes one of {CHOICES[str(where)]}, not a rule"
                )
            if not isinstance(rule, Rule | str):
                raise OptionError(
                    f"composite {self.name!r}: {rule!r} at {where!r} is no rule: rules.epsilon() is one"
                )
            if not callable(where) and not isinstance(where, str | Depth):
                raise OptionError(f"composite {self.name!r}: {where!r} is no place: give a kind, a layer, a Depth")

    def check(self, layers: Sequence[str]) -> None:
        """Refuse a pattern that none of a model's layers fits.

        Raises
        ------
        OptionError
            Naming the pattern and the nearest layers.
        """
        kinds = ("first", "last", *get_args(LinearKind), *CHOICES)
        for where, _ in self.entries:
            if isinstance(where, str) and where not in kinds and not any(fnmatchcase(name, where) for name in layers):
                near = nearest(where, (*layers, *kinds))
                raise OptionError(f"composite {self.name!r}: no layer and no operation is called {where!r}: {near}")

    def linear(self, node: Node) -> Rule:
        """Return the rule of a linear operation."""
        return next((rule for where, rule in self.entries if isinstance(rule, Rule) and holds(where, node)), _ZERO)

    def choice(self, kind: str) -> str:
        """Return what is chosen for another kind of operation."""
        return next(
            (rule for where, rule in self.entries if isinstance(rule, str) and where == kind), CHOICES[kind][0]
        )

    @property
    def relevance_before_first(self) -> bool:
        """Whether a rule gives relevance to inputs of zero."""
        return any(isinstance(rule, Rule) and not rule.proportional for _, rule in self.entries)

    @property
    def relevance_everywhere(self) -> bool:
        """Whether such a rule may stand elsewhere than first."""
        return any(isinstance(rule, Rule) and not rule.proportional and w != "first" for w, rule in self.entries)


_ZERO = rules.zero()


def holds(where: Where, node: Node) -> bool:
    """Return whether a linear operation stands there."""
    if isinstance(where, Depth):
        return where.holds(node)
    if isinstance(where, type):
        return isinstance(node.module, where)
    if not isinstance(where, str):
        return where(node)
    if where in ("first", "last"):
        return node.first if where == "first" else node.last
    return node.kind == where if where in get_args(LinearKind) else fnmatchcase(node.name, where)
