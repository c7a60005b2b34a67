"""Small nets and inputs for tests that run over methods, layers and targets."""

from collections.abc import Callable
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from whence import methods
from whence.models.classifier import Classifier
from whence.models.random import draw
from whence.registry import MethodFacts

Net = TypeVar("Net", bound=nn.Module)

SIZE = 16
# Enough of everything for a method to do all its steps once.
TINY = {"samples": 3, "steps": 3, "iterations": 3, "roots": 2, "budget": 40, "grid": 3}


def drawn(net: Net, seed: int = 0, shape: tuple[int, int, int] = (3, SIZE, SIZE)) -> Net:
    """Return the net in float64 with every weight drawn from the seed: no dead head, no layer scale near zero."""
    draw(net, seed, shape)
    return net.double()


def pictures(count: int = 2, channels: int = 3, size: int | tuple[int, int] = SIZE, seed: int = 0) -> Tensor:
    """Return [count, channels, height, width] in float64, each picture with another mean."""
    height, width = (size, size) if isinstance(size, int) else size
    noise = torch.randn(count, channels, height, width, generator=torch.Generator().manual_seed(seed))
    return noise.double() + 0.1 * torch.arange(count).reshape(-1, 1, 1, 1)


def tiny_options(facts: MethodFacts) -> dict[str, object]:
    """Return options that make any method quick, and that need no pixel range."""
    tiny = {name: value for name, value in TINY.items() if name in facts.options}
    black = "baseline" in facts.options and facts.options["baseline"].default == "black"
    return {**tiny, "baseline": "zeros"} if black else tiny


def net_for(name: str, **options: bool | int) -> nn.Module:
    """Return a drawn net that the method can explain."""
    attention = methods.facts(name).needs == "attention"
    return drawn(SmallViT(**options) if attention else SmallNet(**options))


def relative(a: Tensor, b: Tensor) -> float:
    """Return the largest difference, relative to the largest value of ``b``."""
    return float((a - b).abs().max() / b.abs().max().clamp(min=1e-300))


class Block(nn.Module):
    """A residual block whose sum and rectifier may work in place."""

    def __init__(self, width: int, inplace: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace)
        self.inplace = inplace

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn(self.conv(x))
        if self.inplace:
            out += x
        else:
            out = out + x
        return self.relu(out)


class SmallNet(nn.Module):
    """A stem, a residual block, one more stage, the mean over all places, dropout, one linear layer.

    One rectifier module runs twice; its second call is named ``relu#1``.
    """

    def __init__(self, channels: int = 3, classes: int = 5, inplace: bool = True) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(channels, 6, 3, padding=1), nn.BatchNorm2d(6))
        self.relu = nn.ReLU(inplace)
        self.block = Block(6, inplace)
        self.down = nn.Conv2d(6, 8, 3, stride=2, padding=1)
        self.dropout = nn.Dropout(0.5)
        self.head = nn.Linear(8, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.block(self.relu(self.stem(x)))
        x = self.relu(self.down(x))
        return self.head(self.dropout(x.mean((2, 3))))


class Attention(nn.Module):
    """Self-attention with one matrix for queries, keys and values."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class AttentionBlock(nn.Module):
    """Attention and a perceptron, each behind a norm and beside a shortcut."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = Attention(width, heads)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class SmallViT(nn.Module):
    """Patches of four pixels, a class token, two blocks; the head reads that token, or the mean of all patches."""

    def __init__(self, channels: int = 3, classes: int = 5, width: int = 12, token: bool = True) -> None:
        super().__init__()
        self.patch = nn.Conv2d(channels, width, 4, stride=4)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width)) if token else None
        self.blocks = nn.Sequential(AttentionBlock(width, 3), AttentionBlock(width, 3))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)
        if self.cls_token is not None:
            x = torch.cat((self.cls_token.expand(len(x), -1, -1), x), dim=1)
        x = self.norm(self.blocks(x))
        return self.head(x[:, 0] if self.cls_token is not None else x.mean(1))


class Lambda(nn.Module):
    """A module from a function, and modules that the function uses by name: ``f(self, x)``."""

    def __init__(self, function: Callable[..., object], **layers: nn.Module) -> None:
        super().__init__()
        self.function = function
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, x: Tensor) -> object:
        return self.function(self, x)


def rounding() -> nn.Module:
    """Return a net in float32 whose scores depend on nothing, and round differently with the size of the batch.

    Matrix products do so on many machines; here it is sure to happen. The layer ``aside`` goes nowhere.
    """
    eps = torch.finfo(torch.float32).eps

    def forward(net: nn.Module, x: Tensor) -> Tensor:
        net.aside(x)
        return net.head(x.new_ones(len(x), 512)) * (1 + eps * (len(x) % 4))

    net = drawn(Lambda(forward, aside=nn.Conv2d(3, 16, 3), head=nn.Linear(512, 5))).float()
    with torch.no_grad():
        net.head.bias += 30  # so that no score nearly cancels out
    return net


def classifier(net: nn.Module, **arguments: object) -> Classifier:
    """Return a Classifier around a net."""
    return Classifier(net, **arguments)
