"""Nets that fold, and what must then stay the same."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from small_nets import Lambda, drawn, pictures, relative
from whence.models.folding import Folding, folding_of


def there_and_back(run: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the output, and the gradient of its first column."""
    leaf = x.clone().requires_grad_()
    output = run(leaf.clone())
    return output.detach(), torch.autograd.grad(output[:, 0].sum(), leaf)[0]


def folded(net: nn.Module, x: Tensor) -> Folding:
    """Return what folds a net in eval mode."""
    net.eval()
    return folding_of(net, x, lambda given: net(given.clone()))


def assert_folds(net: nn.Module, count: int, x: Tensor | None = None) -> None:
    """See that so many norms are folded, and that outputs and gradients stay what they are."""
    x = pictures(3) if x is None else x
    fold = folded(net, x)
    assert len(fold.pairs) == count
    with torch.no_grad():
        assert relative(fold.outputs(x.clone(), net), net(x.clone())) <= 1e-12
    for ours, own in zip(there_and_back(lambda a: fold.outputs(a, net), x), there_and_back(net, x), strict=True):
        assert relative(ours, own) <= 1e-12


def small(function: Callable[..., Tensor], **layers: nn.Module) -> nn.Module:
    """Return a drawn net: a first convolution without bias, what ``function`` makes of it, a head on the means."""
    net = Lambda(lambda net, x: net.head(function(net, net.conv(x)).mean((2, 3))), head=nn.Linear(8, 5), **layers)
    net.conv = nn.Conv2d(3, 8, 3, bias=False)
    return drawn(net)
