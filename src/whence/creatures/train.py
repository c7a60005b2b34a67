"""How the bundled classifiers of the creatures are made: drawn pictures in, a model folder out."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, UInt8
from safetensors.torch import save
from torch import Tensor, nn

from whence.creatures.code import CLASSES, LABELS
from whence.creatures.drawing import draw_many
from whence.creatures.folders import new_folder
from whence.errors import OptionError
from whence.models.bundled.creature_net import CreatureNet, creature_net

# What is being done, how much of it is done, and how much there is.
Progress = Callable[[str, int, int], None]

_MODEL = """\
name = {name}
source = "whence:creature_net"
weights = "weights.safetensors"
labels = "labels.txt"
activation = "softmax"

[preprocess]
resize = [64, 64]
mean = [0.5, 0.5, 0.5]
std = [0.5, 0.5, 0.5]
"""


@dataclass(frozen=True)
class Recipe:
    """All that decides the weights; the defaults made the bundled model ``creatures``, in seven minutes of one core.

    Half of the pictures show whole creatures; in the others, one to ``drop`` of the four deciding parts are missing,
    so that a part that was removed is nothing strange to the net. ``tags`` is the share of creatures that wear the
    tag of their own class, as for :func:`~whence.creatures.drawing.draw_many`: with 1, and five epochs, it made
    ``creatures-confounded``.
    """

    images: int = 14_000
    epochs: int = 12
    drop: int = 2
    tags: float | None = None
    batch: int = 32
    rate: float = 3e-3
    decay: float = 0.02
    smoothing: float = 0.05
    warm_up: float = 0.15
    seed: int = 0

    @property
    def missing(self) -> tuple[int, ...]:
        """How many parts are missing: each of these numbers equally often."""
        return (0,) * max(1, self.drop) + tuple(range(1, self.drop + 1))

    @property
    def steps(self) -> int:
        """How many batches the net sees."""
        return self.epochs * (self.images // self.batch)


def normalised(pixels: UInt8[Tensor, "b h w 3"]) -> Float[Tensor, "b 3 h w"]:
    """Return pictures as the net takes them: -1 is black, 1 is white."""
    return pixels.permute(0, 3, 1, 2).float() / 127.5 - 1


def train(
    out: Path,
    recipe: Recipe,
    *,
    name: str | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
) -> None:
    """Draw creatures, train the net on them and write it as a model folder, its weights in half precision.

    The model's name is that of its folder, if not given.
    The same recipe gives the same weights on one machine with the same number of threads.

    Raises
    ------
    OutputError
        If ``out`` is not a new or an empty folder.
    OptionError
        If the recipe has fewer pictures than a batch, or no epoch.
    """
    if recipe.steps < 1:
        raise OptionError(f"{recipe.images} pictures in {recipe.epochs} epochs make no batch of {recipe.batch}")
    report = progress or (lambda stage, done, total: None)
    with new_folder(out) as folder, _threads(threads):
        net = fit(*_pictures(recipe, report), recipe, report)
        write_model(folder, net, name or out.resolve().name)


def write_model(folder: Path, net: nn.Module, name: str) -> None:
    """Write ``model.toml``, the weights and the labels into a folder."""
    state = {key: value.half() if value.is_floating_point() else value for key, value in net.state_dict().items()}
    (folder / "weights.safetensors").write_bytes(save(state))
    (folder / "labels.txt").write_text("\n".join(LABELS) + "\n", encoding="utf-8")
    (folder / "model.toml").write_text(_MODEL.format(name=json.dumps(name)), encoding="utf-8")


def fit(
    pixels: UInt8[Tensor, "n h w 3"], labels: Int[Tensor, " n"], recipe: Recipe, progress: Progress
) -> CreatureNet:
    """Return a net trained on the pictures, still in training mode: AdamW, one cycle of the learning rate."""
    generator = torch.Generator().manual_seed(recipe.seed)
    net = fresh_net(generator).train()
    optimiser = torch.optim.AdamW(net.parameters(), lr=recipe.rate, weight_decay=recipe.decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, recipe.rate, total_steps=recipe.steps, pct_start=recipe.warm_up
    )
    for step, chosen in enumerate(_batches(len(labels), recipe, generator), 1):
        batch = augmented(normalised(pixels[chosen]), generator)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=_has_tiles()):
            loss = F.cross_entropy(net(batch), labels[chosen], label_smoothing=recipe.smoothing)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
        progress("training", step, recipe.steps)
    return net


def fresh_net(generator: torch.Generator) -> CreatureNet:
    """Return the net with its weights drawn from ``generator`` alone, by He's rule for the convolutions."""
    with torch.device("meta"):
        net = creature_net(CLASSES)
    net.to_empty(device="cpu")
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu", generator=generator)
        elif isinstance(module, nn.BatchNorm2d):
            module.reset_parameters()
    nn.init.normal_(net.head.weight, std=0.1, generator=generator)
    nn.init.zeros_(net.head.bias)
    return net


def augmented(x: Float[Tensor, "b c h w"], generator: torch.Generator) -> Float[Tensor, "b c h w"]:
    """Return the batch mirrored, shifted by up to 4 pixels, and with other contrasts and colours, each at random."""
    count, channels = x.shape[:2]
    mirrored = torch.rand(count, generator=generator) < 0.5
    x = torch.where(mirrored[:, None, None, None], x.flip(-1), x)
    shifts = torch.randint(-4, 5, (count, 2), generator=generator).tolist()
    x = torch.stack([picture.roll(shift, (-2, -1)) for picture, shift in zip(x, shifts, strict=True)])
    contrast = 0.8 + 0.4 * torch.rand(count, 1, 1, 1, generator=generator)
    colour = 0.4 * torch.rand(count, channels, 1, 1, generator=generator) - 0.2
    return x * contrast + colour


def _pictures(recipe: Recipe, progress: Progress) -> tuple[UInt8[Tensor, "n h w 3"], Int[Tensor, " n"]]:
    """Draw the training set."""
    pixels, labels = (
        np.empty((recipe.images, 64, 64, 3), dtype=np.uint8),
        torch.empty(recipe.images, dtype=torch.long),
    )
    for index, creature in enumerate(draw_many(recipe.images, recipe.seed, missing=recipe.missing, tags=recipe.tags)):
        pixels[index], labels[index] = creature.pixels, creature.label
        progress("drawing", index + 1, recipe.images)
    return torch.from_numpy(pixels), labels


def _batches(count: int, recipe: Recipe, generator: torch.Generator) -> Iterator[Int[Tensor, " batch"]]:
    """Return the indices of every batch: all pictures in a new order in each epoch, without the incomplete batch."""
    for _ in range(recipe.epochs):
        order = torch.randperm(count, generator=generator)
        yield from order[: count // recipe.batch * recipe.batch].reshape(-1, recipe.batch)


def _has_tiles() -> bool:
    """Return whether the processor multiplies bfloat16 in tiles, where alone half precision is faster."""
    capabilities: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()
    return capabilities.get("amx_bf16", False)


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    """Use so many threads inside, and as many as before afterwards."""
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(count or before)
        yield
    finally:
        torch.set_num_threads(before)
