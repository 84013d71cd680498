"""A window of a volume as a promptable network sees it: cut out anywhere, padded with zeros, z-scored."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from ...errors import DataError

__all__ = ["crop_at", "start_around", "z_score_positive"]


def start_around(centre: Sequence[float] | Tensor, size: int) -> tuple[int, int, int]:
    """First voxel of the window whose middle is nearest to ``centre``; it may be negative.

    Args:
        centre: voxels x, y, z.
        size: voxels along each side of the window.
    """
    x, y, z = (int(torch.floor(torch.as_tensor(float(c)) + 0.5)) - size // 2 for c in centre)
    return x, y, z


def crop_at(volume: Tensor, start: Sequence[int], size: int, fill: float = 0.0) -> Tensor:
    """Cut ``[C, size, size, size]`` out of ``[C, X, Y, Z]``, filled up where it leaves the volume.

    Args:
        volume: plain tensor of any type.
        start: first voxel along x, y, z; may be negative.
        size: voxels along each side.
        fill: value outside the volume.

    Raises:
        DataError: when the window and the volume do not overlap, or the volume is not 3-D.
    """
    if volume.ndim != 4:
        raise DataError("windows are cut from volumes", got=tuple(volume.shape), expected="[C, X, Y, Z]")
    low = [max(0, s) for s in start]
    high = [min(n, s + size) for n, s in zip(volume.shape[1:], start, strict=True)]
    if any(b <= a for a, b in zip(low, high, strict=True)):
        raise DataError("the window lies outside the volume", got=list(start), expected=f"within {volume.shape[1:]}")
    part = volume[:, low[0] : high[0], low[1] : high[1], low[2] : high[2]]
    pad: list[int] = []
    for a, b, s in zip(reversed(low), reversed(high), reversed(list(start)), strict=True):
        pad += [a - s, s + size - b]
    return F.pad(part, pad, value=fill) if any(pad) else part.clone()


def z_score_positive(crop: Tensor) -> Tensor:
    """``(x - mean) / std`` of all voxels, with mean and standard deviation of the voxels > 0 only.

    All voxels count where fewer than two are positive; a constant crop becomes zero.

    Args:
        crop: ``[..., X, Y, Z]`` intensities; every leading index is normalised by itself.

    Reference:
        Wang et al., SAM-Med3D, 2023, public code: z-normalisation masked by ``x > 0``, after cropping.
    """
    flat = crop.float().reshape(-1, *crop.shape[-3:])
    done = []
    for one in flat:
        values = one[one > 0]
        values = values if values.numel() > 1 else one.flatten()
        spread = values.std()
        done.append((one - values.mean()) / spread if float(spread) > 1e-8 else torch.zeros_like(one))
    return torch.stack(done).reshape(crop.shape)
