"""Models with a module of ours beside them, that can be taken off, and what a model folder states of it."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import nn

from whence.errors import ModelError


@dataclass(frozen=True)
class WrapperForm(ABC):
    """What a wrapper is made of, but for the model and the weights: what a model folder states of it."""

    table: ClassVar[str]
    """The table of ``model.toml`` in which it is stated."""

    @abstractmethod
    def around(self, model: nn.Module) -> "Wrapped":
        """Return the wrapper around a model, its own weights those that it has before it has seen anything."""


class Wrapped(nn.Module, ABC):
    """A model, and beside it a module of ours, whose attribute is called ``ours``.

    The state dict holds the model's own keys, unchanged, and ours under that name; it loads into a wrapper, and
    without ours into the model.
    """

    ours: ClassVar[str]
    model: nn.Module
    form: WrapperForm

    def plain(self) -> nn.Module:
        """Return the model itself, with the weights that it has now."""
        return self.model

    def state_dict(  # type: ignore[override]
        self,
        *,
        destination: Any = None,  # noqa: ANN401
        prefix: str = "",
        keep_vars: bool = False,
    ) -> dict[str, Any]:
        """Return the model's state under its own keys, and ours under its name."""
        state: dict[str, Any] = self.model.state_dict(destination=destination, prefix=prefix, keep_vars=keep_vars)
        ours: nn.Module = getattr(self, self.ours)
        ours.state_dict(destination=state, prefix=f"{prefix}{self.ours}.", keep_vars=keep_vars)
        # Loading looks for the versions of modules where they stand in this one.
        versions: dict[str, Any] = getattr(state, "_metadata", {})
        for path in [path for path in versions if f"{path}.".startswith(prefix)]:
            versions[f"{prefix}model.{path[len(prefix) :]}".rstrip(".")] = versions[path]
        return state

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:  # noqa: ANN401
        """Put the model's own keys where its parameters stand in this module."""
        for key in [key for key in state_dict if key.startswith(prefix)]:
            if not key.startswith(f"{prefix}{self.ours}."):
                state_dict[f"{prefix}model.{key.removeprefix(prefix)}"] = state_dict.pop(key)
        super()._load_from_state_dict(state_dict, prefix, *rest)


def refuse_keys(model: nn.Module, ours: str) -> None:
    """Refuse a model that has keys under the name of a wrapper's module itself.

    Raises
    ------
    ModelError
        Naming the model.
    """
    if any(key.startswith(f"{ours}.") for key in model.state_dict()):
        raise ModelError(f"{type(model).__name__} has keys under '{ours}.' of its own: rename that submodule")
