"""The small convolutional net that tells the creatures apart."""

from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor, nn

from whence.errors import ModelError, nearest

_GROUPS = 8


class LayerNorm2d(nn.LayerNorm):
    """Layer normalisation over the channels of each place, as ConvNeXt has it, for maps with the channels first.

    A group norm with one group is something else: it takes the mean over all places, too.
    """

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Return the map with mean 0 and variance 1 over the channels of each place, then scaled and shifted."""
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


_NORMS: dict[str, Callable[[int], nn.Module]] = {
    "batch": nn.BatchNorm2d,
    "group": lambda channels: nn.GroupNorm(_GROUPS, channels),
    "layer": LayerNorm2d,
}


def convolution(inputs: int, outputs: int, size: int = 3, stride: int = 1, norm: str = "batch") -> nn.Sequential:
    """Return a convolution that keeps the size at stride 1, with its normalisation.

    Raises
    ------
    ModelError
        There is no such ``norm``.
    """
    if norm not in _NORMS:
        raise ModelError(f"the creature-net has no norm {norm!r}, {nearest(norm, _NORMS)}")
    convolve = nn.Conv2d(inputs, outputs, size, stride, padding=size // 2, bias=False)
    return nn.Sequential(convolve, _NORMS[norm](outputs))


class Block(nn.Module):
    """A residual block: two 3x3 convolutions beside a shortcut, y = relu(f(x) + shortcut(x))."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1, norm: str = "batch") -> None:
        super().__init__()
        same = inputs == outputs and stride == 1
        self.first = convolution(inputs, outputs, stride=stride, norm=norm)
        self.first_relu = nn.ReLU()
        self.second = convolution(outputs, outputs, norm=norm)
        self.shortcut = nn.Identity() if same else convolution(inputs, outputs, 1, stride, norm)
        self.relu = nn.ReLU()

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d i j"]:
        """Return the block's map; d = ``outputs`` channels, (i, j) = (h, w) / stride."""
        inner = self.second(self.first_relu(self.first(x)))
        y: Tensor = self.relu(inner + self.shortcut(x))
        return y


class CreatureNet(nn.Module):
    """Stem, three residual stages, one more convolution, the mean over all places, one linear layer.

    The last map is [B, 64, H/4, W/4]; each of its cells sees 47 pixels of the picture.
    """

    def __init__(self, classes: int = 9, norm: str = "batch") -> None:
        super().__init__()
        self.stem = nn.Sequential(*convolution(3, 16, stride=2, norm=norm), nn.ReLU())
        self.stages = nn.Sequential(
            Block(16, 16, norm=norm), Block(16, 48, stride=2, norm=norm), Block(48, 80, norm=norm)
        )
        self.top = nn.Sequential(*convolution(80, 64, norm=norm), nn.ReLU())
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(64, classes)

    def forward(self, x: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b k"]:
        """Return the logits of k classes."""
        features = self.top(self.stages(self.stem(x)))
        logits: Tensor = self.head(self.pool(features).flatten(1))
        return logits


def creature_net(classes: int = 9, norm: str = "batch") -> CreatureNet:
    """Return the net with 177,113 parameters (at nine classes), freshly initialised.

    ``norm`` is what follows every convolution: ``batch``, ``group`` (eight groups of channels) or ``layer`` (over the
    channels of each place). All have the same parameters; only ``batch`` has running statistics beside them.

    Raises
    ------
    ModelError
        There is no such ``norm``.
    """
    return CreatureNet(classes, norm)
