"""Sums over the whole batch where it is spread over the processes of torch.distributed; alone they cost nothing.

Every process must take part in each of them. A loss built of them has the same value in all processes, and the
gradient that each finds is that of the sum of all of them, so that the mean over the processes, which
DistributedDataParallel takes, is the gradient of the loss.
"""

import os
from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor


def count() -> int:
    """Return how many processes share the batch."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def first() -> bool:
    """Return whether this process is the one that writes; also before the processes have found each other."""
    return int(os.environ.get("RANK", "0")) == 0


class _Sum(torch.autograd.Function):
    """The sum over the processes; its gradient is the sum of their gradients."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:  # noqa: ANN401  (autograd's contexts have no public type)
        total = tensor.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:  # noqa: ANN401
        total = gradients[0].clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total


def summed(tensor: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Return the sum over all processes."""
    if count() == 1:
        return tensor
    total: Tensor = _Sum.apply(tensor)
    return total


def logsumexp(s: Float[Tensor, "b *rest"]) -> Float[Tensor, "*rest"]:
    """Return log sum_b exp(s_b) over the pictures of all processes."""
    if count() == 1:
        return s.logsumexp(0)
    largest = s.detach().amax(0)
    dist.all_reduce(largest, dist.ReduceOp.MAX)
    return largest + summed((s - largest).exp().sum(0)).log()


def pictures(x: Float[Tensor, "b *rest"]) -> Float[Tensor, ""]:
    """Return how many pictures the batch holds in all processes."""
    return summed(x.new_tensor(float(len(x))))
