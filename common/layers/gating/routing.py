"""Routing: how much each expert has to say about each sample."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ...errors import ConfigError

__all__ = ["Routing", "hard_routing", "soft_routing", "top_k_routing"]


class Routing(NamedTuple):
    """Weights ``[B, E, ...]`` that sum to one over E, and the logits they come from (None for a fixed rule)."""

    weights: Tensor
    logits: Tensor | None


def hard_routing(task_id: Tensor, experts: int) -> Routing:
    """Give each sample to the expert of its task: ``w[b, e] = 1 if e == task_id[b] else 0``.

    Args:
        task_id: ``[B]`` integers in ``0 .. experts - 1``.
        experts: number of experts E.

    Returns:
        Weights ``[B, E]`` float32, no logits.

    Raises:
        ConfigError: for ids that are not integers, not one-dimensional or out of range.
    """
    if task_id.ndim != 1 or task_id.is_floating_point():
        raise ConfigError("task ids must be one integer per sample", got=f"{tuple(task_id.shape)} {task_id.dtype}")
    if task_id.numel() and not 0 <= int(task_id.min()) <= int(task_id.max()) < experts:
        raise ConfigError("a task id has no expert", got=task_id.tolist(), expected=f"0 .. {experts - 1}")
    return Routing(F.one_hot(task_id.long(), experts).float(), None)


def soft_routing(logits: Tensor, *, temperature: float = 1.0) -> Routing:
    """``w = softmax(logits / T)`` over E, computed in float32 or wider so that half precision cannot overflow.

    Args:
        logits: ``[B, E, ...]``.
        temperature: > 0; small means decided.

    Raises:
        ConfigError: for a temperature that is not positive.
    """
    if temperature <= 0:
        raise ConfigError("the temperature must be positive", got=temperature)
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return Routing(torch.softmax(wide / temperature, dim=1).to(logits.dtype), logits)


def top_k_routing(logits: Tensor, k: int) -> Routing:
    """``w = softmax(logits of the k largest)``, exactly 0 for the others; of equal ones the first are taken.

    Args:
        logits: ``[B, E, ...]``.
        k: experts that each position asks, 1 .. E.

    Raises:
        ConfigError: for a k that is out of range.
    """
    if not 1 <= k <= logits.shape[1]:
        raise ConfigError("top-k asks for more experts than there are", got=k, expected=f"1 .. {logits.shape[1]}")
    order = logits.argsort(dim=1, descending=True, stable=True)
    kept = torch.zeros_like(logits, dtype=torch.bool).scatter_(1, order[:, :k], True)
    return Routing(soft_routing(logits.masked_fill(~kept, -torch.inf)).weights, logits)
