"""A training that takes a second: pictures of one bright spot, and a net with batch norm and dropout."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from small_nets import drawn
from whence.interpretable.labelled import Labelled
from whence.interpretable.training import Plan, Recipe

SIZE, FILTERS = 12, 6
LAYER = "4"
RECIPE = Recipe(
    plan=Plan(epochs=2, rate=3e-3, batch=6),
    plain=Plan(epochs=1, rate=3e-3, batch=6),
    layer=LAYER,
    loss="mutual-information",
)


@dataclass(frozen=True, eq=False)
class Spots(Labelled):
    """Noise with a bright spot somewhere, wide in class 0, high in class 1, square in class 2."""

    x: Tensor
    labels: Tensor
    classes: tuple[str, ...]

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.x[index], int(self.labels[index])


def spots(count: int = 20, seed: int = 0, classes: int = 3) -> Spots:
    generator = torch.Generator().manual_seed(seed)
    x = 0.3 * torch.randn(count, 1, SIZE, SIZE, generator=generator)
    labels = torch.arange(count) % classes
    corners = torch.randint(SIZE - 4, (count, 2), generator=generator).tolist()
    for b, (i, j) in enumerate(corners):
        h, w = ((2, 4), (4, 2), (3, 3))[b % classes]
        x[b, :, i : i + h, j : j + w] += 2
    return Spots(x, labels, ("wide", "high", "square")[:classes])


def net(logits: int = 3, norm: nn.Module | None = None, seed: int = 0, dropout: float = 0.3) -> nn.Module:
    """Return a net in float64 and in evaluation mode; maps behind its second rectifier are 6 x 6."""
    made = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1),
        norm or nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, FILTERS, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Dropout(dropout),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(FILTERS, logits),
    )
    return drawn(made, seed, (1, SIZE, SIZE)).train(False)


def recipe(loss: str | None = "mutual-information", **changes: object) -> Recipe:
    """Return the recipe with another loss; plans take what they know, but for the plain one's epochs."""
    of_plan = {name: value for name, value in changes.items() if hasattr(RECIPE.plan, name)}
    others = {name: value for name, value in changes.items() if name not in of_plan}
    plain = {name: value for name, value in of_plan.items() if name != "epochs"}
    return replace(
        RECIPE, loss=loss, plan=replace(RECIPE.plan, **of_plan), plain=replace(RECIPE.plain, **plain), **others
    )


def same(a: nn.Module, b: nn.Module) -> bool:
    """Return whether two nets hold the same bits."""
    one, other = a.state_dict(), b.state_dict()
    return list(one) == list(other) and all(torch.equal(one[name], other[name]) for name in one)
