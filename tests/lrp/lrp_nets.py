"""Small nets of every kind of operation, for tests of layer-wise relevance propagation."""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from small_nets import SIZE, Lambda, SmallNet, SmallViT, drawn
from whence import attribute
from whence.models.classifier import Classifier
from whence.results import Attribution

CLASSES = 5


def lrp(net: nn.Module | Classifier, x: Tensor, **options: Any) -> Attribution:
    """Explain class 1, or what else is asked for."""
    model = net if isinstance(net, Classifier) else Classifier(net)
    return attribute(model, x, "lrp", **{"target": 1, **options})


def stirred(net: nn.Module, seed: int = 0, size: int = SIZE) -> nn.Module:
    """Return the net in float64 with drawn weights, large biases, and batch norms that also turn signs around."""
    net = drawn(net, seed, (3, size, size))
    generator = torch.Generator().manual_seed(seed)

    def noise(like: Tensor) -> Tensor:
        return torch.randn(like.shape, generator=generator).double()

    with torch.no_grad():
        for layer in net.modules():
            if isinstance(layer, nn.BatchNorm2d | nn.LayerNorm | nn.GroupNorm) and layer.weight is not None:
                layer.weight.copy_(1 + 0.7 * noise(layer.weight))
            if isinstance(layer, nn.BatchNorm2d):
                layer.running_mean.add_(0.2 * noise(layer.running_mean))
        for name, parameter in net.named_parameters():
            if "bias" in name:
                parameter.copy_(0.3 * noise(parameter))
    return net


def without_biases(net: nn.Module) -> nn.Module:
    """Return the net with everything zero that is added: biases, the means of batch norms, tokens, embeddings."""
    with torch.no_grad():
        for name, t in [*net.named_parameters(), *net.named_buffers()]:
            if name.endswith(("bias", "mean", "token", "position")):
                t.zero_()
    return net


def pooled(x: Tensor) -> Tensor:
    return x.mean((2, 3))


class Weighed(nn.Module):
    """A convolution whose weights are standardised on the fly, as in networks without norms."""

    def __init__(self, inside: int, outside: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outside, inside, 3, 3))
        self.gain = nn.Parameter(torch.ones(outside, 1, 1, 1))
        self.bias = nn.Parameter(torch.zeros(outside))

    def forward(self, x: Tensor) -> Tensor:
        variance, mean = torch.var_mean(self.weight, dim=(1, 2, 3), keepdim=True)
        weight = (self.weight - mean) * torch.rsqrt(variance * 27 + 1e-4) * self.gain
        return F.conv2d(x, weight, self.bias, padding=1)


def residual() -> nn.Module:
    return SmallNet(inplace=False)


def in_place() -> nn.Module:
    return SmallNet(inplace=True)


def depthwise() -> nn.Module:
    def forward(net: nn.Module, x: Tensor) -> Tensor:
        y = F.relu6(net.norm1(net.expand(net.stem(x))))
        y = F.hardswish(net.norm2(net.depthwise(y)))
        return net.head(pooled(net.stem(x) + net.norm3(net.project(y))))

    return Lambda(
        forward,
        stem=nn.Conv2d(3, 4, 3, stride=2, padding=1),
        expand=nn.Conv2d(4, 8, 1, bias=False),
        depthwise=nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False),
        project=nn.Conv2d(8, 4, 1, bias=False),
        norm1=nn.BatchNorm2d(8),
        norm2=nn.BatchNorm2d(8),
        norm3=nn.BatchNorm2d(4),
        head=nn.Linear(4, CLASSES),
    )


def squeeze_excitation() -> nn.Module:
    def forward(net: nn.Module, x: Tensor) -> Tensor:
        y = F.silu(net.norm(net.stem(x)), inplace=True)
        gate = net.up(net.down(y.mean((2, 3), keepdim=True)).relu()).sigmoid()
        return net.head(pooled(net.last(y * gate).relu()))

    layers = {"norm": nn.BatchNorm2d(6), "down": nn.Conv2d(6, 3, 1), "up": nn.Conv2d(3, 6, 1)}
    return Lambda(
        forward,
        stem=nn.Conv2d(3, 6, 3, bias=False),
        last=nn.Conv2d(6, 6, 3),
        head=nn.Linear(6, CLASSES),
        **layers,
    )


class Scaled(nn.Module):
    """Layer scale."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.full((width,), 0.5))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale


def gelu_and_layer_norm() -> nn.Module:
    def forward(net: nn.Module, x: Tensor) -> Tensor:
        x = net.stem(x)
        y = net.norm(net.depthwise(x).permute(0, 2, 3, 1))
        y = net.scale(net.project(F.gelu(net.expand(y))))
        return net.head(net.last(pooled(x + y.permute(0, 3, 1, 2))))

    return Lambda(
        forward,
        stem=nn.Conv2d(3, 6, 2, stride=2),
        depthwise=nn.Conv2d(6, 6, 5, padding=2, groups=6),
        norm=nn.LayerNorm(6),
        expand=nn.Linear(6, 12),
        project=nn.Linear(12, 6),
        scale=Scaled(6),
        last=nn.LayerNorm(6),
        head=nn.Linear(6, CLASSES),
    )


class Positions(nn.Module):
    """Adds an embedding of the positions."""

    def __init__(self, tokens: int, width: int) -> None:
        super().__init__()
        self.position = nn.Parameter(torch.randn(1, tokens, width))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.position


def positions() -> nn.Module:
    """Return a transformer of torch's own attention module, with positions added."""

    def forward(net: nn.Module, x: Tensor) -> Tensor:
        x = net.positions(net.patch(x).flatten(2).transpose(1, 2))
        y = net.norm(x)
        x = x + net.attention(y, y, y, need_weights=False)[0]
        return net.head(F.gelu(net.mlp(x)).mean(1))

    return Lambda(
        forward,
        patch=nn.Conv2d(3, 8, 4, stride=4),
        positions=Positions(16, 8),
        norm=nn.LayerNorm(8),
        attention=nn.MultiheadAttention(8, 2, batch_first=True),
        mlp=nn.Linear(8, 10),
        head=nn.Linear(10, CLASSES),
    )


def attention() -> nn.Module:
    return SmallViT()


def explicit_attention() -> nn.Module:
    """Return attention written out in matrix products, in front of a convolution."""

    def forward(net: nn.Module, x: Tensor) -> Tensor:
        y = net.patch(x)
        q, k, v = net.qkv(y.flatten(2).transpose(1, 2)).chunk(3, dim=-1)
        a = (q @ k.transpose(1, 2) / 2).softmax(dim=-1)
        y = y + (a @ v).transpose(1, 2).reshape(y.shape)
        return net.head(pooled(net.last(y).relu()))

    layers = {"patch": nn.Conv2d(3, 4, 4, stride=4), "qkv": nn.Linear(4, 12), "last": nn.Conv2d(4, 6, 3, padding=1)}
    return Lambda(forward, **layers, head=nn.Linear(6, CLASSES))


def concatenation() -> nn.Module:
    """Return dense connections: batch norms that stand alone before a convolution, behind a concatenation."""

    def forward(net: nn.Module, x: Tensor) -> Tensor:
        x = F.max_pool2d(net.norm0(net.stem(x)).relu(), 3, 2, 1)
        for conv, norm in ((net.conv1, net.norm1), (net.conv2, net.norm2)):
            x = torch.cat([x, conv(norm(x).relu_())], 1)
        return net.head(torch.flatten(F.adaptive_avg_pool2d(net.norm3(x).relu(), 1), 1))

    return Lambda(
        forward,
        stem=nn.Conv2d(3, 4, 3, padding=1, bias=False),
        norm0=nn.BatchNorm2d(4),
        norm1=nn.BatchNorm2d(4),
        conv1=nn.Conv2d(4, 3, 3, padding=1, bias=False),
        norm2=nn.BatchNorm2d(7),
        conv2=nn.Conv2d(7, 3, 3, padding=1, bias=False),
        norm3=nn.BatchNorm2d(10),
        head=nn.Linear(10, CLASSES),
    )


def standardised_weights() -> nn.Module:
    """Return a net without norms, which multiplies in place by a gain in a statement of its own."""

    def forward(net: nn.Module, x: Tensor) -> Tensor:
        x = F.silu(net.stem(x)) * 1.7881
        y = net.conv(x)
        y.mul_(0.7)
        y = y + x
        y.relu_()
        return net.head(pooled(y))

    return Lambda(forward, stem=Weighed(3, 6), conv=Weighed(6, 6), head=nn.Linear(6, CLASSES))


class Normalise(nn.Module):
    """Normalises a picture with buffers of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor([0.5, -0.4, 0.3]).reshape(1, 3, 1, 1))
        self.register_buffer("deviation", torch.tensor([0.2, 1.3, 0.7]).reshape(1, 3, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.deviation


def normalise() -> nn.Module:
    return nn.Sequential(Normalise(), SmallNet())


def functional() -> nn.Module:
    """Return a net that calls functions with parameters of its own, in place where it can."""

    def forward(net: nn.Module, x: Tensor) -> Tensor:
        x = F.conv2d(x, net.a.weight, net.a.bias, 1, 1)
        x = F.relu(F.batch_norm(x, net.n.running_mean, net.n.running_var, net.n.weight, net.n.bias), inplace=True)
        x = F.avg_pool2d(F.leaky_relu_(F.conv2d(x, net.b.weight, padding="same"), 0.1), 2)
        x = torch.flatten(F.dropout(F.adaptive_max_pool2d(x, 2), training=net.training), 1)
        return torch.addmm(net.head.bias, x, net.head.weight.t())

    layers = {"a": nn.Conv2d(3, 4, 3), "n": nn.BatchNorm2d(4), "b": nn.Conv2d(4, 4, 3, bias=False)}
    return Lambda(forward, **layers, head=nn.Linear(16, CLASSES))


def twice() -> nn.Module:
    """Return a net in which one convolution and its batch norm run twice."""

    def forward(net: nn.Module, x: Tensor) -> Tensor:
        x = net.stem(x).relu()
        x = net.conv(net.conv(x).relu()).relu()
        return net.head(pooled(x))

    conv = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4))
    return Lambda(forward, stem=nn.Conv2d(3, 4, 3, stride=2), conv=conv, head=nn.Linear(4, CLASSES))


def branches() -> nn.Module:
    """Return parallel branches of different depth, and two readers of one convolution, one of which writes to it."""

    def forward(net: nn.Module, x: Tensor) -> Tensor:
        one = net.wide(x)
        both = net.norm(one), one.relu_()
        two = net.second(net.first(x).relu())
        return net.head(pooled(torch.cat([*both, two, F.avg_pool2d(x, 3, 1, 1)], 1)))

    return Lambda(
        forward,
        wide=nn.Conv2d(3, 4, 5, padding=2),
        norm=nn.BatchNorm2d(4),
        first=nn.Conv2d(3, 4, 1),
        second=nn.Conv2d(4, 2, 3, padding=1),
        head=nn.Linear(13, CLASSES),
    )


def written_to() -> nn.Module:
    """Return a net that writes to what its convolutions have kept."""

    def forward(net: nn.Module, x: Tensor) -> Tensor:
        x = net.stem(x)
        y = net.conv(x)
        z = net.norm(y)
        x += y
        x.mul_(0.5).relu_()
        y[:, :2] = z[:, 2:]
        return net.head(pooled(torch.cat([x, y, z], 1)))

    layers = {"stem": nn.Conv2d(3, 4, 3), "conv": nn.Conv2d(4, 4, 3, padding=1), "norm": nn.BatchNorm2d(4)}
    return Lambda(forward, **layers, head=nn.Linear(12, CLASSES))


def local_response_norm() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 6, 3),
        nn.ReLU(),
        nn.LocalResponseNorm(3, alpha=0.3),
        nn.MaxPool2d(3, 2, ceil_mode=True),
        nn.Conv2d(6, 6, 3),
        nn.GroupNorm(2, 6),
        nn.ELU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(24, CLASSES),
    )


KINDS: dict[str, Callable[[], nn.Module]] = {
    made.__name__: made
    for made in (
        residual,
        in_place,
        depthwise,
        squeeze_excitation,
        gelu_and_layer_norm,
        positions,
        attention,
        explicit_attention,
        concatenation,
        standardised_weights,
        normalise,
        functional,
        twice,
        branches,
        written_to,
        local_response_norm,
    )
}


@lru_cache
def net_of(kind: str) -> nn.Module:
    """Return the stirred net of a kind, made once: nothing may change it."""
    return stirred(KINDS[kind]())
