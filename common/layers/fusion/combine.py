"""The weighted sum over experts, with shapes that are checked instead of broadcast."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ...errors import ConfigError

__all__ = ["combine"]


def combine(weights: Tensor, experts: Sequence[Tensor] | Tensor) -> Tensor:
    """``y[b] = sum_e w[b, e] * x_e[b]``, accumulated in float32.

    Args:
        weights: ``[B, E]``, or ``[B, E, *S]`` with one weight per position of the expert outputs.
        experts: E tensors ``[B, C, *S]``, or one tensor ``[B, E, C, *S]``.

    Returns:
        ``[B, C, *S]`` in the experts' dtype.

    Raises:
        ConfigError: when any axis differs; nothing is ever broadcast silently.
    """
    parts = list(experts.unbind(1)) if isinstance(experts, Tensor) else list(experts)
    if not parts:
        raise ConfigError("nothing to combine", got="no experts")
    shape = parts[0].shape
    if any(p.shape != shape for p in parts):
        raise ConfigError("expert outputs differ in shape", got=[tuple(p.shape) for p in parts])
    allowed = ((shape[0], len(parts)), (shape[0], len(parts), *shape[2:]))
    if tuple(weights.shape) not in allowed:
        raise ConfigError("weights do not fit the experts", got=tuple(weights.shape), expected=allowed)
    spatial = weights.shape[2:] or (1,) * (len(shape) - 2)
    total = torch.zeros(shape, dtype=torch.promote_types(parts[0].dtype, torch.float32), device=parts[0].device)
    for e, part in enumerate(parts):
        total = total + weights[:, e].reshape(shape[0], 1, *spatial).to(total.dtype) * part
    return total.to(parts[0].dtype)
