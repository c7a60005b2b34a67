"""All modules and tensors of a model, and whether they are what they were; quick, for every session asks."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain
from operator import attrgetter, methodcaller
from typing import NamedTuple

from torch import Tensor, nn

_TABLES = attrgetter("_modules", "_parameters", "_buffers")
_VALUES = methodcaller("values")
_VERSION = attrgetter("_version")


class Versions(NamedTuple):
    """What changes where a tensor is written to or given other memory."""

    addresses: list[int]
    writes: list[int]


def _held(modules: Iterable[nn.Module]) -> list[int]:
    """Return which objects the modules' tables hold: another one has another identity."""
    tables = filter(None, chain.from_iterable(map(_TABLES, modules)))
    return list(map(id, chain.from_iterable(map(_VALUES, tables))))


@dataclass(frozen=True, eq=False)
class Parts:
    """A module with all its submodules, all their parameters and buffers."""

    modules: list[nn.Module]
    tensors: list[Tensor]
    held: list[int]

    @classmethod
    def of(cls, module: nn.Module) -> "Parts":
        """Return a module's parts."""
        modules = list(module.modules())
        return cls(modules, [*module.parameters(), *module.buffers()], _held(modules))

    def stand(self) -> bool:
        """Return whether every module still holds what it held; all are kept, so that no identity comes twice."""
        return _held(self.modules) == self.held

    def versions(self) -> Versions:
        """Return the tensors' versions; inference tensors count none."""
        try:
            writes = list(map(_VERSION, self.tensors))
        except RuntimeError:
            writes = [0 if t.is_inference() else t._version for t in self.tensors]
        return Versions(list(map(Tensor.data_ptr, self.tensors)), writes)
