"""Volumes through networks of slices."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from monai.data import MetaTensor
from torch import Tensor

from ..errors import ConfigError

__all__ = ["slice_by_slice"]


def slice_by_slice(volume: Tensor, slices: int, ids: Sequence[Tensor], step: Callable[..., Tensor]) -> Tensor:
    """Send every slice of volumes along their last axis through a network.

    Args:
        volume: ``[B, C, H, W, Z]``.
        slices: slices per call, >= 1.
        ids: what each volume has, ``[B]``, given to its slices.
        step: ``(slices [n, C, H, W], *ids [n]) -> [n, K, H, W]``.

    Returns:
        ``[B, K, H, W, Z]``.

    Raises:
        ConfigError: for a volume that has no depth.
    """
    if volume.ndim != 5:
        raise ConfigError("slices are cut from volumes", got=tuple(volume.shape), expected="[B, C, H, W, Z]")
    # slices are no volumes: their number is none that the metadata of the batch could follow
    volume = volume.as_tensor() if isinstance(volume, MetaTensor) else volume
    batch, depth = volume.shape[0], volume.shape[-1]
    flat = volume.permute(0, 4, 1, 2, 3).flatten(0, 1)
    own = [i.to(volume.device).repeat_interleave(depth).split(slices) for i in ids]
    parts = [step(*several) for several in zip(flat.split(slices), *own, strict=True)]
    whole: Tensor = torch.cat(parts).unflatten(0, (batch, depth)).permute(0, 2, 3, 4, 1)
    return whole
