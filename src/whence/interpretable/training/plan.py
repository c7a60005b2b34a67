"""How a net is trained for some epochs."""

from dataclasses import dataclass
from math import inf

import torch

from whence.errors import OptionError
from whence.models.classifier import Precision


@dataclass(frozen=True)
class Plan:
    """AdamW with one cycle of the learning rate, over batches without the last incomplete one.

    Parameters
    ----------
    epochs
        How often each picture is seen.
    rate, decay, warm_up
        The highest learning rate, the weight decay, and the share of all steps in which the rate rises.
    batch
        Pictures a step, over all processes together.
    smoothing
        How much of the label is spread over all classes.
    augment
        Mirror and shift pictures, and change their contrast and colours, each at random.
    frozen
        Paths of submodules that stay as they are.
    frozen_statistics
        Keep the statistics of batch norms as they are.
    precision
        In what the net computes; halves by autocast, its weights in float32; ``float16`` on GPUs alone.
    device
        ``cpu``, or ``cuda`` or ``mps`` for what this process finds there.
    workers
        Processes that read pictures ahead; with 0 the training reads them itself.
    seed
        Of the order of pictures and of the augmentation.
    """

    epochs: int
    rate: float = 3e-3
    decay: float = 0.02
    warm_up: float = 0.15
    batch: int = 32
    smoothing: float = 0.05
    augment: bool = True
    frozen: tuple[str, ...] = ()
    frozen_statistics: bool = False
    precision: Precision = "float32"
    device: str = "cpu"
    workers: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse numbers out of range."""
        whole = self.epochs >= 0 and self.batch >= 1 and self.workers >= 0
        if not whole or not 0 < self.rate < inf or not 0 <= self.decay < inf:
            raise OptionError(
                f"epochs={self.epochs}, batch={self.batch}, rate={self.rate}, decay={self.decay}, "
                f"workers={self.workers}: give batch >= 1, rate > 0, and none of the others below 0"
            )
        if not 0 <= self.smoothing < 1 or not 0 < self.warm_up < 1:
            raise OptionError(
                f"smoothing={self.smoothing}, warm_up={self.warm_up}: give shares below 1, warm_up above 0"
            )
        if self.precision == "float16" and self.device == "cpu":
            raise OptionError("precision='float16' is for GPUs: on the cpu give 'bfloat16' or 'float32'")

    def steps(self, pictures: int) -> int:
        """Return how many steps an epoch of so many pictures has."""
        return max(1, pictures // self.batch)

    def pictures(self, pictures: int) -> int:
        """Return how many pictures a step takes: the batch, or all where there are fewer."""
        return min(self.batch, pictures)


def fast_precision() -> Precision:
    """Return bfloat16 where this processor multiplies it faster than float32, else float32."""
    capabilities: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()
    return "bfloat16" if capabilities.get("amx_bf16") or capabilities.get("avx512_bf16") else "float32"
