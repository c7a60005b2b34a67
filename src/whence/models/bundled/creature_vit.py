"""The small vision transformer that tells the creatures apart."""

from collections import OrderedDict
from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from whence.errors import ModelError, nearest
from whence.models.bundled.creature_net import convolution, creature_net

_SIDE, _STRIDE, _MAP = 64, 4, 48
_PATCH, _WIDTH, _DEPTH, _HEADS, _HIDDEN = 2, 64, 3, 4, 192
_TOKENS = 1 + (_SIDE // _STRIDE // _PATCH) ** 2


class Attention(nn.Module):
    """Self-attention with one linear layer for queries, keys and values."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(_WIDTH, 3 * _WIDTH)
        self.proj = nn.Linear(_WIDTH, _WIDTH)

    def forward(self, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        """Return for each token what it gathers from all."""
        q, k, v = self.qkv(x).unflatten(2, (3, _HEADS, -1)).permute(2, 0, 3, 1, 4)
        gathered = F.scaled_dot_product_attention(q, k, v)
        y: Tensor = self.proj(gathered.transpose(1, 2).flatten(2))
        return y


class Layer(nn.Module):
    """Attention and a perceptron, each behind a layer norm and beside a shortcut."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.attn = nn.LayerNorm(_WIDTH), Attention()
        self.norm2 = nn.LayerNorm(_WIDTH)
        self.mlp = nn.Sequential(nn.Linear(_WIDTH, _HIDDEN), nn.GELU(), nn.Linear(_HIDDEN, _WIDTH))

    def forward(self, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        """Return the tokens after this layer."""
        x = x + self.attn(self.norm1(x))
        y: Tensor = x + self.mlp(self.norm2(x))
        return y


class CreatureViT(nn.Module):
    """A convolutional stem, 2x2 patches of its map, a class token, three pre-norm layers of width 64 with four heads.

    A token stands for 8x8 pixels; the head reads the class token alone.
    """

    def __init__(self, classes: int = 9, stem: str = "cnn") -> None:
        super().__init__()
        if stem not in _STEMS:
            raise ModelError(f"the creature-ViT has no stem {stem!r}, {nearest(stem, _STEMS)}")
        self.stem = _STEMS[stem]()
        self.patches = nn.Conv2d(_MAP, _WIDTH, _PATCH, stride=_PATCH)
        self.cls_token = nn.Parameter(0.02 * torch.randn(1, 1, _WIDTH))
        self.positions = nn.Parameter(0.02 * torch.randn(1, _TOKENS, _WIDTH))
        self.layers = nn.Sequential(*(Layer() for _ in range(_DEPTH)))
        self.norm = nn.LayerNorm(_WIDTH)
        self.head = nn.Linear(_WIDTH, classes)

    def forward(self, x: Float[Tensor, "b 3 64 64"]) -> Float[Tensor, "b k"]:
        """Return the logits of k classes."""
        patches = self.patches(self.stem(x)).flatten(2).transpose(1, 2)
        tokens = torch.cat((self.cls_token.expand(len(x), -1, -1), patches), dim=1) + self.positions
        logits: Tensor = self.head(self.norm(self.layers(tokens))[:, 0])
        return logits


def _cnn_stem() -> nn.Module:
    net = creature_net()
    return nn.Sequential(OrderedDict(stem=net.stem, stages=net.stages[:2]))


def _own_stem() -> nn.Module:
    return nn.Sequential(
        *(*convolution(3, 16, stride=2), nn.ReLU()),
        *(*convolution(16, _MAP, stride=2), nn.ReLU()),
    )


_STEMS: dict[str, Callable[[], nn.Module]] = {"cnn": _cnn_stem, "own": _own_stem}


def creature_vit(classes: int = 9, stem: str = "cnn") -> CreatureViT:
    """Return the transformer for pictures of 64x64 pixels, freshly initialised.

    Parameters
    ----------
    classes
        How many logits there are.
    stem
        What makes the map [B, 48, 16, 16] that is cut into patches. ``cnn`` is the creature-net's stem and its first
        two residual blocks, under their names there, so that ``net.stem`` takes a trained creature-net's weights:
        176,313 parameters in all. ``own`` are two strided convolutions, with the patches the third: 149,945.

    Raises
    ------
    ModelError
        There is no such ``stem``.
    """
    return CreatureViT(classes, stem)
