"""Classifier: a module, its preprocessing and its labels; logits whatever the module returns."""

import hashlib
import re
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn

from whence.errors import ModelError, NotFiniteError
from whence.models.attention import Readout
from whence.models.folding import Folding
from whence.models.layers import Catalogue
from whence.models.parts import Parts, Versions
from whence.models.replay import Plan
from whence.models.targets import Activation, Scale
from whence.pictures.foreign import ForeignPreprocess
from whence.pictures.preprocess import PixelRange, Preprocessing

Precision = Literal["float32", "bfloat16", "float16"]


class Classifier:
    """Any module that classifies pictures, with what whence must know of it.

    Parameters
    ----------
    module
        Returns logits as a tensor, a tuple, a dict or an object with ``.logits``; never changed. Or a black box: any
        function from inputs [B, C, H, W], float32 on the CPU, to logits [B, K], of torch or numpy (for probabilities
        their logarithms do). Only methods that need no more than scores explain it.
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
        ``module`` is no module and no function, or an argument is none of what is listed here.
    NotFiniteError
        A parameter or buffer holds NaN or infinity.
    """

    def __init__(
        self,
        module: nn.Module | Callable[..., Any],
        preprocess: Preprocessing | Callable[..., Any] | None = None,
        labels: Sequence[str] | None = None,
        name: str | None = None,
        activation: Activation = "softmax",
        *,
        spec: str | None = None,
        precision: Precision = "float32",
    ) -> None:
        if isinstance(module, type) or not callable(module):
            found = f"the class {module.__name__}" if isinstance(module, type) else type(module).__name__
            raise ModelError(
                "a Classifier is made of a torch.nn.Module, or of a function from inputs [B, C, H, W] to logits, "
                f"not of {found}"
            )
        if activation not in ("softmax", "sigmoid"):
            raise ModelError(f"activation={activation!r}: give 'softmax' or 'sigmoid'")
        self.module = _unwrapped(module) if isinstance(module, nn.Module) else BlackBox(module)
        self.preprocess = preprocess if preprocess is None else _preprocessing(preprocess)
        self.labels = None if labels is None else tuple(str(label) for label in labels)
        self.name = name or _named(self.module).__name__
        self.spec = spec or f"python:{_named(module).__module__}.{_named(module).__qualname__}"
        self.precision = precision
        self.scale = Scale(activation, self.labels)
        # Filled by sessions, once an input size: which layers can be explained, how one is replayed, whether the
        # model runs with channels last, which norms can be folded, and what its attention maps mean.
        self.catalogues: dict[tuple[int, ...], Catalogue] = {}
        self.plans: dict[tuple[str, tuple[int, ...]], Plan] = {}
        self.channels_last: dict[tuple[int, ...], bool] = {}
        self.foldings: dict[tuple[int, ...], Folding] = {}
        self.readouts: dict[tuple[int, ...], Readout] = {}
        self._parts = Parts.of(self.module)
        self._checked: tuple[Parts, Versions] | None = None
        self._fingerprint: tuple[Parts, Versions, str] | None = None
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
    def preprocessing(self) -> str:
        """The preprocessing as it prints itself in one line, the same in every run."""
        made = self.preprocess.function if isinstance(self.preprocess, ForeignPreprocess) else self.preprocess
        return " ".join(re.sub(r" at 0x[0-9a-f]+", "", repr(made)).split())

    @property
    def like(self) -> Tensor:
        """A floating tensor of the model's device and type, to which inputs are moved."""
        tensors = chain(self.module.parameters(), self.module.buffers())
        return next((t for t in tensors if t.is_floating_point()), torch.empty(0)).detach()

    @torch.no_grad()
    def check_weights(self) -> Parts:
        """Return the model's parts, none of which holds NaN or infinity; costs next to nothing while none changes.

        What is known of the layers is forgotten with the weights it was seen with.

        Raises
        ------
        NotFiniteError
            Naming the first parameter.
        """
        parts, versions = self._current()
        if self._checked == (parts, versions):
            return parts
        damaged = [name for name, t in self.module.named_parameters() if not bool(t.isfinite().all())]
        # A buffer may hold minus infinity by right: it can be an attention mask.
        damaged += [name for name, t in self.module.named_buffers() if bool((t.isnan() | (t == torch.inf)).any())]
        if damaged:
            raise NotFiniteError(
                f"{self.name}: parameter {damaged[0]!r} holds NaN or infinity, load the weights anew"
            )
        self._checked = parts, versions
        self.catalogues.clear()
        self.plans.clear()
        self.channels_last.clear()
        self.foldings.clear()
        self.readouts.clear()
        return parts

    def _current(self) -> tuple[Parts, Versions]:
        """Return the model's parts, looked up anew only where one was exchanged, and their versions."""
        if not self._parts.stand():
            self._parts = Parts.of(self.module)
        return self._parts, self._parts.versions()

    @property
    def fingerprint(self) -> str:
        """SHA-256 of architecture and weights, in hex; made anew only when a parameter's version changes."""
        parts, versions = self._current()
        if self._fingerprint is None or self._fingerprint[:2] != (parts, versions):
            self._fingerprint = parts, versions, _sha256(self.module)
        return self._fingerprint[2]


class BlackBox(nn.Module):
    """A function as a module: what it returns is all that is known of it."""

    def __init__(self, function: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Any:  # noqa: ANN401  (functions return anything)
        """Return what the function returns, an array as a tensor."""
        output = self.function(x.detach())
        return torch.as_tensor(output, device=x.device) if isinstance(output, np.ndarray) else output

    def extra_repr(self) -> str:
        """Return the function's name, by which one black box is told from another."""
        return f"{_named(self).__module__}.{_named(self).__qualname__}"


def _named(model: object) -> Any:  # noqa: ANN401  (a class or a function)
    """Return what gives a model its name: its class, or the function in a black box."""
    inner = model.function if isinstance(model, BlackBox) else model
    return inner if hasattr(inner, "__qualname__") else type(inner)


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
