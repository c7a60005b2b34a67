"""Classifier: a module, its preprocessing and its labels; logits whatever the module returns."""

import hashlib
import re
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn

from whence.errors import ModelError, NotFiniteError
from whence.models.layers import Catalogue
from whence.models.replay import Plan
from whence.models.targets import Activation, Scale
from whence.pictures.foreign import ForeignPreprocess
from whence.pictures.preprocess import PixelRange, Preprocessing

Precision = Literal["float32", "bfloat16", "float16"]
_Versions = tuple[list[int], list[int], list[int]]


class Parts(NamedTuple):
    """All submodules of a module, itself included, and all its parameters and buffers."""

    modules: list[nn.Module]
    tensors: list[Tensor]


class Classifier:
    """Any module that classifies pictures, with what whence must know of it.

    Parameters
    ----------
    module
        Returns logits as a tensor, a tuple, a dict or an object with ``.logits``; never changed.
    preprocess
        A ``Preprocess``, or any callable from a picture to a tensor; None where only tensors are explained.
    labels
        One text a class.
    name, spec
        For people; how it was loaded.
    activation
        ``softmax``, or ``sigmoid`` for several labels or a single logit: what a probability is, everywhere.
    precision
        ``bfloat16`` or ``float16`` run the model under autocast.

    Raises
    ------
    ModelError
        ``module`` is no module, or an argument is none of what is listed here.
    NotFiniteError
        A parameter or buffer holds NaN or infinity.
    """

    def __init__(
        self,
        module: nn.Module,
        preprocess: Preprocessing | Callable[..., Any] | None = None,
        labels: Sequence[str] | None = None,
        name: str | None = None,
        activation: Activation = "softmax",
        *,
        spec: str | None = None,
        precision: Precision = "float32",
    ) -> None:
        if not isinstance(module, nn.Module):
            raise ModelError(f"a Classifier is made of a torch.nn.Module, not of {type(module).__name__}")
        if activation not in ("softmax", "sigmoid"):
            raise ModelError(f"activation={activation!r}: give 'softmax' or 'sigmoid'")
        self.module = _unwrapped(module)
        self.preprocess = preprocess if preprocess is None else _preprocessing(preprocess)
        self.labels = None if labels is None else tuple(str(label) for label in labels)
        self.name = name or type(self.module).__name__
        self.spec = spec or f"python:{type(module).__module__}.{type(module).__qualname__}"
        self.precision = precision
        self.scale = Scale(activation, self.labels)
        # Filled by sessions, once an input size: which layers can be explained, and how one is replayed.
        self.catalogues: dict[tuple[int, ...], Catalogue] = {}
        self.plans: dict[tuple[str, tuple[int, ...]], Plan] = {}
        self._checked: _Versions | None = None
        self._fingerprint: tuple[_Versions, str] | None = None
        self.check_weights()

    def __repr__(self) -> str:
        """Return one line for a terminal."""
        classes = f", {len(self.labels)} labels" if self.labels else ""
        return f"Classifier({self.name!r}, {self.spec}, input {self.input}{classes})"

    @property
    def precision(self) -> Precision:
        """In which type the model runs; may be set."""
        return self._precision

    @precision.setter
    def precision(self, precision: Precision) -> None:
        if precision not in get_args(Precision):
            raise ModelError(f"precision={precision!r}: give {' or '.join(get_args(Precision))}")
        self._precision = precision

    @property
    def input(self) -> tuple[int, int, int] | None:
        """The input's [C, H, W], None where it is not known or depends on the picture."""
        return self.preprocess.shape if self.preprocess else None

    @property
    def pixels(self) -> PixelRange | None:
        """What black and white become in the model's input, None where that is not known."""
        return self.preprocess.pixels if self.preprocess else None

    @property
    def like(self) -> Tensor:
        """A floating tensor of the model's device and type, to which inputs are moved."""
        tensors = chain(self.module.parameters(), self.module.buffers())
        return next((t for t in tensors if t.is_floating_point()), torch.empty(0)).detach()

    @torch.no_grad()
    def check_weights(self, known: Parts | None = None) -> None:
        """Refuse NaN and infinity in parameters and buffers; costs nothing while no version changes.

        ``known`` are the module's parts, where the caller has them.

        What is known of the layers is forgotten with the weights it was seen with.

        Raises
        ------
        NotFiniteError
            Naming the first parameter.
        """
        versions = _versions(known or parts(self.module))
        if versions == self._checked:
            return
        damaged = [name for name, t in self.module.named_parameters() if not bool(t.isfinite().all())]
        # A buffer may hold minus infinity by right: it can be an attention mask.
        damaged += [name for name, t in self.module.named_buffers() if bool((t.isnan() | (t == torch.inf)).any())]
        if damaged:
            raise NotFiniteError(
                f"{self.name}: parameter {damaged[0]!r} holds NaN or infinity, load the weights anew"
            )
        self._checked = versions
        self.catalogues.clear()
        self.plans.clear()

    @property
    def fingerprint(self) -> str:
        """SHA-256 of architecture and weights, in hex; made anew only when a parameter's version changes."""
        versions = _versions(parts(self.module))
        if self._fingerprint is None or self._fingerprint[0] != versions:
            self._fingerprint = versions, _sha256(self.module)
        return self._fingerprint[1]


def parts(module: nn.Module) -> Parts:
    """Return a module's parts in one walk; every session makes it, so that it is a plain loop."""
    found: list[nn.Module] = []
    seen: set[int] = set()
    tensors: list[Tensor | None] = []
    stack: list[nn.Module | None] = [module]
    while stack:
        layer = stack.pop()
        if layer is None or id(layer) in seen:
            continue
        seen.add(id(layer))
        found.append(layer)
        tensors += layer._parameters.values()
        tensors += layer._buffers.values()
        stack += layer._modules.values()
    return Parts(found, [t for t in tensors if t is not None])


def _versions(known: Parts) -> _Versions:
    """Return what changes with a module or tensor, changed or exchanged; inference tensors count no versions."""
    try:
        versions = [t._version for t in known.tensors]
    except RuntimeError:
        versions = [0 if t.is_inference() else t._version for t in known.tensors]
    return list(map(id, known.modules)), [t.data_ptr() for t in known.tensors], versions


def _preprocessing(preprocess: Preprocessing | Callable[..., Any]) -> Preprocessing:
    return preprocess if isinstance(preprocess, Preprocessing) else ForeignPreprocess(preprocess)


def _unwrapped(module: nn.Module) -> nn.Module:
    """Return the module behind torch.compile, DataParallel and DistributedDataParallel, which share its weights."""
    inner = getattr(module, "_orig_mod", None)
    if isinstance(module, nn.DataParallel | nn.parallel.DistributedDataParallel):
        inner = module.module
    return _unwrapped(inner) if isinstance(inner, nn.Module) else module


def _sha256(module: nn.Module) -> str:
    """Hash the architecture as it prints itself, without addresses, and every tensor of the state."""
    digest = hashlib.sha256(re.sub(r" at 0x[0-9a-f]+", "", repr(module)).encode())
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
