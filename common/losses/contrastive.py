"""Contrastive losses: what belongs together is pulled together, everything else apart."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.nn.functional import all_gather
from torch.nn.functional import cross_entropy, normalize

from ..errors import ConfigError

__all__ = ["nt_xent"]


def nt_xent(first: Tensor, second: Tensor, *, temperature: float = 0.1) -> Tensor:
    """Normalised temperature-scaled cross-entropy between two views of each sample.

    With ``z`` the ``2B`` vectors of unit length and ``j(i)`` the other view of ``i``:
    ``L = mean_i -log( exp(z_i . z_j(i) / t) / sum_{k != i} exp(z_i . z_k / t) )``. Under ``torch.distributed`` the
    samples of all processes are candidates; the mean over processes is the loss of the whole batch, and so is its
    gradient.

    Args:
        first: ``[B, d]``, any length.
        second: ``[B, d]``, the other views of the same samples.
        temperature: t > 0.

    Returns:
        A scalar >= 0; ``log(2B - 1)`` for vectors that are all alike.

    Raises:
        ConfigError: for a temperature that is not positive, views that do not pair, or fewer than two samples.

    Reference:
        Chen et al., A Simple Framework for Contrastive Learning of Visual Representations, 2020, equation 1.
    """
    if not temperature > 0:
        raise ConfigError("a temperature is positive", where="temperature", got=temperature)
    if first.shape != second.shape or first.ndim != 2:
        raise ConfigError("two views of the same samples", got=(tuple(first.shape), tuple(second.shape)),
                          expected="[B, d] twice")  # fmt: skip
    own = torch.stack([normalize(first.float(), dim=1), normalize(second.float(), dim=1)])
    every, rank = _every_process(own)
    size, whole = own.shape[1], every.shape[1]
    if whole < 2:
        raise ConfigError("nothing to tell a sample apart from", where="batch_size", got=whole, expected=">= 2")
    candidates = every.flatten(0, 1)
    logits = own.flatten(0, 1) @ candidates.T / temperature
    sample = torch.arange(rank * size, (rank + 1) * size, device=own.device)
    itself, other = torch.cat([sample, sample + whole]), torch.cat([sample + whole, sample])
    logits = logits.scatter(1, itself[:, None], -torch.inf)
    return cross_entropy(logits, other)


def _every_process(views: Tensor) -> tuple[Tensor, int]:
    """The views ``[2, B, d]`` of all processes, ``[2, processes B, d]``, and this one's rank."""
    if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        return views, 0
    if not torch.is_grad_enabled():
        parts = [torch.empty_like(views) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, views.contiguous())
        return torch.cat(parts, 1), dist.get_rank()
    return torch.cat(all_gather(views.contiguous()), 1), dist.get_rank()
