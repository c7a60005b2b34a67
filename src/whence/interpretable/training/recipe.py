"""An interpretable training: what it starts from, and what decides the weights."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from math import inf
from typing import Any

from whence.errors import OptionError
from whence.interpretable.losses import check
from whence.interpretable.training.plan import Plan
from whence.models.masked.templates import Centre


@dataclass(frozen=True)
class Recipe:
    """First the plain net, then the same net with the mask, and beside it a control without.

    Parameters
    ----------
    plan
        Of the epochs with the mask, and of the control's.
    plain
        Of the epochs before; with none of them the net is taken as it is.
    layer, added, beta, centre
        As for ``interpretable``.
    loss, options
        The filters' loss, a name of ``LOSSES``, with its own options; None trains with the mask alone.
    relative
        The filters' loss pulls at the maps so many times as strongly as the task does.
    settled
        After this share of the epochs with the mask each filter keeps its category.
    control
        Whether the control is trained.

    Raises
    ------
    UnknownNameError, OptionError
        There is no such loss, or a number is out of range.
    """

    plan: Plan = field(default_factory=lambda: Plan(epochs=3, rate=1.2e-3))
    plain: Plan = field(default_factory=lambda: Plan(epochs=0))
    layer: str | None = None
    added: bool | None = None
    beta: float = 4.0
    centre: Centre = "argmax"
    loss: str | None = "label-aware"
    options: Mapping[str, Any] = field(default_factory=dict)
    relative: float = 1.0
    settled: float = 0.5
    control: bool = True

    def __post_init__(self) -> None:
        """Refuse what no training can be."""
        if self.loss is not None:
            check(self.loss)
        if self.plan.epochs < 1:
            raise OptionError(f"epochs={self.plan.epochs}: give 1 or more with the mask")
        if not 0 < self.settled <= 1 or not 0 <= self.relative < inf:
            raise OptionError(
                f"settled={self.settled}, relative={self.relative}: give a share above 0, and a strength of 0 or more"
            )

    def settings(self) -> dict[str, Any]:
        """Return what decides the weights, as plain values by name."""
        values = asdict(self)
        plans = {f"{name}.{key}": value for name in ("plan", "plain") for key, value in values.pop(name).items()}
        return {key: value for key, value in {**values, **plans}.items() if not key.endswith((".device", ".workers"))}
