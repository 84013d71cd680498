"""Sums over the batches of all processes: a loss of a whole batch is the same on any number of them."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.nn.functional import all_reduce

__all__ = ["over_processes"]


def over_processes(sums: Tensor) -> Tensor:
    """Add the tensors of all processes; the tensor itself in a single one, and without gradients (evaluation).

    A loss ``f(over_processes(s))`` is equal in all processes, and the mean of its gradients over them, which is what
    ``DistributedDataParallel`` takes, is the gradient of the whole batch.

    Args:
        sums: of this process, any shape, the same in all.
    """
    if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        return sums
    if not torch.is_grad_enabled():
        return sums
    every: Tensor = all_reduce(sums.contiguous())
    return every
