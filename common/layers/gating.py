"""Routing: how much each expert has to say about each sample."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import ConfigError

__all__ = ["Routing", "hard_routing", "soft_routing"]


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
    """``w = softmax(logits / T)`` over E, computed in float32 so that half precision cannot overflow.

    Args:
        logits: ``[B, E, ...]``.
        temperature: > 0; small means decided.

    Raises:
        ConfigError: for a temperature that is not positive.
    """
    if temperature <= 0:
        raise ConfigError("the temperature must be positive", got=temperature)
    return Routing(torch.softmax(logits.float() / temperature, dim=1).to(logits.dtype), logits)
