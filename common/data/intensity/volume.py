"""Intensity statistics of whole volumes and the normalisation built on them."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, Transform
from numpy.typing import NDArray

from ...errors import ConfigError, DataError
from ..datasets.dataset_json import case_name

__all__ = ["STATISTICS", "NormalizePercentiled", "VolumeStatsd", "volume_stats"]

STATISTICS = ("mean", "std", "min", "max", "p0.5", "p99.5", "box mean", "box std", "box min", "box max")


def volume_stats(volume: Any, where: object | None = None) -> NDArray[np.float32]:
    """``[C, 10]`` intensity statistics: of each channel's non-zero voxels, and of all voxels in a box.

    The first six columns are mean, standard deviation, minimum, maximum, 0.5 and 99.5 percentile of what is not zero;
    the others mean, standard deviation, minimum and maximum of all voxels in the smallest box around what is not zero
    in any channel, which nnU-Net crops to and normalises by.

    Args:
        volume: ``[C, X, Y, Z]`` native intensities (HU for CT).
        where: case for the message.

    Raises:
        DataError: when a voxel is NaN or infinite.
    """
    rows, whole = [], np.asarray(volume, dtype=np.float32)
    box = _box(whole)
    for channel in whole:
        if not np.isfinite(channel).all():
            bad = int((~np.isfinite(channel)).sum())
            raise DataError(
                "the image holds NaN or infinite voxels",
                where=where,
                got=f"{bad} of {channel.size} voxels",
                expected="finite intensities",
                hint="list all such cases with: python -m tools data check",
            )
        values = channel[channel != 0]
        values = values if values.size else channel.ravel()
        low, high = np.percentile(values, (0.5, 99.5))
        mean, std = values.mean(dtype=np.float64), values.std(dtype=np.float64)
        inner = channel[box]
        around = inner.mean(dtype=np.float64), inner.std(dtype=np.float64), inner.min(), inner.max()
        rows.append((mean, std, values.min(), values.max(), low, high, *around))
    return np.asarray(rows, dtype=np.float32)


def _box(volume: NDArray[np.float32]) -> tuple[slice, ...]:
    """The smallest box around what is not zero in any channel ``[C, ...]``; everything where all is."""
    filled = (volume != 0).any(0)
    axes = range(filled.ndim)
    lines = [np.flatnonzero(filled.any(tuple(a for a in axes if a != axis))) for axis in axes]
    return tuple(slice(int(n[0]), int(n[-1]) + 1) if n.size else slice(None) for n in lines)


class VolumeStatsd(Transform):
    """Store the whole volume's intensity statistics, so that a crop can later be normalised as its volume would be.

    To be placed after orientation and spacing and before any normalisation or cropping.

    Args:
        key: image ``[C, X, Y, Z]`` with native intensities.
        output: gets ``[C, 10]`` float32, columns as in ``STATISTICS``.
    """

    def __init__(self, key: str = "image", output: str = "stats") -> None:
        self.key, self.output = key, output

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return a copy with ``output``."""
        stats = volume_stats(_plain(data[self.key]).cpu().numpy(), f"case {case_name(data, self.key)}")
        return {**data, self.output: torch.from_numpy(stats)}


class NormalizePercentiled(MapTransform):
    """Clip each channel to its percentiles, then z-score it.

    ``y = (clip(x, p_low, p_high) - m) / max(s, 1e-8)`` with the percentiles of the non-zero voxels and ``m``, ``s`` of
    the clipped non-zero voxels. The zero background is mapped by the same formula, so that the order of intensities
    is kept. A constant channel becomes 0.

    Args:
        keys: images ``[C, X, Y, Z]``.
        lower: lower percentile in [0, 100).
        upper: upper percentile in (lower, 100].

    Raises:
        ConfigError: when the percentiles are out of range.
        DataError: when a voxel is NaN or infinite.
    """

    def __init__(
        self, keys: KeysCollection, lower: float = 0.5, upper: float = 99.5, allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        if not 0 <= lower < upper <= 100:
            raise ConfigError("percentiles must satisfy 0 <= lower < upper <= 100", got=(lower, upper))
        self.lower, self.upper = lower, upper

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return a copy with normalised float32 images."""
        result = dict(data)
        for key in self.key_iterator(result):
            image, where = result[key], f"case {case_name(result, key)}"
            channels = [torch.from_numpy(self._channel(c, where)) for c in _plain(image).cpu().numpy()]
            normal = torch.stack(channels).to(_plain(image).device)
            result[key] = MetaTensor(normal).copy_meta_from(image) if isinstance(image, MetaTensor) else normal
        return result

    def _channel(self, channel: NDArray[Any], where: str) -> NDArray[np.float32]:
        channel = channel.astype(np.float32)
        if not np.isfinite(channel).all():
            raise DataError("the image holds NaN or infinite voxels", where=where, expected="finite intensities")
        values = channel[channel != 0]
        values = values if values.size else channel.ravel()
        low, high = np.percentile(values, (self.lower, self.upper))
        values = np.clip(values, low, high)
        mean, std = float(values.mean(dtype=np.float64)), float(values.std(dtype=np.float64))
        return np.asarray((np.clip(channel, low, high) - mean) / max(std, 1e-8), dtype=np.float32)


def _plain(image: Any) -> torch.Tensor:
    return image.as_tensor() if isinstance(image, MetaTensor) else torch.as_tensor(image)
