"""Arrays in few bytes: whole numbers exactly, others in 16 bits, in whichever of two ways loses less."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["pack", "unpack"]

_WHOLE = (np.uint8, np.int8, np.uint16, np.int16, np.int32, np.int64)
_STEPS = 65535


def pack(values: NDArray[Any]) -> tuple[NDArray[Any], dict[str, Any]]:
    """The array as it is kept, and what :func:`unpack` must know.

    Whole numbers (labels, CT in HU) are kept exactly in the smallest integer type. Others become float16, whose error
    is at most ``2^-11 |x|``, or ``round((x - low) / step)`` in uint16 with each channel's own ``low`` and
    ``step = (high - low) / 65535``, whose error is at most ``step / 2``; the one whose largest error is smaller.
    Infinite and undefined numbers stay what they are.

    Args:
        values: ``[C, ...]`` of numbers or truth values.
    """
    how: dict[str, Any] = {"dtype": values.dtype.name}
    if values.dtype.kind not in "fiub" or not values.size:
        return values, how
    exact = _smallest(values)
    if exact is not None:
        return values.astype(exact), how
    if values.dtype.kind != "f":
        return values, how
    channels = values.reshape(len(values), -1) if values.ndim > 1 else values.reshape(1, -1)
    with np.errstate(over="ignore", invalid="ignore"):
        half = channels.astype(np.float16)
    finite = bool(np.isfinite(channels).all())
    if not finite:
        return (half.reshape(values.shape) if _same_gaps(channels, half) else values), how
    low, high = channels.min(1).astype(np.float64), channels.max(1).astype(np.float64)
    step = np.maximum((high - low) / _STEPS, np.finfo(np.float32).tiny)
    with np.errstate(invalid="ignore"):
        worst = np.array([np.abs(h.astype(np.float32) - c).max() for h, c in zip(half, channels, strict=True)])
    if float(np.max(worst / step)) <= 0.5:
        return half.reshape(values.shape), how
    kept = np.empty(channels.shape, np.uint16)
    for target, channel, a, s in zip(kept, channels, low, step, strict=True):
        target[:] = np.clip(np.rint((channel - a) / s), 0, _STEPS)
    return kept.reshape(values.shape), {**how, "low": low.tolist(), "step": step.tolist()}


def unpack(kept: NDArray[Any], how: Mapping[str, Any], channels: slice | None = None) -> Tensor:
    """The numbers of an array, or of a part of it, in their former type.

    Args:
        kept: what :func:`pack` made, or a part ``[c, ...]`` of it.
        how: as :func:`pack` gave it.
        channels: which leading indices the part has; all when None.
    """
    chosen = slice(None) if channels is None else channels
    dtype = getattr(torch, str(how["dtype"]))
    found = torch.from_numpy(np.ascontiguousarray(kept))
    if "step" not in how:
        return found.to(dtype)
    shape = (-1, *[1] * (found.ndim - 1)) if found.ndim > 1 else (-1,)
    step, low = (torch.tensor(how[k][chosen] if found.ndim > 1 else how[k], dtype=dtype) for k in ("step", "low"))
    return found.to(dtype).mul_(step.reshape(shape)).add_(low.reshape(shape))


def _smallest(values: NDArray[Any]) -> type[np.generic] | None:
    if values.dtype.kind == "b":
        return np.uint8
    if values.dtype.kind == "f":
        sample = values.reshape(-1)[:: max(1, values.size // 4096)]
        if not (np.isfinite(sample).all() and (sample == np.rint(sample)).all()):
            return None
        if not (np.isfinite(values).all() and (values == np.rint(values)).all()):
            return None
    low, high = int(values.min()), int(values.max())
    for kind in _WHOLE:
        span = np.iinfo(kind)
        if span.min <= low and high <= span.max:
            return kind
    return None


def _same_gaps(values: NDArray[Any], half: NDArray[Any]) -> bool:
    return bool((np.isfinite(values) == np.isfinite(half)).all())
