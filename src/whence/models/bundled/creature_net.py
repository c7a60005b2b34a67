"""The small convolutional net that tells the creatures apart."""

from jaxtyping import Float
from torch import Tensor, nn


def _convolution(inputs: int, outputs: int, size: int = 3, stride: int = 1) -> nn.Sequential:
    """Return a convolution that keeps the size at stride 1, with its batch normalisation."""
    convolution = nn.Conv2d(inputs, outputs, size, stride, padding=size // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs))


class Block(nn.Module):
    """A residual block: two 3x3 convolutions beside a shortcut, y = relu(f(x) + shortcut(x))."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        same = inputs == outputs and stride == 1
        self.first = _convolution(inputs, outputs, stride=stride)
        self.first_relu = nn.ReLU()
        self.second = _convolution(outputs, outputs)
        self.shortcut = nn.Identity() if same else _convolution(inputs, outputs, 1, stride)
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

    def __init__(self, classes: int = 9) -> None:
        super().__init__()
        self.stem = nn.Sequential(*_convolution(3, 16, stride=2), nn.ReLU())
        self.stages = nn.Sequential(Block(16, 16), Block(16, 48, stride=2), Block(48, 80))
        self.top = nn.Sequential(*_convolution(80, 64), nn.ReLU())
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(64, classes)

    def forward(self, x: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b k"]:
        """Return the logits of k classes."""
        features = self.top(self.stages(self.stem(x)))
        logits: Tensor = self.head(self.pool(features).flatten(1))
        return logits


def creature_net(classes: int = 9) -> CreatureNet:
    """Return the net with 177,113 parameters (at nine classes), freshly initialised."""
    return CreatureNet(classes)
