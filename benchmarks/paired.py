"""Paired timing: every contender against a plain forward of the same batch, in turns, in one run."""

import gc
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Figure:
    """A contender's time as a multiple of the plain forward beside it: median, least and most over the rounds."""

    wall: float
    least: float
    most: float
    cpu: float


@dataclass(frozen=True)
class Run:
    """One paired run; ``spread`` is how far the plain forward itself varied, (most - least) / median."""

    plain_ms: float
    spread: float
    figures: Mapping[str, Figure]

    @property
    def trusted(self) -> bool:
        """Whether the plain forward was steady enough for the figures to mean something."""
        return self.spread <= 0.2


def outside(variable: str, folder: str) -> Path:
    """Return a folder of photos or models that lies outside the repository."""
    return Path(os.environ.get(variable) or Path(__file__).parents[2] / "shared" / folder)


def plain_forward(module: nn.Module, x: Tensor) -> Callable[[], Tensor]:
    """Return the work that all figures are multiples of: the model's forward without gradients."""

    def plain() -> Tensor:
        with torch.no_grad():
            return module(x)

    return plain


def _timed(work: Callable[[], object]) -> tuple[float, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


def paired(
    plain: Callable[[], object], contenders: Mapping[str, Callable[[], object]], rounds: int, repeats: int
) -> Run:
    """Time each contender between two plain forwards, ``rounds`` times in turns, as the least of ``repeats``."""

    def least(work: Callable[[], object]) -> tuple[float, float]:
        times = [_timed(work) for _ in range(repeats)]
        return min(t for t, _ in times), min(t for _, t in times)

    for work in (plain, *contenders.values()):
        work()
        work()
    gc.disable()
    try:
        plains: list[float] = []
        walls: dict[str, list[float]] = {name: [] for name in contenders}
        cpus: dict[str, list[float]] = {name: [] for name in contenders}
        for _ in range(rounds):
            before = least(plain)
            for name, work in contenders.items():
                wall, cpu = least(work)
                after = least(plain)
                walls[name].append(2 * wall / (before[0] + after[0]))
                cpus[name].append(2 * cpu / (before[1] + after[1]))
                before = after
                plains.append(after[0])
    finally:
        gc.enable()
    figures = {
        name: Figure(median(walls[name]), min(walls[name]), max(walls[name]), median(cpus[name]))
        for name in contenders
    }
    middle = sorted(plains)[len(plains) // 10 : -max(1, len(plains) // 10)]
    return Run(1000 * median(plains), (max(middle) - min(middle)) / median(plains), figures)
