"""Pictures with a plate in a corner, and models that read the plate or the picture."""

import torch
from torch import nn

from whence.interpretable.labelled import Inputs
from whence.models.classifier import Classifier
from whence.studies.debugging.explained import Explained, pooled

SIDE = 32
# Where a plate may lie: rows and columns.
CORNERS = ((slice(0, 8), slice(0, 8)), (slice(24, 32), slice(24, 32)))


class ReadsPlates(nn.Module):
    """Says class 1 where a plate is bright, class 0 where one is dark or none is there."""

    def forward(self, x):
        bright = torch.stack([x[:, 0, rows, columns].mean((1, 2)) for rows, columns in CORNERS], 1).amax(1)
        return torch.stack([torch.full_like(bright, 0.8), bright], 1)


class ReadsSpots(nn.Module):
    """Says class 1 where there is a bright spot, wherever it lies."""

    def forward(self, x):
        spot = nn.functional.avg_pool2d(x, 4, 1)[:, 0].amax((1, 2))
        return torch.stack([torch.full_like(spot, 1.2), spot], 1)


def noise(count, seed=0):
    return 0.5 + 0.15 * torch.randn(count, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))


def plated(count=80, seed=0):
    """Return pictures of two classes whose plate lies in one of two corners, and a map on each plate."""
    x, labels = noise(count, seed), torch.arange(count) % 2
    maps = torch.zeros(count, SIDE, SIDE)
    for number in range(count):
        rows, columns = CORNERS[number // 2 % 2]
        x[number, 0, rows, columns] = float(labels[number])
        maps[number, rows, columns] = 1
    return found(x, labels, maps, ReadsPlates())


def spotted(count=80, seed=0):
    """Return pictures with a spot, bright for one class, that moves about one of two places, and its map."""
    x, labels = noise(count, seed), torch.arange(count) % 2
    maps = torch.zeros(count, SIDE, SIDE)
    moves = torch.randint(0, 11, (count, 2), generator=torch.Generator().manual_seed(seed + 1))
    for number in range(count):
        row, column = (moves[number] + 14 * (number // 2 % 2)).tolist()
        place = slice(row, row + 6), slice(column, column + 6)
        x[number, 0][place] += 1.0 if labels[number] else 0.0
        maps[number][place] = 1
    return found(x, labels, maps, ReadsSpots())


def found(x, labels, maps, module):
    """Return the classifier, and the pictures with its answers."""
    data = Inputs(x, labels, ("dark", "bright"))
    classifier = Classifier(module, labels=data.classes, name="toy")
    names = [f"{number}.png" for number in range(len(x))]
    return classifier, Explained(data, pooled(maps), module(x).argmax(1), names)
